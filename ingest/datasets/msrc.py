"""MSRC: groups of images of one class (people.csail.mit.edu/mrub/ObjectDiscovery), or MSRC v2 as a whole.

Groups are ``<class>/<image>`` with masks ``<class>/GroundTruth/<image>`` under --root: an image has one
object, its group's. MSRC v2 (microsoft.com/en-us/research/project/image-understanding) is ``Images/<image>``
with maps of colours ``GroundTruth/<image>_GT``: an image has an object per class, of grass and sky, too.
Images and masks may have any ending. A quirk: edges of a group's masks are soft, and half white is inside; in
v2 black is void.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kvstore.contracts import Annotations, Dataset, ImageRecord
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError

from . import _class_maps  # noqa: TID252 - the recipes' package has no fixed name

SPLITS: tuple[str, ...] = ()

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
    version2 = (root / "Images").is_dir()
    files = _class_maps.pictures(root, "Images/*" if version2 else "*/*")
    masks = _by_stem(_class_maps.pictures(root, "GroundTruth/*" if version2 else "*/GroundTruth/*"))
    if not files or not masks:
        raise DatasetError(
            f"msrc: no <class>/<image> with <class>/GroundTruth/<image> in {root}, and no Images/ with "
            "GroundTruth/ (--root). Get it from people.csail.mit.edu/mrub/ObjectDiscovery, folder Data/MSRC"
        )

    def record(place: int) -> ImageRecord:
        path = PurePosixPath(files[place])
        wanted = f"GroundTruth/{path.stem}_GT" if version2 else f"{path.parent}/GroundTruth/{path.stem}"
        mask = masks.get(wanted, f"{wanted}{path.suffix}")
        annotate = partial(_coloured if version2 else _foreground, root, mask, place)
        return ImageRecord(storable(files[place]), read_file(root, files[place]), annotate)

    return Dataset("msrc", "", Lazy(len(files), record), root)


def _by_stem(files: Sequence[str]) -> dict[str, str]:
    """Path without its ending -> path."""
    return {PurePosixPath(file).with_suffix("").as_posix(): file for file in files}


def _foreground(root: Path, file: str, place: int, width: int, height: int, orientation: int) -> Annotations:
    """The object of a group's image: what is white."""
    codes = np.asarray(_class_maps.opened(root, file).convert("L")) >= 128
    names, upright = {1: PurePosixPath(file).parts[0]}, (width, height, orientation)
    return _class_maps.told(codes.astype(np.uint8), names, None, file=file, place=place, upright=upright)


def _coloured(root: Path, file: str, place: int, width: int, height: int, orientation: int) -> Annotations:
    """The objects of an image of MSRC v2: one per colour."""
    pixels = np.asarray(_class_maps.opened(root, file).convert("RGB")).astype(np.int64)
    codes, upright = pixels @ np.array([1 << 16, 1 << 8, 1]), (width, height, orientation)
    return _class_maps.told(codes, COLOURS, 0, file=file, place=place, upright=upright)
