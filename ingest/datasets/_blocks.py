"""What `shapes` says of its scenes: each one's annotations, and the pairs and questions within a block.

A block is `BLOCK` consecutive images. Pairs, and questions about several images, stay within one, so that the
first images of a split have some of their own. Found in order, whoever asks first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Generic, TypeVar, overload

from kvstore.contracts import Annotations, Expression, Object, Pair, PairKeypoint, Question

from . import _language, _scenes  # noqa: TID252 - the recipes' package has no fixed name

BLOCK = 20
#: A pair has at least so many keypoints seen in both images.
SHARED = 3
#: Question ids of a scene start at its number times this; the last of them is its question of style.
ASKED = 20

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Told:
    """A scene's annotations, its things as language sees them, and its style."""

    annotations: Annotations
    things: list[_language.Thing]
    style: str


class Found(Sequence[T_co], Generic[T_co]):
    """A sequence that is made when first asked for."""

    def __init__(self, make: Callable[[], Iterable[T_co]]) -> None:
        self._make = make

    @cached_property
    def _all(self) -> list[T_co]:
        return list(self._make())

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        return self._all[index]


def name(split: str, number: int) -> str:
    """The name of a scene's image."""
    return f"{split}/{number:06d}.png"


@lru_cache(4096)
def told(split: str, number: int) -> Told:
    """All that is said of one scene by itself."""
    scene = _scenes.compose(split, number)
    objects, things = _scenes.annotate(scene).objects, _language.things(scene)
    captions = _language.captions(scene, things)
    expressions = tuple(
        Expression(objects[thing.place].object_id, text) for thing, text in _language.expressions(things)
    )
    return Told(Annotations(objects, captions, expressions), things, scene.style)


def _blocks(images: int) -> Iterator[range]:
    yield from (range(start, min(start + BLOCK, images)) for start in range(0, images, BLOCK))


def _following(block: range, number: int) -> list[int]:
    """The other images of a block, from the one after `number` around to the one before it."""
    return [*range(number + 1, block.stop), *range(block.start, number)]


# ----------------------------------------------------------------------------------------------------- pairs


def pairs(split: str, images: int) -> Iterator[Pair]:
    """At most one pair per image, its id the image's number: with the next image that has what it needs."""
    for block in _blocks(images):
        seen = {number: told(split, number).annotations.objects for number in block}
        for number in block:
            pair = next(_candidates(split, number, seen, _following(block, number)), None)
            if pair:
                yield pair


def _candidates(
    split: str, number: int, seen: dict[int, tuple[Object, ...]], others: Sequence[int]
) -> Iterator[Pair]:
    """Objects take turns from image to image; the target is the only one of its category in its image."""
    objects = seen[number]
    turn = number % len(objects)
    for source in objects[turn:] + objects[:turn]:
        for other in others:
            alike = [target for target in seen[other] if target.category == source.category]
            if len(alike) == 1:
                pair = _pair(split, number, source, other, alike[0])
                if len(pair.keypoints) >= SHARED:
                    yield pair


def _pair(split: str, number: int, source: Object, other: int, target: Object) -> Pair:
    there = {point.name: point for point in target.keypoints if point.visible == 2}
    shared = tuple(
        PairKeypoint(point.name, (point.x, point.y), (there[point.name].x, there[point.name].y))
        for point in source.keypoints
        if point.visible == 2 and point.name in there
    )
    names = name(split, number), name(split, other)
    return Pair(number, *names, source.category, source.box, target.box, shared)


# ------------------------------------------------------------------------------------------------- questions


def questions(split: str, images: int) -> Iterator[Question]:
    """The questions of each scene, then one about its style and that of two others of its block."""
    for block in _blocks(images):
        styles = {number: told(split, number).style for number in block}
        for number in block:
            yield from _about(split, number)
            others = _of_other_styles(styles, number, _following(block, number))
            if others:
                shown = (number, *others)
                asked = _language.style_question([styles[n] for n in shown])
                yield _question(split, number * ASKED + ASKED - 1, shown, asked)


def _about(split: str, number: int) -> Iterator[Question]:
    rng = random.Random(f"shapes/questions/{_language.VERSION}/{_scenes.SEED}/{split}/{number}")
    asked = _language.questions(told(split, number).things, rng, holds=number % 2 == 0)
    for place, one in enumerate(asked):
        yield _question(split, number * ASKED + place, (number,), one)


def _of_other_styles(styles: dict[int, str], number: int, others: Sequence[int]) -> tuple[int, int] | None:
    """The next image of the style of `number` and the next of another style; they take turns to be first."""
    same = next((other for other in others if styles[other] == styles[number]), None)
    different = next((other for other in others if styles[other] != styles[number]), None)
    if same is None or different is None:
        return None
    return (same, different) if number // 2 % 2 == 0 else (different, same)


def _question(split: str, question_id: int, shown: Sequence[int], asked: _language.Asked) -> Question:
    images = tuple(name(split, number) for number in shown)
    return Question(question_id, images, asked.kind, asked.text, asked.answer, asked.options)
