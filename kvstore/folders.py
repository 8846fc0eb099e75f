"""What lies in folders of images: the images, and notes of all that is passed over beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable
from pathlib import Path, PurePath

from kvstore.datasets import storable
from kvstore.errors import DatasetError
from kvstore.images import ENDINGS
from kvstore.notes import Notes

#: Endings that a note names; others, as the numbers of ``a.0001``, ``a.0002``, are told as one kind.
_TELLING = re.compile(r"\.[a-z][a-z0-9]{0,7}")


def contents(folder: Path, root: Path, notes: Notes) -> tuple[list[str], list[str]]:
    """The names of the images and of the folders in `folder`, each sorted; links count as what they lead to.

    Images are told by their ending (`images.ENDINGS`). Hidden files and folders and other files are passed
    over and noted, their places relative to `root`. Raises `DatasetError` when the folder cannot be listed.
    """
    images: list[str] = []
    folders: list[str] = []
    for name, is_folder in sorted(_entries(folder)):
        where = place(folder / name, root)
        if name.startswith("."):
            notes.add("hidden files and folders, passed over", where, lost=False)
        elif is_folder:
            folders.append(name)
        elif name.lower().endswith(ENDINGS):
            images.append(name)
        else:
            notes.add(f"files {_ending(name)}, passed over", where, lost=False)
    return images, folders


def only_images(folder: Path, root: Path, notes: Notes) -> list[str]:
    """The images in `folder`, as `contents` gives them; folders with images in it are noted as lost."""
    images, folders = contents(folder, root, notes)
    passed_over(folder, folders, root, notes)
    return images


def only_folders(folder: Path, root: Path, notes: Notes) -> list[str]:
    """The folders in `folder`, as `contents` gives them; images beside them are noted as lost."""
    images, folders = contents(folder, root, notes)
    if images:
        where = place(folder / images[0], root)
        notes.add("images beside the folders of images", where, count=len(images))
    return folders


def passed_over(folder: Path, names: Iterable[str], root: Path, notes: Notes) -> None:
    """Note folders in `folder` that are left out; as lost where images lie in them."""
    for name in names:
        holds = holds_images(folder / name)
        kind = "folders with images where none are looked for"
        notes.add(
            kind if holds else "folders without images, passed over", place(folder / name, root), lost=holds
        )


def by_stem(names: Iterable[str], folder: Path, root: Path, notes: Notes) -> dict[str, str]:
    """Name without its ending -> name. Of names that differ only in their ending the first is kept."""
    found: dict[str, str] = {}
    for name in names:
        if found.setdefault(PurePath(name).stem, name) != name:
            notes.add("images named as another but for the ending, left out", place(folder / name, root))
    return found


def without_image(
    masks: Iterable[str], stems: Container[str], folder: Path, root: Path, notes: Notes, ending: str = ""
) -> None:
    """Note the masks in `folder` that have none of the images' `stems`, to which masks add an `ending`."""
    for name in masks:
        stem = PurePath(name).stem
        if not stem.endswith(ending) or stem[: len(stem) - len(ending)] not in stems:
            notes.add("masks without an image, left out", place(folder / name, root))


def place(path: Path, root: Path) -> str:
    """A path relative to `root`, as a note names it."""
    return storable(path.relative_to(root).as_posix())


def holds_images(folder: Path, most: int = 10_000) -> bool:
    """Whether an image lies in a folder, at any depth; it is taken to after `most` others, or unseen ones."""
    others, unseen = 0, list[OSError]()
    for _, inner, files in os.walk(folder, onerror=unseen.append):
        inner[:] = [name for name in inner if not name.startswith(".")]
        shown = [name for name in files if not name.startswith(".")]
        others += len(shown) + len(inner)
        if others > most or any(name.lower().endswith(ENDINGS) for name in shown):
            return True
    return bool(unseen)


def _entries(folder: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, _is_folder(entry)) for entry in entries]
    except (OSError, ValueError) as error:  # NUL in its name
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"cannot list {str(folder)[:150]}: {reason}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a file, which cannot be read
        return False


def _ending(name: str) -> str:
    ending = PurePath(name).suffix.lower()
    return f"ending in {ending}" if _TELLING.fullmatch(ending) else "with no ending of an image"
