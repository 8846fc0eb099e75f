"""Any folder of images: every image file under --root, sorted by name, with no annotations.

Files are told by their extension; hidden files and folders are left out. Linked folders are passed over, and
linked files must lead to some place under --root, unless ``--follow-links`` is given; then each folder is
read once, by the name of the tree rather than that of a link. A quirk: a name that is not UTF-8 is kept with
its strange bytes written out (``\\xff``), and a backslash in any name is written twice.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from kvstore.contracts import Dataset, ImageRecord
from kvstore.datasets import Lazy, Linked, read_file, storable
from kvstore.errors import DatasetError
from kvstore.folders import contents, holds_images, place
from kvstore.images import ENDINGS
from kvstore.notes import Notes

SPLITS: tuple[str, ...] = ()


def load(root: Path | None, split: str | None) -> Dataset:
    """The images under `root`; `DatasetError` when there is no such folder or no image in it."""
    root = root or Path("data/folder")
    if not root.is_dir():
        raise DatasetError(f"folder: no folder {root}; name one with images in it: --root DIR")
    notes = Notes()
    names = sorted(_names(root, notes))
    if not names:
        lost = [f"; {note.count} {note.kind}: {note.place}" for note in notes if note.lost]
        raise DatasetError(
            f"folder: no image in {root}; looked for files ending in {', '.join(ENDINGS)}{''.join(lost[:1])}"
        )

    def record(number: int) -> ImageRecord:
        return ImageRecord(storable(names[number]), read_file(root, names[number]))

    return Dataset("folder", "", Lazy(len(names), record), root, notes=tuple(notes))


def _names(root: Path, notes: Notes) -> list[str]:
    """Paths relative to `root`, with forward slashes. Links come last: the tree names what lies in it."""
    found: list[str] = []
    tree, links, read = deque([root]), deque[Path](), set[Path]()
    while tree or links:
        folder = tree.popleft() if tree else links.popleft()
        if folder.resolve() in read:
            notes.add("links to folders that are read already, passed over", place(folder, root), lost=False)
            continue
        if folder != root and folder.is_symlink() and not isinstance(root, Linked):
            _pass_over(folder, root, notes)
            continue
        read.add(folder.resolve())
        images, folders = contents(folder, root, notes)
        found.extend((folder / name).relative_to(root).as_posix() for name in images)
        for name in folders:
            (links if (folder / name).is_symlink() else tree).append(folder / name)
    return found


def _pass_over(link: Path, root: Path, notes: Notes) -> None:
    lost = holds_images(link)
    kind = "linked folders with images (see --follow-links)"
    notes.add(kind if lost else "linked folders without images, passed over", place(link, root), lost=lost)
