"""A data set written anew in the layout of another: written aside, and renamed into place when it is whole.

Formats are found by file name: ``ingest/exports/<format>.py``, a docstring and a function `write`.
"""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from kvstore import datasets, interrupts, names, recipes
from kvstore.contracts import Annotations, Dataset, ImageRecord, Note
from kvstore.errors import DatasetError, ImageError, NoSpaceError, UsageError
from kvstore.progress import track

FORMATS = "ingest/exports"

#: What a file name ends in, by the format of its bytes as Pillow names it.
EXTENSIONS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
    "PPM": ".ppm",
    "AVIF": ".avif",
    "HEIF": ".heic",
}


class ExportRecipe(Protocol):
    """``ingest/exports/<format>.py``: a docstring (its first line says what is written) and this function."""

    def write(self, dataset: Dataset, folder: Path) -> None:
        """Write `dataset`, whose images may be fewer than its pairs name, into `folder`, empty at first.

        The images' bytes are written as `ImageRecord.read` gives them; an `ImageError` ends the export. Paths
        with a name from the data set in them (of an image, a category, a clip) are made by `names.place`.
        """


def export(
    name: str,
    format_: str,
    folder: Path,
    *,
    root: Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    follow_links: bool = False,
) -> Dataset:
    """Write the data set `name` in the layout `format_` into `folder`, new or empty; return what was written.

    The `notes` of what is returned are those of its images, too: what the recipe left out of them, or mended.
    The folder appears whole or not at all. `root` to `follow_links` are those of `datasets.load`, whose
    errors it raises; further `UnknownNameError` for the format, `UsageError` for a folder that is not empty
    or cannot be written, `DatasetError` for an image that cannot be read, `NoSpaceError` for a full disk.
    """
    recipe: ExportRecipe = recipes.load(FORMATS, format_)
    vacant(folder)
    dataset = datasets.load(
        name, root, split, limit, annotations=annotations, images=images, follow_links=follow_links
    )
    if not dataset.images:
        raise DatasetError(f"{name} has no images to export{f' in split {split}' if split else ''}")
    notes: dict[str, tuple[Note, ...]] = {}  # of each image that was annotated, however often it was
    noting = partial(_noting, dataset.images, notes)
    with written_whole(folder) as aside:
        recipe.write(replace(dataset, images=datasets.Lazy(len(dataset.images), noting)), aside)
    return replace(dataset, notes=[*dataset.notes, *(note for found in notes.values() for note in found)])


def _noting(images: Sequence[ImageRecord], notes: dict[str, tuple[Note, ...]], place: int) -> ImageRecord:
    """An image whose annotations leave their notes in `notes`."""
    record = images[place]

    def annotate(width: int, height: int, orientation: int) -> Annotations:
        made = record.annotate(width, height, orientation)
        notes[record.name] = made.notes
        return made

    return replace(record, annotate=annotate)


def contents(dataset: Dataset) -> Iterator[tuple[ImageRecord, bytes]]:
    """Each image of a data set with its file's bytes, one at a time, under a progress bar.

    Raises `DatasetError` with the name of the first image that cannot be read.
    """
    with track(f"export {dataset.name}", len(dataset.images), "image") as advance:
        for record in dataset.images:
            with of_image(record):
                data = record.read()
            yield record, data
            advance(1)


@contextmanager
def of_image(record: ImageRecord) -> Iterator[None]:
    """Tell an `ImageError` as a `DatasetError` with the image's name: an export is whole or is not."""
    try:
        yield
    except ImageError as error:
        raise DatasetError(
            f"image {record.name!r} cannot be exported ({error.reason}): {error.detail}; nothing was written"
        ) from error


# --------------------------------------------------------------------------------- the folder, all or nothing


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into that appears as `folder` at the end, whole or not at all.

    Raises `UsageError` for a folder that is not empty or cannot be written, `NoSpaceError` for a full disk,
    `DatasetError` for names in it that are one on some system.
    """
    target = vacant(folder)
    with _disk_errors(target), _aside(target) as aside:
        yield aside
        names.check_apart(aside)


def vacant(folder: Path) -> Path:
    """The folder's real path; `UsageError` unless it can appear there at once."""
    try:
        target = folder.expanduser().resolve()
        if target.exists() and not target.is_dir():
            raise UsageError(f"{folder} is a file; name a new folder")
        if target.is_dir() and any(target.iterdir()):
            raise UsageError(f"{folder} is not empty; name a new folder, nothing is overwritten")
        if target.is_dir() and (target == Path.cwd() or target.is_mount()):
            raise UsageError(f"{folder} cannot be replaced as a whole; name a new folder in it")
    except (OSError, RuntimeError, ValueError) as error:  # too long, no permission; a loop of links; NUL
        raise UsageError(f"{folder} cannot be used: {getattr(error, 'strerror', None) or error}") from error
    return target


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place at the end; after an error nothing of it is left."""
    above = [parent for parent in target.parents if not parent.exists()]
    aside = target.parent / f".{target.name[:100]}-{secrets.token_hex(4)}"
    try:
        aside.mkdir(parents=True)
        yield aside
        aside.rename(target)  # over an empty folder, too; another that was filled meanwhile stays
    except BaseException:
        with interrupts.shielded():
            shutil.rmtree(aside, ignore_errors=True)
            for parent in above:  # the innermost first
                with suppress(OSError):
                    parent.rmdir()
        raise


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Say in a user's words what the system refuses."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"no space left on the disk of {target}; nothing was written: free some, or use --limit"
            ) from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(
                f"{target} was filled by another process meanwhile; it stays as it is"
            ) from error
        raise UsageError(
            f"{target} cannot be written ({error.strerror or error}); name another folder"
        ) from error
