"""One thing that `shapes` draws: an instance of a category with its own hue, deformation and place."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import cos, radians, sin
from typing import Any

import numpy as np

from ._categories import CATEGORIES, Category, Point  # noqa: TID252 - the recipes' package has no fixed name

#: Hue: turn around the colour circle, least and greatest saturation and value of an object's main colour.
_PAINTS = {
    "red": (0.0, (0.85, 1.0), (0.75, 0.9)),
    "orange": (0.075, (0.9, 1.0), (0.92, 1.0)),
    "yellow": (0.155, (0.8, 1.0), (0.92, 1.0)),
    "green": (0.34, (0.75, 1.0), (0.5, 0.72)),
    "teal": (0.49, (0.8, 1.0), (0.62, 0.78)),
    "blue": (0.62, (0.75, 1.0), (0.75, 0.95)),
    "purple": (0.765, (0.7, 0.95), (0.45, 0.62)),
    "pink": (0.9, (0.45, 0.65), (0.95, 1.0)),
}
HUES = tuple(_PAINTS)
KINDS = tuple(category.name for category in CATEGORIES)
_AGAIN = 0.35  # how often an object is of a category that is there already

Colour = tuple[int, int, int]
Pixels = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Warp:
    """A smooth deformation of a category's frame: a wave along each axis, then a taper along each.

    `bend` and `sway` are a wave's height (down, and to the right) and its phase.
    """

    bend: Point = (0.0, 0.0)
    sway: Point = (0.0, 0.0)
    taper: Point = (0.0, 0.0)

    def __call__(self, points: Pixels) -> Pixels:
        """Deformed points; float [points, 2]."""
        x, y = points.T
        right = x + self.sway[0] * np.sin(2.8 * y + self.sway[1])
        down = y + self.bend[0] * np.sin(2.8 * x + self.bend[1])
        return np.stack([right * (1 + self.taper[0] * y), down * (1 + self.taper[1] * x)], 1)


@dataclass(frozen=True)
class Placed:
    """One object of a scene; colours by `Part.paint`.

    `warp` deforms the category's frame, then `matrix` maps it to pixels: its last two numbers are the middle.
    """

    category: Category
    hue: str
    colours: dict[str, Colour]
    matrix: tuple[float, float, float, float, float, float]
    warp: Warp = Warp()

    def at(self, points: Pixels) -> Pixels:
        """Where points of the category's frame lie in the image, on a grid of 1/64 pixel; [points, 2]."""
        rounded: Pixels = np.rint(self.exactly(points) * 64) / 64
        return rounded

    def exactly(self, points: Pixels) -> Pixels:
        """The same, not rounded."""
        a, b, c, d, right, down = self.matrix
        x, y = self.warp(points).T
        return np.stack([a * x + b * y + right, c * x + d * y + down], 1)

    @cached_property
    def outlines(self) -> list[list[Point]]:
        """Its parts' outlines in the image, from back to front."""
        points = [(x, y) for x, y in self.at(self.category.corners).tolist()]
        return [points[start:end] for start, end in pairwise(self.category.ends)]

    @cached_property
    def keypoints(self) -> dict[str, Point]:
        """Its category's keypoints in the image, also those beyond its edge."""
        points = self.at(np.array(list(self.category.keypoints.values())))
        return {name: (x, y) for name, (x, y) in zip(self.category.keypoints, points.tolist(), strict=True)}


def below(rng: random.Random, end: int) -> int:
    return int(rng.random() * end)  # random() is the one draw that Python promises never to change


def between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def drawn(rng: random.Random, there: Sequence[Placed]) -> Placed:
    """An object of radius 1 at (0, 0), of a category that is `there` already or of another."""
    names = {placed.category.name for placed in there}
    old = rng.random() < _AGAIN
    kinds = [kind for kind in CATEGORIES if (kind.name in names) == (old and bool(names))]
    category = kinds[below(rng, len(kinds))]
    other_hue = rng.random() < 0.85
    used = {placed.hue for placed in there if placed.category.name == category.name and other_hue}
    hues = [hue for hue in HUES if hue not in used]
    hue = hues[below(rng, len(hues))]
    colours = _colours(rng, hue)
    return Placed(category, hue, colours, _turned(rng), _warp(rng))


def _warp(rng: random.Random) -> Warp:
    bend, sway = ((between(rng, 0, most), between(rng, 0, 6.28)) for most in (0.09, 0.07))
    return Warp(bend, sway, (between(rng, -0.15, 0.15), between(rng, -0.15, 0.15)))


def _turned(rng: random.Random) -> tuple[float, float, float, float, float, float]:
    """Tilt, stretch and direction."""
    tilt = radians(between(rng, -30, 30))
    stretch = between(rng, 0.8, 1.0)
    wide, tall = (1.0, stretch) if rng.random() < 0.5 else (stretch, 1.0)
    wide = -wide if rng.random() < 0.5 else wide
    return cos(tilt) * wide, -sin(tilt) * tall, sin(tilt) * wide, cos(tilt) * tall, 0.0, 0.0


def _colours(rng: random.Random, hue: str) -> dict[str, Colour]:
    """The hue's own; a shade of it, or a dull one, beside it; a near black and a near white."""
    turn, saturation, value = _PAINTS[hue]
    other = rng.random()
    shade = (
        _colour(rng, turn, (0.35, 0.5), (0.92, 1.0))
        if rng.random() < 0.5
        else _colour(rng, turn, (0.8, 1.0), (0.32, 0.42))
    )
    dull = _colour(rng, other, (0.1, 0.3), (0.45, 0.75))
    return {
        "main": _colour(rng, turn, saturation, value),
        "second": shade if rng.random() < 0.6 else dull,
        "dark": _colour(rng, other, (0.2, 0.6), (0.08, 0.25)),
        "light": _colour(rng, turn, (0.02, 0.15), (0.93, 1.0)),
    }


def _colour(rng: random.Random, turn: float, saturation: Point, value: Point) -> Colour:
    turn = (turn + between(rng, -0.015, 0.015)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(turn, between(rng, *saturation), between(rng, *value))
    return round(red * 255), round(green * 255), round(blue * 255)
