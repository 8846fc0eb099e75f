"""Images alone, in one folder, under the names that the data set gives them.

What the recipe `folder` reads back. A quirk: names keep their folders (``test/000001.png``), so that images
of the same name in two of them stay apart; a name without an image's ending gets one.
"""

from __future__ import annotations

from pathlib import Path

from kvstore import images
from kvstore.contracts import Dataset, ImageRecord
from kvstore.export import EXTENSIONS, contents, of_image
from kvstore.names import place

_ENDINGS = (*EXTENSIONS.values(), ".jpeg", ".tiff")


def write(dataset: Dataset, folder: Path) -> None:
    """Write the images' bytes into `folder`."""
    for record, data in contents(dataset):
        place(folder, *_named(record, data).split("/")).write_bytes(data)


def _named(record: ImageRecord, data: bytes) -> str:
    """The image's name with an ending by which it is found."""
    if record.name.lower().endswith(_ENDINGS):
        return record.name
    with of_image(record):
        return record.name + EXTENSIONS[images.header(data).format]
