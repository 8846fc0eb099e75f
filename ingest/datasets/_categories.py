"""The things that `shapes` draws: categories, their parts and their keypoints.

Each is drawn facing right in a circle of radius 1 around (0, 0), y down, its parts from back to front.
Keypoints lie inside their part, a little off its edge. Each category looks different from left and right, so
that a keypoint is known also in a mirrored instance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import cos, hypot, pi, sin
from typing import Any, Literal

import numpy as np

Point = tuple[float, float]
Paint = Literal["main", "second", "dark", "light"]


@dataclass(frozen=True)
class Part:
    """A polygon and which of its object's colours fills it."""

    paint: Paint
    outline: tuple[Point, ...]


@dataclass(frozen=True)
class Category:
    """A kind of object: parts from back to front, and named points that mean the same in every instance."""

    name: str
    parts: tuple[Part, ...]
    keypoints: dict[str, Point]

    @cached_property
    def corners(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The corners of all parts, long edges divided so that they can bend; float [corners, 2]."""
        return np.array([corner for part in self.parts for corner in _divided(part.outline)])

    @cached_property
    def ends(self) -> list[int]:
        """0, and after each part the number of corners so far."""
        return list(accumulate((len(list(_divided(part.outline))) for part in self.parts), initial=0))


def _divided(outline: tuple[Point, ...]) -> Iterable[Point]:
    """The outline's corners and points between them, at most 0.2 apart."""
    for (xa, ya), (xb, yb) in zip(outline, outline[1:] + outline[:1], strict=True):
        steps = int(hypot(xb - xa, yb - ya) / 0.2) + 1
        yield from ((xa + (xb - xa) * n / steps, ya + (yb - ya) * n / steps) for n in range(steps))


def _polygon(paint: Paint, *outline: Point) -> Part:
    return Part(paint, outline)


def _box(paint: Paint, x0: float, y0: float, x1: float, y1: float) -> Part:
    return Part(paint, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> Iterable[Point]:
    """Points on an ellipse around (x, y), from `start` to `end` in turns clockwise from the right."""
    steps = max(4, round(28 * abs(end - start)))
    for step in range(steps + 1):
        turn = 2 * pi * (start + (end - start) * step / steps)
        yield x + rx * cos(turn), y + ry * sin(turn)


def _ellipse(paint: Paint, x: float, y: float, rx: float, ry: float) -> Part:
    return Part(paint, tuple(_arc(x, y, rx, ry, 0, 1)))


def _half_ring(paint: Paint, x: float, y: float, outer: float, inner: float) -> Part:
    """The right half of a ring."""
    arcs = (*_arc(x, y, outer, outer, -0.25, 0.25), *_arc(x, y, inner, inner, 0.25, -0.25))
    return Part(paint, arcs)


FISH = Category(
    "fish",
    (
        _polygon("second", (-0.45, 0.0), (-0.95, -0.42), (-0.8, 0.0), (-0.95, 0.42)),
        _polygon("second", (-0.25, -0.3), (-0.1, -0.72), (0.35, -0.3)),
        _polygon("second", (0.0, 0.3), (-0.2, 0.62), (0.25, 0.32)),
        _ellipse("main", 0.12, 0.0, 0.75, 0.42),
        _polygon("light", (0.1, -0.4), (0.24, -0.4), (0.24, 0.4), (0.1, 0.4)),
        _ellipse("light", 0.55, -0.1, 0.11, 0.11),
        _ellipse("dark", 0.58, -0.1, 0.06, 0.06),
    ),
    {
        "mouth": (0.8, 0.02),
        "eye": (0.57, -0.1),
        "back_fin": (-0.08, -0.6),
        "belly_fin": (-0.12, 0.53),
        "tail_top": (-0.88, -0.32),
        "tail_bottom": (-0.88, 0.32),
    },
)
BIRD = Category(
    "bird",
    (
        _box("dark", -0.02, 0.3, 0.04, 0.8),
        _box("dark", 0.14, 0.3, 0.2, 0.8),
        _polygon("second", (-0.4, -0.05), (-0.95, -0.3), (-0.9, 0.12), (-0.4, 0.22)),
        _ellipse("main", 0.0, 0.08, 0.56, 0.38),
        _ellipse("main", 0.5, -0.4, 0.27, 0.27),
        _polygon("second", (0.72, -0.5), (0.98, -0.36), (0.72, -0.28)),
        _polygon("light", (0.22, -0.1), (-0.55, -0.72), (-0.32, 0.12)),
        _ellipse("dark", 0.56, -0.46, 0.06, 0.06),
    ),
    {
        "beak": (0.89, -0.37),
        "eye": (0.56, -0.46),
        "wing_tip": (-0.48, -0.62),
        "tail": (-0.86, -0.1),
        "front_foot": (0.17, 0.75),
        "breast": (0.42, 0.2),
    },
)
CAR = Category(
    "car",
    (
        _polygon("second", (-0.62, -0.1), (-0.48, -0.55), (0.2, -0.55), (0.52, -0.1)),
        _polygon("light", (-0.5, -0.12), (-0.4, -0.46), (-0.12, -0.46), (-0.12, -0.12)),
        _polygon("light", (-0.02, -0.12), (-0.02, -0.46), (0.15, -0.46), (0.38, -0.12)),
        _polygon("main", (-0.94, -0.15), (0.6, -0.15), (0.92, 0.0), (0.92, 0.3), (-0.94, 0.3)),
        _box("dark", -0.94, -0.08, -0.84, 0.08),
        _ellipse("light", 0.84, 0.07, 0.09, 0.08),
        _ellipse("dark", -0.5, 0.32, 0.22, 0.22),
        _ellipse("dark", 0.52, 0.32, 0.22, 0.22),
        _ellipse("light", -0.5, 0.32, 0.09, 0.09),
        _ellipse("light", 0.52, 0.32, 0.09, 0.09),
    ),
    {
        "front_wheel": (0.52, 0.32),
        "rear_wheel": (-0.5, 0.32),
        "headlight": (0.84, 0.07),
        "rear_light": (-0.89, 0.0),
        "roof_front": (0.16, -0.5),
        "roof_rear": (-0.44, -0.5),
    },
)
HOUSE = Category(
    "house",
    (
        _box("dark", -0.5, -0.84, -0.28, -0.3),
        _box("main", -0.66, -0.1, 0.66, 0.72),
        _polygon("second", (-0.85, -0.06), (0.0, -0.8), (0.85, -0.06)),
        _box("dark", 0.18, 0.18, 0.46, 0.72),
        _box("light", -0.5, 0.12, -0.08, 0.42),
        _box("dark", -0.31, 0.12, -0.27, 0.42),
    ),
    {
        "gable": (0.0, -0.7),
        "chimney": (-0.39, -0.79),
        "door": (0.32, 0.45),
        "window": (-0.29, 0.27),
        "eave_at_door": (0.74, -0.1),
        "eave_at_window": (-0.74, -0.1),
    },
)
TREE = Category(
    "tree",
    (
        _polygon("dark", (-0.12, 0.95), (-0.07, -0.1), (0.07, -0.1), (0.16, 0.95)),
        _polygon("dark", (0.05, 0.45), (0.6, 0.12), (0.64, 0.2), (0.07, 0.58)),
        _ellipse("main", 0.66, 0.12, 0.2, 0.17),
        _ellipse("main", -0.3, -0.1, 0.42, 0.36),
        _ellipse("main", 0.24, -0.22, 0.42, 0.38),
        _ellipse("main", -0.05, -0.58, 0.38, 0.36),
        _ellipse("second", -0.38, 0.0, 0.11, 0.11),
        _ellipse("second", 0.3, -0.35, 0.11, 0.11),
    ),
    {
        "top": (-0.05, -0.86),
        "root": (0.02, 0.88),
        "low_branch": (0.68, 0.12),
        "low_fruit": (-0.38, 0.0),
        "high_fruit": (0.3, -0.35),
    },
)
PERSON = Category(
    "person",
    (
        _polygon("main", (0.1, -0.3), (0.5, -0.72), (0.6, -0.62), (0.2, -0.1)),
        _ellipse("light", 0.58, -0.7, 0.1, 0.1),
        _polygon("main", (-0.12, -0.32), (-0.45, 0.12), (-0.33, 0.2), (-0.04, -0.08)),
        _ellipse("light", -0.41, 0.18, 0.1, 0.1),
        _polygon("dark", (-0.2, 0.2), (-0.3, 0.95), (-0.12, 0.95), (0.02, 0.2)),
        _polygon("dark", (0.0, 0.2), (0.14, 0.95), (0.42, 0.95), (0.42, 0.85), (0.28, 0.85), (0.2, 0.2)),
        _polygon("main", (-0.22, -0.38), (0.22, -0.38), (0.2, 0.26), (-0.2, 0.26)),
        _ellipse("light", 0.0, -0.6, 0.22, 0.24),
        _polygon("second", (-0.22, -0.64), (-0.18, -0.92), (0.16, -0.92), (0.22, -0.72), (0.46, -0.66)),
        _ellipse("dark", 0.1, -0.56, 0.04, 0.04),
    ),
    {
        "hat": (-0.02, -0.8),
        "eye": (0.1, -0.56),
        "raised_hand": (0.58, -0.7),
        "lowered_hand": (-0.41, 0.18),
        "front_foot": (0.34, 0.9),
        "rear_foot": (-0.21, 0.9),
    },
)
CUP = Category(
    "cup",
    (
        _ellipse("second", -0.1, 0.72, 0.8, 0.14),
        _half_ring("main", 0.4, 0.05, 0.42, 0.24),
        _polygon("main", (-0.68, -0.5), (0.5, -0.5), (0.36, 0.7), (-0.54, 0.7)),
        _polygon("light", (-0.65, -0.3), (0.475, -0.3), (0.445, -0.05), (-0.62, -0.05)),
        _ellipse("dark", -0.09, -0.5, 0.59, 0.14),
        _ellipse("second", -0.3, 0.32, 0.13, 0.13),
    ),
    {
        "handle": (0.73, 0.05),
        "rim_at_handle": (0.44, -0.5),
        "rim_far": (-0.62, -0.5),
        "spot": (-0.3, 0.32),
        "saucer_at_handle": (0.62, 0.72),
        "saucer_far": (-0.82, 0.72),
    },
)
BOAT = Category(
    "boat",
    (
        _box("dark", -0.04, -0.92, 0.03, 0.4),
        _polygon("second", (0.0, -0.92), (-0.4, -0.84), (0.0, -0.74)),
        _polygon("light", (0.06, -0.68), (0.06, 0.22), (0.7, 0.22)),
        _polygon("second", (-0.08, -0.5), (-0.08, 0.22), (-0.52, 0.22)),
        _polygon("main", (-0.86, 0.34), (0.95, 0.28), (0.62, 0.74), (-0.6, 0.74)),
        _ellipse("light", -0.3, 0.53, 0.09, 0.09),
    ),
    {
        "bow": (0.83, 0.34),
        "stern": (-0.76, 0.4),
        "flag": (-0.3, -0.84),
        "big_sail": (0.6, 0.18),
        "small_sail": (-0.44, 0.18),
        "porthole": (-0.3, 0.53),
    },
)

CATEGORIES = (FISH, BIRD, CAR, HOUSE, TREE, PERSON, CUP, BOAT)
