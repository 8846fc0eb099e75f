"""Scenes of `shapes`: composed from a seed, painted, and annotated from the same polygons.

A scene is known by (split, number) alone. Only generators whose streams are frozen are drawn from, corners
are rounded to 1/64 pixel, and the PNG is written without compression: the bytes of an image are the same in
every process and, with one version of Pillow, on every machine.
"""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from kvstore import masks
from kvstore.contracts import Annotations, Keypoint, Object

from . import _styles  # noqa: TID252 - the recipes' package has no fixed name
from ._categories import Point  # noqa: TID252
from ._styles import STYLES  # noqa: TID252
from ._things import HUES as HUES  # noqa: TID252 - part of what this module offers
from ._things import Placed, below, between, drawn  # noqa: TID252

SEED, VERSION, SIDE = 2510, 2, 384

_FINE = 3  # painted this many times larger, then averaged: smooth edges, and the share of each pixel covered
_SIZES = ((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), (512, 384), (320, 448), (448, 336))
GROUNDS = ("plain", "striped", "checked", "cloudy")

_COUNTS = (0.10, 0.25, 0.30, 0.25, 0.10)  # how often a scene has 1, 2, ... objects
_RADII = ((0.23, 0.33), (0.21, 0.32), (0.18, 0.29), (0.16, 0.26), (0.14, 0.22))  # of the shorter side
_SEEN = 0.55, 0.9  # the share of each object that must be seen at least, anew for each that is added
_BEYOND = 0.15  # the share of an object's width or height beyond the image's edge, at most
_COARSE = 4  # what objects hide is judged on a map this many times smaller

Colour = tuple[int, int, int]
Pixels = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Scene:
    """What stands in one image; objects from back to front."""

    split: str
    number: int
    width: int
    height: int
    style: str
    ground: str
    objects: tuple[Placed, ...]
    noise: int  # seed of the background's texture


# ------------------------------------------------------------------------------------------------- composing


def compose(split: str, number: int) -> Scene:
    """The scene `number` of a split."""
    rng = random.Random(f"shapes/{VERSION}/{SEED}/{split}/{number}")
    width, height = _SIZES[below(rng, len(_SIZES))]
    style = STYLES[below(rng, len(STYLES))]
    ground = GROUNDS[below(rng, len(GROUNDS))]
    objects = _arranged(rng, width, height, _count(rng))
    return Scene(split, number, width, height, style, ground, objects, below(rng, 2**32))


def _count(rng: random.Random) -> int:
    draw = rng.random()
    return 1 + sum(draw >= sum(_COUNTS[:n]) for n in range(1, len(_COUNTS)))


def _arranged(rng: random.Random, width: int, height: int, count: int) -> tuple[Placed, ...]:
    """Objects that hide each other in part, never mostly; one that finds no such spot is left out."""
    objects: list[Placed] = []
    numbers = Image.new("L", (width // _COARSE, height // _COARSE), 0)  # which object each point shows
    areas = [0]
    for _ in range(count):
        new, seen = drawn(rng, objects), between(rng, *_SEEN)
        for _ in range(40):
            radius = between(rng, *_RADII[count - 1]) * min(width, height)
            placed = _somewhere(rng, new, radius, width, height)
            trial = numbers.copy()
            area = _number(placed, len(areas), trial)
            found = trial.histogram()
            if all(found[n] >= seen * whole for n, whole in enumerate([*areas, area])):
                objects.append(placed)
                areas.append(area)
                numbers = trial
                break
    return tuple(objects)


def _somewhere(rng: random.Random, new: Placed, radius: float, width: int, height: int) -> Placed:
    """An object of radius 1 enlarged and moved; one in four may reach beyond the image's edge."""
    corners = new.exactly(new.category.corners) * radius
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    beyond = _BEYOND if rng.random() < 0.25 else 0.0
    over, under = beyond * (right - left), beyond * (bottom - top)
    x = between(rng, -left - over, width - right + over)
    y = between(rng, -top - under, height - bottom + under)
    a, b, c, d = (radius * v for v in new.matrix[:4])
    return Placed(new.category, new.hue, new.colours, (a, b, c, d, x, y), new.warp)


def shares(scene: Scene) -> list[float]:
    """About which share of each object is to be seen, of what lies beyond the image's edge, too."""
    numbers = Image.new("L", (scene.width // _COARSE, scene.height // _COARSE), 0)
    areas = [_number(placed, number, numbers) for number, placed in enumerate(scene.objects, 1)]
    found = numbers.histogram()
    return [found[number] / area for number, area in enumerate(areas, 1)]


def _number(placed: Placed, number: int, numbers: Image.Image) -> int:
    """Draw an object with a number; return its area there, what lies beyond the image's edge counted, too."""
    x, y, side_x, side_y = _frame(placed)
    own = Image.new("L", (side_x // _COARSE + 2, side_y // _COARSE + 2), 0)
    for pen, left, top in ((ImageDraw.Draw(numbers), 0, 0), (ImageDraw.Draw(own), x, y)):
        for outline in placed.outlines:
            pen.polygon([((u - left) / _COARSE, (v - top) / _COARSE) for u, v in outline], number)
    return own.histogram()[number]


# -------------------------------------------------------------------------------------------------- painting


def paint(scene: Scene) -> Image.Image:
    """The scene's image, RGB."""
    noise = np.random.RandomState(scene.noise)  # its stream is frozen; default_rng's is not
    canvas = _styles.ground(scene.style, _background(scene, noise))
    for placed in scene.objects:
        x, y, width, height = _frame(placed)
        colours = [placed.colours[part.paint] for part in placed.category.parts]
        parts = list(zip(_enlarged(placed, x, y), colours, strict=True))
        fine = _styles.inside(scene.style, (width * _FINE, height * _FINE), parts, _FINE)
        canvas.paste(fine.reduce(_FINE), (x, y), _stencil(placed))
    return _styles.whole(scene.style, canvas, noise)


def _frame(placed: Placed) -> tuple[int, int, int, int]:
    """Left, top, width and height, in whole pixels, of what an object may cover."""
    xs, ys = zip(*(corner for outline in placed.outlines for corner in outline), strict=True)
    left, top = int(min(xs) // 1) - 1, int(min(ys) // 1) - 1
    return left, top, int(max(xs) // 1) + 2 - left, int(max(ys) // 1) + 2 - top


def _stencil(placed: Placed) -> Image.Image:
    """How much of each pixel of its frame an object covers, 0 to 255; mode L."""
    x, y, width, height = _frame(placed)
    fine = Image.new("L", (width * _FINE, height * _FINE), 0)
    pen = ImageDraw.Draw(fine)
    for corners in _enlarged(placed, x, y):
        pen.polygon(corners, 255)
    return fine.reduce(_FINE)


def _enlarged(placed: Placed, left: int, top: int) -> list[list[Point]]:
    """An object's outlines, enlarged, in its frame. Pillow's polygons speak of pixel centres."""
    return [
        [((x - left) * _FINE - 0.5, (y - top) * _FINE - 0.5) for x, y in outline]
        for outline in placed.outlines
    ]


def _background(scene: Scene, noise: np.random.RandomState) -> Image.Image:
    """Two dull colours mixed by a pattern, with grain."""
    ends = zip(*(_dull(noise) for _ in range(2)), strict=True)
    mix = Image.fromarray(_pattern(scene, noise))
    planes = [mix.point([one + ((other - one) * v >> 8) for v in range(256)]) for one, other in ends]
    grain = Image.frombytes("L", mix.size, noise.bytes(scene.width * scene.height))
    grain = grain.point([v & 15 for v in range(256)])
    return Image.merge("RGB", [ImageChops.add(plane, grain) for plane in planes])


def _dull(noise: np.random.RandomState) -> list[int]:
    grey = int(noise.randint(95, 215))
    return [grey + shift for shift in noise.randint(-18, 19, 3).tolist()]


def _pattern(scene: Scene, noise: np.random.RandomState) -> Pixels:
    """How much of the second colour is in each pixel: uint8 [height, width], from whole numbers only."""
    y, x = (axis.astype(np.int32) for axis in np.ogrid[: scene.height, : scene.width])
    step = int(noise.randint(14, 40))
    pattern: Pixels
    if scene.ground == "striped":
        along, across = (int(n) for n in noise.randint(1, 4, 2))
        pattern = (x * along + y * across) // (step * 2) % 2 * 255
    elif scene.ground == "checked":
        pattern = (x // step + y // step) % 2 * 255
    elif scene.ground == "cloudy":
        coarse = Image.fromarray(noise.randint(0, 256, (6, 6)).astype(np.uint8))
        pattern = np.asarray(coarse.resize((scene.width, scene.height), Image.Resampling.BICUBIC))
    else:
        pattern = (x + y) * 256 // (scene.width + scene.height)
    return pattern.astype(np.uint8)


def png(image: Image.Image) -> bytes:
    """An RGB image as PNG, not compressed: fast, and the same bytes whatever zlib is installed."""
    width, height = image.size
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0
    rows[:, 1:] = np.asarray(image).reshape(height, 3 * width)
    raw = rows.tobytes()
    blocks = [raw[at : at + 65535] for at in range(0, len(raw), 65535)]
    last = len(blocks) - 1
    stored = b"".join(
        struct.pack("<BHH", i == last, len(b), len(b) ^ 0xFFFF) + b for i, b in enumerate(blocks)
    )
    pixels = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(raw))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (_chunk(b"IHDR", head), _chunk(b"IDAT", pixels), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# ------------------------------------------------------------------------------------------------ annotating


def visible(scene: Scene) -> list[Pixels]:
    """The pixels that show each object: at least half covered by it, and not by one before it.

    One bool array [height, width] per object.
    """
    free = np.ones((scene.height, scene.width), bool)
    found = []
    for placed in reversed(scene.objects):
        own = np.zeros_like(free)
        x, y, width, height = _frame(placed)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, scene.width), min(y + height, scene.height)
        covered: Pixels = np.asarray(_stencil(placed))
        own[top:bottom, left:right] = covered[top - y : bottom - y, left - x : right - x] >= 128
        found.append(own & free)
        free &= ~own
    return found[::-1]


def annotate(scene: Scene) -> Annotations:
    """Masks of what is to be seen, boxes around them, and keypoints; an object wholly hidden is left out."""
    objects = []
    for place, (placed, pixels) in enumerate(zip(scene.objects, visible(scene), strict=True)):
        if not pixels.any():
            continue
        mask = masks.from_array(pixels)
        objects.append(
            Object(
                object_id=scene.number * 10 + place,
                category=placed.category.name,
                box=masks.box(mask),
                area=float(pixels.sum()),
                mask=mask,
                keypoints=keypoints(scene, place),
            )
        )
    return Annotations(tuple(objects))


def keypoints(scene: Scene, place: int) -> tuple[Keypoint, ...]:
    """Keypoints of the object `place`; hidden (1) when a part of an object before it covers the point.

    A keypoint beyond the image's edge is not labelled, and left out.
    """
    placed, before = scene.objects[place], scene.objects[place + 1 :]
    inside = {
        name: (x, y)
        for name, (x, y) in placed.keypoints.items()
        if 0 <= x < scene.width and 0 <= y < scene.height
    }
    return tuple(
        Keypoint(name, *at, 1 if any(_covers(o, at) for o in before) else 2) for name, at in inside.items()
    )


def _covers(placed: Placed, point: Point) -> bool:
    return any(_inside(point, outline) for outline in placed.outlines)


def _inside(point: Point, polygon: list[Point]) -> bool:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    x, y = point
    odd = False
    for (xa, ya), (xb, yb) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (ya > y) != (yb > y) and x < xa + (y - ya) / (yb - ya) * (xb - xa):
            odd = not odd
    return odd
