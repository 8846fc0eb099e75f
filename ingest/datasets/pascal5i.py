"""Pascal-5i: few-shot segmentation on VOC 2012, its 20 classes in 4 folds (host.robots.ox.ac.uk/pascal/VOC).

Under --root lie ``JPEGImages/`` and ``SegmentationClassAug/`` or ``SegmentationClass/`` (also in ``VOC2012/``
or ``VOCdevkit/VOC2012/``) and the validation lists of the folds, ``fold0.txt``, ... (also in ``splits/val/``
or ``splits/pascal/val/``). A ``classes.txt`` beside them, a name a line, stands for VOC's classes; images may
have any image's ending. A quirk: an image's objects are the classes under which the list names it; other
classes in its mask are background, as in evaluations that draw (image, class) from these lists.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

import numpy as np

from kvstore.contracts import Annotations, Dataset, ImageRecord, Note
from kvstore.datasets import Lazy, numbered_lines, read_file, storable, text_lines
from kvstore.errors import DatasetError, ImageError
from kvstore.folders import by_stem, contents
from kvstore.notes import Notes

from . import _class_maps  # noqa: TID252 - the recipes' package has no fixed name

SPLITS = ("fold0", "fold1", "fold2", "fold3")

#: Fold i has the five classes from the (5 i + 1)-th.
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

_VOID = 255
_LISTS = ("splits/pascal/val", "splits/val", "val", ".")
_IMAGES = ("JPEGImages", "VOC2012/JPEGImages", "VOCdevkit/VOC2012/JPEGImages")
_MASKS = ("SegmentationClassAug", "SegmentationClass")
_VOC = "curl -O http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
_HSNET = "data/splits/pascal/val of github.com/juhongm999/hsnet"


def load(root: Path | None, split: str | None) -> Dataset:
    """The images of one fold's list; `DatasetError` says what is missing or malformed."""
    root, split = root or Path("data/pascal5i"), split or SPLITS[0]
    photos = _class_maps.first(
        "pascal5i", root, _IMAGES, f"{_VOC} && tar xf VOCtrainval_11-May-2012.tar -C {root}"
    )
    masks = _class_maps.first("pascal5i", photos.parent, _MASKS, f"{_VOC}, or the augmented masks of SBD")
    listed = _class_maps.first(
        "pascal5i", root, [f"{place}/{split}.txt" for place in _LISTS], f"copy {_HSNET} to {root}/splits/val"
    )
    own = listed.with_name("classes.txt")
    classes = _classes(own) if own.is_file() else CLASSES
    notes = Notes()
    entries = _named(listed, classes, notes)
    files, named = _files(photos, root, entries, notes), list(entries.items())

    def record(place: int) -> ImageRecord:
        name, categories = named[place]
        file = files.get(name, f"{name}.jpg")
        annotate = partial(_annotate, masks, f"{name}.png", place, classes, categories)
        path = f"{photos.relative_to(root).as_posix()}/{file}"
        return ImageRecord(storable(path), read_file(photos, file), annotate)

    sources = (listed, own) if own.is_file() else (listed,)
    shown = {name for _, categories in named for name in categories}
    numbers = {number: name for number, name in enumerate(classes, 1) if name in shown}
    records = Lazy(len(named), record)
    return Dataset("pascal5i", split, records, root, sources, categories=numbers, notes=tuple(notes))


def _classes(path: Path) -> Sequence[str]:
    """The names of the classes from 1, each its own."""
    names = numbered_lines(path)
    if not 0 < len(names) < _VOID:
        raise DatasetError(f"{path} has {len(names)} classes; 1 to {_VOID - 1} are known, {_VOID} is void")
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise DatasetError(f"{path} names {twice[0][:80]!r} twice; give each class a name of its own")
    return names


def _named(path: Path, classes: Sequence[str], notes: Notes) -> dict[str, set[str]]:
    """Image name -> the categories under which a list of ``name__class`` has it, in the list's order."""
    named: dict[str, set[str]] = {}
    for line in text_lines(path):
        name, _, number = line.rpartition("__")
        if not name or not number.isdecimal() or len(number) > 9 or not 1 <= int(number) <= len(classes):
            raise DatasetError(
                f"{path}: {line[:80]!r} is no name__class with a class from 1 to {len(classes)}; get {_HSNET}"
            )
        category = classes[int(number) - 1]
        if category in named.setdefault(name, set()):
            notes.add("entries of a list met twice, taken once", f"{path.name}, {line}", lost=False)
        named[name].add(category)
    if not named:
        raise DatasetError(f"{path} lists no image; get {_HSNET}")
    return named


def _files(photos: Path, root: Path, named: Container[str], notes: Notes) -> dict[str, str]:
    """Name -> file of the images that the list names; VOC's others are of no account."""
    images, _ = contents(photos, root, Notes())
    return by_stem((name for name in images if PurePath(name).stem in named), photos, root, notes)


def _annotate(
    folder: Path,
    file: str,
    place: int,
    classes: Sequence[str],
    categories: set[str],
    width: int,
    height: int,
    orientation: int,
) -> Annotations:
    """The objects of some categories. A palette (mode P) or grey (mode L) PNG: both hold class numbers."""
    image = _class_maps.opened(folder, file)
    if image.mode not in ("P", "L"):
        raise ImageError(
            "unreadable", f"mask {file!r} has mode {image.mode}; class numbers are of mode P or L"
        )
    names = dict(enumerate(classes, 1))
    upright = (width, height, orientation)
    found = _class_maps.told(np.asarray(image), names, _VOID, file=file, place=place, upright=upright)
    things = tuple(thing for thing in found.objects if thing.category in categories)
    kind = "classes listed for an image in whose mask they are not"
    absent = len(categories) - len(things)
    return replace(found, objects=things, notes=(Note(kind, file, absent),) if absent else ())
