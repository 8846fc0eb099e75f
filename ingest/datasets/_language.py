"""What `shapes` says and asks of a scene: captions, expressions, questions; all true by construction.

Where something stands is judged by the middle of the box around what is to be seen of it, and asked only
where it is clear: on its side of every border by a margin. Random draws go through `random()` alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np

from ._scenes import Scene, visible  # noqa: TID252 - the recipes' package has no fixed name
from ._styles import STYLES as STYLES  # noqa: TID252 - part of what this module offers
from ._things import HUES as HUES  # noqa: TID252
from ._things import KINDS as KINDS  # noqa: TID252
from ._things import below  # noqa: TID252

T = TypeVar("T")

VERSION = 1

YES_NO = ("yes", "no")
COUNTS = tuple("0123456")
ORDINALS = ("first", "second", "third")
#: Kinds of question; each is one to three of the questions of a scene.
QUESTIONS = ("existence", "color", "place", "counting", "relation")
#: The kind that compares three images.
STYLE = "style"

_PLACES = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)
_RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}  # axis, direction
_APART = 0.12  # two middles differ by so much of the image's side before one is called left of the other
_WITHIN = 0.03  # a middle is so far inside its ninth of the image before the ninth is named


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with its answer and all answers that it could have had."""

    kind: str
    text: str
    answer: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object as language sees it: `x` and `y` of its middle as shares of the image's sides."""

    place: int  # in the scene's objects
    category: str
    hue: str
    x: float
    y: float

    @property
    def name(self) -> str:
        """Hue and category."""
        return f"{self.hue} {self.category}"


def things(scene: Scene) -> list[Thing]:
    """The scene's objects, in its order."""
    found = []
    for place, (placed, pixels) in enumerate(zip(scene.objects, visible(scene), strict=True)):
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        x = (columns[0] + columns[-1] + 1) / 2 / scene.width
        y = (rows[0] + rows[-1] + 1) / 2 / scene.height
        found.append(Thing(place, placed.category.name, placed.hue, float(x), float(y)))
    return found


# -------------------------------------------------------------------------------------------------- captions


def captions(scene: Scene, seen: Sequence[Thing]) -> tuple[str, str]:
    """What is there from left to right: with the background, and with the style."""
    ordered = [_article(thing.name) for thing in sorted(seen, key=lambda thing: thing.x)]
    listed = ", ".join(ordered[:-1]) + " and " + ordered[-1] if len(ordered) > 1 else ordered[0]
    return f"{listed} on a {scene.ground} background", f"{_article(scene.style)} picture of {listed}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


# ----------------------------------------------------------------------------------------------- expressions


def expressions(seen: Sequence[Thing]) -> Iterator[tuple[Thing, str]]:
    """Expressions that fit exactly one object: what it is, where it is, and which neighbour it is beside."""
    for thing in seen:
        if name := _naming(thing, seen):
            yield thing, f"the {name}"
        if (ninth := _ninth(thing)) and _alone(thing, seen):
            yield thing, f"the thing at the {ninth}"
        yield from ((thing, text) for text in _beside(thing, seen))


def _naming(thing: Thing, seen: Sequence[Thing]) -> str | None:
    """The shortest noun that fits this object alone, or None."""
    others = [other for other in seen if other is not thing]
    if all(other.category != thing.category for other in others):
        return thing.category
    return thing.name if all(other.name != thing.name for other in others) else None


def _beside(thing: Thing, seen: Sequence[Thing]) -> Iterator[str]:
    """Of several objects of a category, the one that alone is on that side of another object."""
    alike = [other for other in seen if other.category == thing.category and other is not thing]
    if not alike:
        return
    for anchor in seen:
        name = _naming(anchor, seen)
        if name is None or anchor.category == thing.category:
            continue
        for relation in _RELATIONS:
            if _holds(thing, relation, anchor) and all(_fails(other, relation, anchor) for other in alike):
                yield f"the {thing.category} {relation} the {name}"


def _offset(thing: Thing, relation: str, anchor: Thing) -> float:
    axis, direction = _RELATIONS[relation]
    return direction * (thing.x - anchor.x if axis == 0 else thing.y - anchor.y)


def _holds(thing: Thing, relation: str, anchor: Thing) -> bool:
    return _offset(thing, relation, anchor) >= _APART


def _fails(thing: Thing, relation: str, anchor: Thing) -> bool:
    return _offset(thing, relation, anchor) <= -_APART


def _ninth(thing: Thing) -> str | None:
    """The ninth of the image that holds the middle, or None near a border between two."""
    if any(abs(at - border) < _WITHIN for at in (thing.x, thing.y) for border in (1 / 3, 2 / 3)):
        return None
    return _PLACES[min(int(thing.y * 3), 2)][min(int(thing.x * 3), 2)]


def _alone(thing: Thing, seen: Sequence[Thing]) -> bool:
    """Whether no other middle is in the ninth of this one, or within the margin of it."""
    column, row = int(thing.x * 3), int(thing.y * 3)
    return not any(
        column / 3 - _WITHIN <= other.x <= (column + 1) / 3 + _WITHIN
        and row / 3 - _WITHIN <= other.y <= (row + 1) / 3 + _WITHIN
        for other in seen
        if other is not thing
    )


# ------------------------------------------------------------------------------------------------- questions


def questions(seen: Sequence[Thing], rng: random.Random, *, holds: bool) -> list[Asked]:
    """A scene's questions: of existence one that is so and one that is not, of each other kind at most one.

    `holds` is whether the relation that is asked for is so.
    """
    asked: list[Asked] = [_one(_present(seen), rng), _one(_missing(seen), rng)]
    relations = [one for one in _relations(seen) if one.answer == YES_NO[not holds]]
    for kind in (_colors(seen), _by_place(seen), _counts(seen), relations):
        asked += _some(list(kind), rng)
    return asked


def everything(scene: Scene, seen: Sequence[Thing], rng: random.Random) -> list[Asked]:
    """All that can be asked, and tasks that teach what the questions need; for training."""
    asked = [*_present(seen), *_missing(seen), *_colors(seen), *_by_place(seen), *_counts(seen)]
    asked += _relations(seen)
    ninths = tuple(name for row in _PLACES for name in row)
    asked += (
        Asked("referring", f"Where is {text}?", ninth, ninths)
        for thing, text in expressions(seen)
        if "thing at" not in text and (ninth := _ninth(thing))
    )
    asked += (
        Asked("color by place", f"What color is the thing at the {ninth}?", thing.hue, HUES)
        for thing in seen
        if (ninth := _ninth(thing)) and _alone(thing, seen)
    )
    asked.append(Asked("style name", "What is the style?", scene.style, STYLES))
    return asked


def _one(choices: Iterable[Asked], rng: random.Random) -> Asked:
    listed = list(choices)
    return listed[below(rng, len(listed))]


def _some(choices: list[Asked], rng: random.Random) -> list[Asked]:
    return [_one(choices, rng)] if choices else []


def _present(seen: Sequence[Thing]) -> Iterator[Asked]:
    nouns = dict.fromkeys(noun for thing in seen for noun in (thing.category, thing.name))
    yield from (_existence(noun, "yes") for noun in nouns)


def _missing(seen: Sequence[Thing]) -> Iterator[Asked]:
    """Some are hard, as POPE's adversarial ones: a thing or a colour that is there, but not together."""
    there, hues = {thing.category for thing in seen}, {thing.hue for thing in seen}
    names = {thing.name for thing in seen}
    pairs = [(hue, kind) for kind in KINDS for hue in HUES if f"{hue} {kind}" not in names]
    swapped = [f"{hue} {kind}" for hue, kind in pairs if kind in there and hue in hues]
    recoloured = [f"{hue} {kind}" for hue, kind in pairs if kind in there and hue not in hues][:4]
    absent = [kind for kind in KINDS if kind not in there]
    dressed = [f"{hue} {kind}" for hue, kind in pairs if kind not in there and hue in hues]
    for noun in [*swapped, *recoloured, *absent, *dressed[:: max(1, len(dressed) // 4)]]:
        yield _existence(noun, "no")


def _existence(noun: str, answer: str) -> Asked:
    return Asked("existence", f"Is there {_article(noun)} in the image?", answer, YES_NO)


def _colors(seen: Sequence[Thing]) -> Iterator[Asked]:
    for thing in seen:
        if _naming(thing, seen) == thing.category:
            yield Asked("color", f"What color is the {thing.category}?", thing.hue, HUES)


def _by_place(seen: Sequence[Thing]) -> Iterator[Asked]:
    for thing in seen:
        if (ninth := _ninth(thing)) and _alone(thing, seen):
            yield Asked("place", f"What is at the {ninth}?", thing.category, KINDS)


def _counts(seen: Sequence[Thing]) -> Iterator[Asked]:
    """Of all things, of each category that is there, and of one that is not."""
    found = Counter(thing.category for thing in seen)
    absent = [kind for kind in KINDS if kind not in found]
    yield Asked("counting", "How many things are there?", str(len(seen)), COUNTS)
    for kind, count in [*found.items(), (absent[len(seen) % len(absent)], 0)]:
        yield Asked("counting", f"How many {plural(kind)} are there?", str(count), COUNTS)


def plural(kind: str) -> str:
    """Several of a kind."""
    return {"fish": "fish", "person": "people"}.get(kind, f"{kind}s")


def _relations(seen: Sequence[Thing]) -> Iterator[Asked]:
    """Whether one thing is on a side of another; as often so as not."""
    for thing, anchor in permutations(seen, 2):
        names = _naming(thing, seen), _naming(anchor, seen)
        if None in names:
            continue
        for relation in _RELATIONS:
            holds = _holds(thing, relation, anchor)
            if holds or _fails(thing, relation, anchor):
                text = f"Is the {names[0]} {relation} the {names[1]}?"
                yield Asked("relation", text, YES_NO[not holds], YES_NO)


def style_question(styles: Sequence[str]) -> Asked:
    """Which of the second and third image is in the style of the first; exactly one is."""
    same = [place for place in (1, 2) if styles[place] == styles[0]]
    if len(styles) != 3 or len(same) != 1:
        raise ValueError(f"of the second and third style exactly one is the first's; got {list(styles)}")
    text = "Which image has the style of the first, the second or the third?"
    return Asked(STYLE, text, ORDINALS[same[0]], ORDINALS[1:])
