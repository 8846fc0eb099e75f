"""Drawn scenes: eight kinds of things with exact masks, named keypoints and pairs; no file is needed.

Every image is drawn when it is read, the same bytes each time; --root is not used. A quirk: masks and boxes
are of what is to be seen, while a keypoint that another object hides is kept and marked so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import overload

from kvstore.contracts import Annotations, Dataset, ImageRecord, Object, Pair, PairKeypoint
from kvstore.datasets import Lazy

from . import _scenes  # noqa: TID252 - the recipes' package has no fixed name

SPLITS = ("test", "train", "val")
MODEL = "tiny-onevision"  # nothing is downloaded to try it
IMAGES = {"test": 200, "train": 2000, "val": 200}

#: Pairs stay within so many consecutive images, so that the first images of a split have pairs of their own.
BLOCK = 20
#: A pair has at least so many keypoints seen in both images.
SHARED = 3


def load(root: Path | None, split: str | None) -> Dataset:
    """The scenes of `split`."""
    split = split or SPLITS[0]
    identity = {"seed": _scenes.SEED, "version": _scenes.VERSION, "side": _scenes.SIDE}
    images = Lazy(IMAGES[split], partial(_record, split))
    return Dataset("shapes", split, images, identity=identity, pairs=_Pairs(split, IMAGES[split]))


def _name(split: str, number: int) -> str:
    return f"{split}/{number:06d}.png"


def _record(split: str, number: int) -> ImageRecord:
    return ImageRecord(_name(split, number), partial(_read, split, number), partial(_annotate, split, number))


def _read(split: str, number: int) -> bytes:
    return _scenes.png(_scenes.paint(_scenes.compose(split, number)))


def _annotate(split: str, number: int, width: int, height: int, orientation: int) -> Annotations:
    return _scenes.annotate(_scenes.compose(split, number))


class _Pairs(Sequence[Pair]):
    """The pairs of a split, found when first asked for: each image with the next that shares a category."""

    def __init__(self, split: str, images: int) -> None:
        self._split, self._images = split, images

    @cached_property
    def _all(self) -> list[Pair]:
        starts = range(0, self._images, BLOCK)
        blocks = (_block(self._split, start, min(start + BLOCK, self._images)) for start in starts)
        return [pair for block in blocks for pair in block]

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        return self._all[index]


def _block(split: str, start: int, end: int) -> Iterator[Pair]:
    """At most one pair per image, its id the image's number; categories take turns from image to image."""
    seen = {n: _scenes.annotate(_scenes.compose(split, n)).objects for n in range(start, end)}
    for number, objects in seen.items():
        turn = number % len(objects)
        others = [start + (number - start + step) % (end - start) for step in range(1, end - start)]
        found = (
            _pair(split, number, source, other, target)
            for source in objects[turn:] + objects[:turn]
            for other in others
            for target in seen[other]
            if target.category == source.category
        )
        pair = next((pair for pair in found if len(pair.keypoints) >= SHARED), None)
        if pair:
            yield pair


def _pair(split: str, number: int, source: Object, other: int, target: Object) -> Pair:
    there = {point.name: point for point in target.keypoints if point.visible == 2}
    shared = tuple(
        PairKeypoint(point.name, (point.x, point.y), (there[point.name].x, there[point.name].y))
        for point in source.keypoints
        if point.visible == 2 and point.name in there
    )
    names = _name(split, number), _name(split, other)
    return Pair(number, *names, source.category, source.box, target.box, shared)
