"""What a model in training is asked: which scenes go together in a prompt, and which questions of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from ..datasets import _language, _styles
from .sheets import Asked, Sheet

#: Tokens of AnyRes tiles in the prompt: none (but often their positions), or all.
Tiles = Literal["none", "all"]
Trained = Literal["all", "projector", "nothing"]

CAPTION = "caption"
#: How often a kind is asked of one image relative to the others; those after relation teach what others need.
SHARES = {
    "existence": 3.0,
    "color": 2.5,
    "place": 2.0,
    "counting": 3.0,
    "relation": 5.0,
    "side": 5.0,
    "referring": 2.0,
    "color by place": 0.7,
    "style name": 0.3,
    CAPTION: 0.5,
}
#: Of one image, what goes into the accuracy.
KINDS = _language.QUESTIONS


@dataclass(frozen=True)
class Mix:
    """What a stage asks.

    questions      per prompt, at most
    triples        about the share of scenes that stand in a prompt with two others
    captions_only  captions and what only teaches, none of `KINDS`
    prefix         the share of prompts whose first question stands before the image
    dense          weight of the dense loss on the projector's output
    grounding      weight of the loss of the head that looks from nouns to what they name
    trained        of the vision side: all of it, its projector alone, or nothing
    """

    questions: int = 12
    triples: float = 0.2
    tiles: Tiles = "none"
    captions_only: bool = False
    prefix: float = 0.2
    dense: float = 0.3
    grounding: float = 0.3
    trained: Trained = "all"


def units(scenes: Sequence[Sheet], images: int, triples: float, rng: random.Random) -> list[list[Sheet]]:
    """Prompts' scenes, about `images` in all; the share `triples` of prompts has three, two of one style."""
    made: list[list[Sheet]] = []
    count = 0
    while count < images:
        unit = [rng.choice(scenes)]
        if rng.random() < triples:
            unit += _companions(unit[0], scenes, rng)
            if rng.random() < 0.3:
                rng.shuffle(unit)
        made.append(unit)
        count += len(unit)
    return made


def _companions(first: Sheet, scenes: Sequence[Sheet], rng: random.Random) -> list[Sheet]:
    """One scene of the same style and one of another, in either order."""
    same, other = first, first
    while same is first or same.style != first.style:
        same = rng.choice(scenes)
    while other.style == first.style:
        other = rng.choice(scenes)
    rest = [same, other]
    rng.shuffle(rest)
    return rest


def ask(scenes: Sequence[Sheet], mix: Mix, rng: random.Random) -> list[Asked]:
    """The questions of one prompt."""
    if len(scenes) > 1:
        return of_styles([scene.style for scene in scenes], rng)
    if mix.captions_only:
        wanted = [one for one in scenes[0].asked if one[0] not in KINDS]
        return rng.sample(wanted, min(mix.questions, len(wanted)))
    known = by_kind(scenes[0])
    shares = [SHARES[kind] for kind in known]
    drawn = rng.choices(list(known), shares, k=mix.questions)
    return list(dict.fromkeys(pick(known[kind], rng) for kind in drawn))


def by_kind(scene: Sheet) -> dict[str, dict[str, list[Asked]]]:
    """What can be asked of a scene: kind -> answer -> questions."""
    found: dict[str, dict[str, list[Asked]]] = defaultdict(lambda: defaultdict(list))
    for one in scene.asked:
        for each in (one, *_side(one)):
            found[each[0]][each[2]].append(each)
    return found


#: A side, and its opposite.
_SIDES = (("left", "right"), ("above", "below"))


def _side(asked: Asked) -> list[Asked]:
    """Whether it is left or right, above or below, from the question whether it is left (or above)."""
    kind, text, answer = asked
    made: list[Asked] = []
    for side, other in _SIDES if kind == "relation" else ():
        for form in (f" {side} ", f" {side} of "):
            if form + "the" in text:
                asks = text.replace(form, f" {side} or {other}" + form.removeprefix(f" {side}"))
                made.append(("side", asks, side if answer == "yes" else other))
    return made


def pick(questions: dict[str, list[Asked]], rng: random.Random) -> Asked:
    """One of a kind's questions: each answer is as likely, so that yes and no are balanced."""
    return rng.choice(questions[rng.choice(list(questions))])


def of_styles(styles: Sequence[int], rng: random.Random) -> list[Asked]:
    """Of three images: each one's style, whether two share one, and which one shares that of a reference."""
    ordinals = _language.ORDINALS
    asked = [
        ("style name", f"What is the style of the {name} image?", _styles.STYLES[style])
        for name, style in zip(ordinals, styles, strict=True)
    ]
    for one, other in permutations(range(3), 2):
        text = f"Is the {ordinals[one]} image in the style of the {ordinals[other]}?"
        asked.append(("style name", text, _language.YES_NO[styles[one] != styles[other]]))
    for reference in range(3):
        others = [n for n in range(3) if n != reference]
        same = [n for n in others if styles[n] == styles[reference]]
        if len(same) == 1:
            names = (ordinals[reference], *(ordinals[n] for n in others))
            text = "Which image has the style of the {}, the {} or the {}?".format(*names)
            asked.append(("style name" if reference else _language.STYLE, text, ordinals[same[0]]))
    rng.shuffle(asked)
    return asked
