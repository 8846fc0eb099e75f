"""Video clips of `shapes`: two to five objects that move, cross and deform before a background that stays.

The first two objects of a clip meet: in every third clip the one in front hides the other altogether for a
while, in the rest it hides most of it. All are to be seen in the first and the last frame.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, pi, sin

from ._categories import Point  # noqa: TID252 - the recipes' package has no fixed name
from ._scenes import GROUNDS, SEED, SIDE, Scene, shares  # noqa: TID252
from ._styles import STYLES  # noqa: TID252
from ._things import Placed, Warp, below, between, drawn  # noqa: TID252

VERSION = 1
CLIPS, FRAMES = 12, 16

_SIZES = ((SIDE, SIDE), (512, SIDE))
_MOST = 0.5  # where two meet, the one behind shows less than this share of itself
_ENDS = 0.75  # at both ends of the clip each object shows more than this share of itself


@dataclass(frozen=True)
class Motion:
    """How one object moves through a clip, whose time runs from 0 to 1.

    thing      the object, of radius 1 at (0, 0)
    meets      where its middle is at time `when`, pixels
    velocity   pixels a clip
    radius     at the first and at the last frame, pixels
    swing      radians that it tilts to either side
    phase      of the swing and of the wave through its shape
    """

    thing: Placed
    meets: Point
    when: float
    velocity: Point
    radius: tuple[float, float]
    swing: float
    phase: float

    def at(self, time: float) -> Placed:
        """The object at one time."""
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * time
        x, y = (m + v * (time - self.when) for m, v in zip(self.meets, self.velocity, strict=True))
        turn = self.swing * sin(2 * pi * time + self.phase)
        a, b, c, d = (radius * value for value in self.thing.matrix[:4])
        right, down = cos(turn), sin(turn)
        matrix = (
            right * a - down * c,
            right * b - down * d,
            down * a + right * c,
            down * b + right * d,
            x,
            y,
        )
        warp = self.thing.warp
        wave = 2 * pi * time + self.phase
        return replace(
            self.thing,
            matrix=matrix,
            warp=Warp(
                (warp.bend[0], wave), (warp.sway[0], wave / 2), (warp.taper[0] * sin(wave), warp.taper[1])
            ),
        )


def name(clip: int) -> str:
    """The name of a clip."""
    return f"{clip:02d}"


def compose(clip: int, frame: int) -> Scene:
    """One frame of a clip; objects in the same order in each."""
    return replace(_first(clip), objects=_placed(_motions(clip), frame))


def _placed(motions: tuple[Motion, ...], frame: int) -> tuple[Placed, ...]:
    return tuple(motion.at(frame / (FRAMES - 1)) for motion in motions)


def _first(clip: int) -> Scene:
    """What all frames of a clip have in common."""
    rng = random.Random(f"shapes/clips/{VERSION}/{SEED}/{clip}/ground")
    width, height = _SIZES[clip % len(_SIZES)]
    ground = GROUNDS[below(rng, len(GROUNDS))]
    return Scene("clips", clip, width, height, STYLES[clip % len(STYLES)], ground, (), below(rng, 2**32))


@lru_cache(CLIPS)
def _motions(clip: int) -> tuple[Motion, ...]:
    """Motions drawn again until they are as the clip wants them."""
    rng = random.Random(f"shapes/clips/{VERSION}/{SEED}/{clip}")
    scene = _first(clip)
    while True:
        motions = _drawn(rng, scene, 2 + clip % 4, hides=clip % 3 == 0)
        if _fits(motions, scene, hides=clip % 3 == 0):
            return motions


def _drawn(rng: random.Random, scene: Scene, count: int, *, hides: bool) -> tuple[Motion, ...]:
    things: list[Placed] = []
    for _ in range(count):
        things.append(drawn(rng, things))
    small, large = (0.36, 1.0) if hides else (0.8, 1.0)  # the one behind, the one in front
    size = between(rng, 0.24, 0.28) * SIDE
    meets = between(rng, 0.4, 0.6) * scene.width, between(rng, 0.4, 0.6) * scene.height
    when, angle, speed = between(rng, 0.4, 0.6), between(rng, 0, 2 * pi), between(rng, 0.7, 0.95)
    other = angle + pi + between(rng, -0.7, 0.7)
    return (
        _motion(rng, things[0], meets, when, _velocity(scene, angle, speed), size * small),
        _motion(rng, things[1], meets, when, _velocity(scene, other, 0.7 * speed), size * large),
        *(_elsewhere(rng, thing, scene) for thing in things[2:]),
    )


def _velocity(scene: Scene, angle: float, speed: float) -> Point:
    return cos(angle) * speed * scene.width, sin(angle) * speed * scene.height


def _elsewhere(rng: random.Random, thing: Placed, scene: Scene) -> Motion:
    """The motion of an object that need not meet another."""
    at = between(rng, 0.15, 0.85) * scene.width, between(rng, 0.15, 0.85) * scene.height
    velocity = _velocity(scene, between(rng, 0, 2 * pi), between(rng, 0.2, 0.6))
    return _motion(rng, thing, at, 0.5, velocity, between(rng, 0.13, 0.18) * SIDE)


def _motion(
    rng: random.Random, thing: Placed, meets: Point, when: float, velocity: Point, radius: float
) -> Motion:
    """With a size that changes, a swing and a wave of its own."""
    taper = between(rng, -0.15, 0.15), between(rng, -0.15, 0.15)
    warp = Warp((between(rng, 0.05, 0.09), 0.0), (between(rng, 0.03, 0.07), 0.0), taper)
    grown = between(rng, 0.8, 1.25)
    swing, phase = between(rng, 0.1, 0.4), between(rng, 0, 2 * pi)
    return Motion(replace(thing, warp=warp), meets, when, velocity, (radius, radius * grown), swing, phase)


def _fits(motions: tuple[Motion, ...], scene: Scene, *, hides: bool) -> bool:
    """Whether all are seen at both ends, and the first is hidden on the way, and none but it ever is."""
    seen = [shares(replace(scene, objects=_placed(motions, frame))) for frame in range(FRAMES)]
    if min(*seen[0], *seen[-1]) < _ENDS:
        return False
    behind, *others = (min(of_one) for of_one in zip(*seen, strict=True))
    met: bool = behind == 0 if hides else 0.05 < behind < _MOST
    return met and min(others) > 0.1
