"""SPair-71k: pairs of photographs with keypoints seen in both (cvlab.postech.ac.kr/research/SPair-71k).

Under --root lie ``Layout/large/test.txt``, which lists the pairs in the data set's order,
``PairAnnotation/test/``, ``ImageAnnotation/``, ``JPEGImages/`` and where wanted ``Segmentation/``; the same
for val and trn. The images are those of the split's pairs, as these first name them. A colon in the name of a
pair's file may have become another character, as Windows wants it. A quirk: coordinates are whole pixels and
stay as they are, without half a pixel more, since the official evaluation takes them so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from kvstore import masks
from kvstore.contracts import Annotations, Box, Dataset, ImageRecord, Keypoint, Note, Object, Pair
from kvstore.datasets import Lazy, read_file, text_lines
from kvstore.errors import DatasetError, ImageError
from kvstore.notes import Notes
from kvstore.upright import turn_of

from . import _spair_json  # noqa: TID252 - the recipes' package has no fixed name
from ._class_maps import first, opened  # noqa: TID252

SPLITS = ("test", "val", "trn")

_ADDRESS = f"http://cvlab.postech.ac.kr/research/SPair-71k/data/{_spair_json.ARCHIVE}"
#: What stands for a colon: itself, and what programs put in its place on Windows' disks.
_COLONS = (":", "_", "\uf03a", "-", "%3A", "")


def load(root: Path | None, split: str | None) -> Dataset:
    """SPair-71k's `split` under `root`; `DatasetError` says what is missing or malformed."""
    root, split = root or Path("data/spair71k"), split or SPLITS[0]
    archive = _spair_json.ARCHIVE
    remedy = f"curl -O {_ADDRESS} && mkdir -p {root} && tar xzf {archive} -C {root} --strip-components 1"
    layout, annotated = f"Layout/large/{split}.txt", f"PairAnnotation/{split}"
    for place in (layout, annotated, "ImageAnnotation", "JPEGImages"):
        first("spair71k", root, [place], remedy)
    notes = Notes()
    pairs = list(_pairs(root / layout, root / annotated, notes))
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.source, pair.target)))
    images = Lazy(len(names), partial(_record, root, names))
    return Dataset("spair71k", split, images, root, (root / layout,), pairs=pairs, notes=tuple(notes))


def _pairs(layout: Path, folder: Path, notes: Notes) -> Iterator[Pair]:
    """The pairs that are listed, each once, and of those with one number the first."""
    names, numbers = set[str](), set[int]()
    for name in text_lines(layout):
        if name in names:
            notes.add("pairs listed twice, taken once", f"{layout.name}, {name}", lost=False)
            continue
        names.add(name)
        pair = _spair_json.pair(_file(folder, name), notes)
        if pair.pair_id in numbers:
            notes.add("pairs with the number of another, left out", f"{name}, pair_id {pair.pair_id}")
            continue
        numbers.add(pair.pair_id)
        yield pair
    if not numbers:
        raise DatasetError(f"{layout} lists no pair; unpack {_spair_json.ARCHIVE} again")


def _file(folder: Path, name: str) -> Path:
    if "/" in name:
        raise DatasetError(
            f"a list names {name[:80]!r}, which is no pair; unpack {_spair_json.ARCHIVE} again"
        )
    known = (folder / f"{name.replace(':', colon)}.json" for colon in _COLONS)
    return next((path for path in known if _spair_json.there(path)), folder / f"{name}.json")


# ------------------------------------------------------------------------------------------- images, as asked


def _record(root: Path, names: Sequence[str], place: int) -> ImageRecord:
    name = names[place]
    return ImageRecord(name, read_file(root, name), partial(_annotations, root, name, place + 1))


def _annotations(
    root: Path, name: str, number: int, width: int, height: int, orientation: int
) -> Annotations:
    """The one object that is annotated in an image; its id is the image's place among all, from 1."""
    _, category, file = name.split("/")
    try:
        about = _spair_json.image(root / "ImageAnnotation" / category / f"{Path(file).stem}.json")
    except DatasetError as error:  # of one image, which alone is of no use then
        raise ImageError("unreadable", str(error)) from error
    turn_of(about.size, width, height, 1)  # raises: was it resized?
    mask, notes = None, []
    if (root / "Segmentation").is_dir():
        mask, fault = _mask(
            root,
            f"Segmentation/{category}/{Path(file).stem}.png",
            about.box,
            about.keypoints,
            (width, height),
        )
        notes = [Note(fault, name)] if fault else []
    area = masks.area(mask) if mask else (about.box[2] - about.box[0]) * (about.box[3] - about.box[1])
    thing = Object(number, category, about.box, float(area), mask=mask, keypoints=about.keypoints)
    return Annotations((thing,), notes=tuple(notes))


def _mask(
    root: Path, name: str, box: Box, points: Sequence[Keypoint], size: tuple[int, int]
) -> tuple[str | None, str]:
    """The pixels in an object's box of the value that most of its keypoints lie on, 0 and 255 left aside.

    The map tells classes apart, not objects, so that another of the category may reach into the box. Without
    a mask, what is wrong: the kind of a note.
    """
    if not _spair_json.there(root / name):
        return None, "objects without a map in Segmentation"
    image = opened(root, name)
    if image.mode not in ("P", "L"):
        return None, "maps in Segmentation that hold no class numbers"
    turn_of(image.size, *size, 1)
    values = np.asarray(image)  # [height, width]
    under = [int(values[_within(p.y, size[1]), _within(p.x, size[0])]) for p in points]
    own = [value for value in under if 0 < value < 255]
    if not own:
        return None, "objects with no keypoint on a class of their map"
    inside = np.zeros(values.shape, bool)
    x0, y0 = (max(int(edge) - 1, 0) for edge in box[:2])  # boxes are VOC's, whose first pixel is 1
    inside[y0 : max(int(box[3]), 0), x0 : max(int(box[2]), 0)] = True
    return masks.from_array(inside & (values == max(own, key=own.count))), ""


def _within(coordinate: float, side: int) -> int:
    return min(max(int(coordinate), 0), side - 1)
