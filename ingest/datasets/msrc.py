"""MSRC: groups of images of one class (people.csail.mit.edu/mrub/ObjectDiscovery), or MSRC v2 as a whole.

Groups are ``<class>/<image>`` with masks ``<class>/GroundTruth/<image>`` under --root: an image has one
object, its group's. MSRC v2 (microsoft.com/en-us/research/project/image-understanding) is ``Images/<image>``
with maps of colours ``GroundTruth/<image>_GT``: an image has an object per class, of grass and sky, too.
Images and masks may have any image's ending. A quirk: edges of a group's masks are soft, and half white is
inside, in a mask of 0 and 1 alone 1 is; in v2 black is void.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kvstore.contracts import Annotations, Dataset, ImageRecord, Note
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError
from kvstore.folders import by_stem, contents, only_folders, only_images, passed_over, without_image
from kvstore.notes import Notes

from . import _class_maps  # noqa: TID252 - the recipes' package has no fixed name

SPLITS: tuple[str, ...] = ()

_TRUTH = "GroundTruth"

#: Colours of MSRC v2, 0xRRGGBB.
COLOURS = {
    0x800000: "building",
    0x008000: "grass",
    0x808000: "tree",
    0x000080: "cow",
    0x800080: "horse",
    0x008080: "sheep",
    0x808080: "sky",
    0x400000: "mountain",
    0xC00000: "aeroplane",
    0x408000: "water",
    0xC08000: "face",
    0x400080: "car",
    0xC00080: "bicycle",
    0x408080: "flower",
    0xC08080: "sign",
    0x004000: "bird",
    0x804000: "book",
    0x00C000: "chair",
    0x804080: "road",
    0x00C080: "cat",
    0x80C080: "dog",
    0x404000: "body",
    0xC04000: "boat",
}


def load(root: Path | None, split: str | None) -> Dataset:
    """The images under `root`, group by group; `DatasetError` when there is none."""
    root = root or Path("data/msrc")
    version2 = (root / "Images").is_dir() and (root / _TRUTH).is_dir()
    notes = Notes()
    found = list((_version2 if version2 else _groups)(root, notes)) if root.is_dir() else []
    if not any((root / mask).is_file() for _, mask in found):
        raise DatasetError(
            f"msrc: no <class>/<image> with <class>/GroundTruth/<image> in {root}, and no Images/ with "
            "GroundTruth/ (--root). Get it from people.csail.mit.edu/mrub/ObjectDiscovery, folder Data/MSRC"
        )

    def record(place: int) -> ImageRecord:
        file, mask = found[place]
        annotate = partial(_coloured if version2 else _foreground, root, mask, place)
        return ImageRecord(storable(file), read_file(root, file), annotate)

    return Dataset("msrc", "", Lazy(len(found), record), root, notes=tuple(notes))


Pair = tuple[str, str]  # an image and where its mask is, or would be; paths relative to the root


def _version2(root: Path, notes: Notes) -> Iterator[Pair]:
    """The images of MSRC v2."""
    _, others = contents(root, root, notes)
    passed_over(root, (name for name in others if name not in ("Images", _TRUTH)), root, notes)
    yield from _paired(root / "Images", root / _TRUTH, "_GT", root, notes)


def _groups(root: Path, notes: Notes) -> Iterator[Pair]:
    """The images of all groups, group by group."""
    for group in only_folders(root, root, notes):
        yield from _paired(root / group, root / group / _TRUTH, "", root, notes)


def _paired(folder: Path, truth: Path, ending: str, root: Path, notes: Notes) -> Iterator[Pair]:
    """The images in a folder with their masks, whose names have an `ending` more."""
    names, others = contents(folder, root, notes)
    passed_over(folder, (name for name in others if name != truth.name), root, notes)
    images = by_stem(names, folder, root, notes)
    masks = by_stem(only_images(truth, root, notes), truth, root, notes) if truth.is_dir() else {}
    without_image(masks.values(), images, truth, root, notes, ending)
    for stem, name in images.items():
        wanted = f"{stem}{ending}"
        mask = masks.get(wanted, f"{wanted}{PurePosixPath(name).suffix}")
        yield _path(folder / name, root), _path(truth / mask, root)


def _path(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _foreground(root: Path, file: str, place: int, width: int, height: int, orientation: int) -> Annotations:
    """The object of a group's image: what is white."""
    grey = np.asarray(_class_maps.opened(root, file).convert("L"))
    inside = grey >= (1 if grey.max() == 1 else 128)
    names, upright = {1: storable(PurePosixPath(file).parts[0])}, (width, height, orientation)
    found = _class_maps.told(inside.astype(np.uint8), names, None, file=file, place=place, upright=upright)
    return replace(found, notes=tuple(_noted(int(grey.max()), storable(file))))


def _noted(brightest: int, file: str) -> Iterator[Note]:
    if brightest == 1:
        yield Note("masks of 0 and 1 alone, of which 1 is inside", file, lost=False)
    elif 1 < brightest < 128:
        yield Note("masks without half white, so without an object", file)


def _coloured(root: Path, file: str, place: int, width: int, height: int, orientation: int) -> Annotations:
    """The objects of an image of MSRC v2: one per colour."""
    pixels = np.asarray(_class_maps.opened(root, file).convert("RGB")).astype(np.int64)
    codes, upright = pixels @ np.array([1 << 16, 1 << 8, 1]), (width, height, orientation)
    return _class_maps.told(codes, COLOURS, 0, file=file, place=place, upright=upright)
