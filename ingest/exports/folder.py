"""Images alone, in one folder, under the names that the data set gives them.

What the recipe `folder` reads back. A quirk: names keep their folders (``test/000001.png``), so that images
of the same name in two of them stay apart; a name without an image's ending gets one.
"""

from __future__ import annotations

from pathlib import Path

from kvstore import images
from kvstore.contracts import Dataset, ImageRecord
from kvstore.errors import DatasetError
from kvstore.export import EXTENSIONS, contents, of_image

_ENDINGS = (*EXTENSIONS.values(), ".jpeg", ".tiff")


def write(dataset: Dataset, folder: Path) -> None:
    """Write the images' bytes into `folder`."""
    for record, data in contents(dataset):
        path = folder / _placed(record, data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
        except (FileExistsError, NotADirectoryError) as error:
            raise DatasetError(f"image {record.name!r} would lie where another does") from error


def _placed(record: ImageRecord, data: bytes) -> str:
    """A file name that stays in the folder and is found in it."""
    if any(not part or part.startswith(".") for part in record.name.split("/")):
        raise DatasetError(f"image {record.name!r} has a name that would be hidden or leave the folder")
    if record.name.lower().endswith(_ENDINGS):
        return record.name
    with of_image(record):
        return record.name + EXTENSIONS[images.header(data).format]
