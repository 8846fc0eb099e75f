"""Single values of COCO's annotation files, as tools write them: ids, numbers, flags, texts, boxes.

What can be meant in one way only is taken, and what was met is said beside it: its kind, and whether
something is lost (as `contracts.Note`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

from kvstore.contracts import Box

Id = int | str


def identity(value: Any) -> Id | None:
    """An id: a number of 64 bits or a text; 3.0 is 3. None for anything else."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # dicts of larger numbers can be made slow, by numbers that have one hash
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


class Ids:
    """Ids of a list, found also where one place has as text what the other has as a number.

    canonical   id -> the id that it stands for
    """

    def __init__(self, canonical: Mapping[Id, Id]) -> None:
        self._canonical = canonical
        self._numbers: dict[int, Id | None] = {}
        for known, meant in canonical.items():
            number = whole(known)
            if number is not None:  # None where two ids are one number: then only the id itself will do
                self._numbers[number] = meant if self._numbers.get(number, meant) == meant else None

    def find(self, value: Any) -> tuple[Id | None, bool]:
        """The id that `value` stands for, None where there is none; and whether it is written otherwise."""
        wanted = identity(value)
        if wanted is None:
            return None, False
        if wanted in self._canonical:
            return self._canonical[wanted], False
        number = whole(wanted)
        return (None, False) if number is None else (self._numbers.get(number), True)


def whole(value: Id) -> int | None:
    """An id's number, also where it is written as text."""
    if isinstance(value, int):
        return value
    text = value.strip()
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20 else None


def number(value: Any) -> float | None:
    """A finite number, perhaps written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def side(value: Any) -> int | None:
    """A width or height of an image; None for what can be none."""
    found = number(value)
    return int(found) if found and found > 0 and found.is_integer() else None


def text(value: Any) -> str | None:
    """A text; a number is its digits. None for null and all that is no text."""
    if isinstance(value, str):
        return value
    return str(value) if number(value) is not None and len(repr(value)) < 40 else None


_FALSE, _TRUE = ("0", "false", "no", "0.0", ""), ("1", "true", "yes", "1.0")


def flag(value: Any) -> tuple[bool | None, bool]:
    """A flag (None where it can be none), and whether it is written as text."""
    if value is None or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value), False
    word = value.strip().lower() if isinstance(value, str) else None
    return (word in _TRUE, True) if word in (*_FALSE, *_TRUE) else (None, False)


def box_of(bbox: Any) -> tuple[Box | None, bool]:
    """COCO's [x, y, width, height] as a box, and whether it is written as text.

    As annotated, though it reach out of the image; None for what is no box.
    """
    if not isinstance(bbox, list | array) or len(bbox) != 4:
        return None, False
    sides = [found for side in bbox if (found := number(side)) is not None]
    if len(sides) != 4 or min(sides[2:]) < 0:
        return None, False
    box = (sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3])
    return (box if all(map(math.isfinite, box)) else None), any(isinstance(side, str) for side in bbox)


def packed(values: Any) -> Any:
    """A list of plain numbers as an array of doubles, a tenth of its size; anything else as it is."""
    if not isinstance(values, list) or not {*map(type, values)} <= {int, float}:
        return values
    try:
        return array("d", values)
    except OverflowError:
        return values
