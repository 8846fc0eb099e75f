"""Any folder of images: every image file under --root, sorted by name, with no annotations.

Files are told by their extension; hidden files and folders are left out. A quirk: a name that is not UTF-8 is
kept with its strange bytes written out (``\\xff``), and a backslash in any name is written twice.
"""

from __future__ import annotations

import os
from pathlib import Path

from kvstore.contracts import Dataset, ImageRecord
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError

SPLITS: tuple[str, ...] = ()

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def load(root: Path | None, split: str | None) -> Dataset:
    """The images under `root`; `DatasetError` when there is no such folder or no image in it."""
    root = root or Path("data/folder")
    if not root.is_dir():
        raise DatasetError(f"folder: no folder {root}; name one with images in it: --root DIR")
    names = sorted(_names(root))
    if not names:
        raise DatasetError(f"folder: no image in {root}; looked for files ending in {', '.join(EXTENSIONS)}")

    def record(place: int) -> ImageRecord:
        return ImageRecord(storable(names[place]), read_file(root, names[place]))

    return Dataset("folder", "", Lazy(len(names), record), root)


def _names(root: Path) -> list[str]:
    """Paths relative to `root`, with forward slashes."""
    found: list[str] = []
    for folder, inner, files in os.walk(root, onerror=_refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        shown = (name for name in files if not name.startswith("."))
        images = (name for name in shown if name.lower().endswith(EXTENSIONS))
        found.extend(Path(folder, name).relative_to(root).as_posix() for name in images)
    return found


def _refuse(error: OSError) -> None:
    raise DatasetError(f"folder: cannot list {error.filename}: {error.strerror}") from error
