"""Scenes of `shapes`: composed from a seed, painted, and annotated from the same polygons.

A scene is known by (split, number) alone. Only generators whose streams are frozen are drawn from, corners
are rounded before they are painted, and the PNG is written without compression: the bytes of an image are the
same in every process and, with one version of Pillow, on every machine.
"""

from __future__ import annotations

import colorsys
import random
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from math import cos, hypot, radians, sin
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from kvstore import masks
from kvstore.contracts import Annotations, Keypoint, Object

from ._categories import CATEGORIES, Category, Point  # noqa: TID252 - the recipes' package has no fixed name

SEED, VERSION, SIDE = 2510, 1, 384

_FINE = 3  # painted this many times larger, then averaged: smooth edges, and the share of each pixel covered
_SIZES = ((SIDE, SIDE), (SIDE, SIDE), (SIDE, SIDE), (512, 384), (320, 448), (448, 336))
_HUES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
_GROUNDS = ("plain", "striped", "checked", "cloudy")

Colour = tuple[int, int, int]
Pixels = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Placed:
    """One object of a scene; colours by `Part.paint`, `matrix` maps the category's frame to pixels."""

    category: Category
    hue: str
    colours: dict[str, Colour]
    matrix: tuple[float, float, float, float, float, float]

    def at(self, point: Point) -> Point:
        """Where a point of the category's frame lies in the image; on a grid of 1/64 pixel."""
        a, b, c, d, x, y = self.matrix
        return _rounded(a * point[0] + b * point[1] + x), _rounded(c * point[0] + d * point[1] + y)

    @cached_property
    def outlines(self) -> list[list[Point]]:
        """Its parts' outlines in the image, from back to front."""
        return [[self.at(point) for point in part.outline] for part in self.category.parts]


@dataclass(frozen=True)
class Scene:
    """What stands in one image; objects from back to front, no two of one category."""

    split: str
    number: int
    width: int
    height: int
    ground: str
    objects: tuple[Placed, ...]
    noise: int  # seed of the background's texture


def _rounded(value: float) -> float:
    return round(value * 64) / 64


# ------------------------------------------------------------------------------------------------- composing


def compose(split: str, number: int) -> Scene:
    """The scene `number` of a split."""
    rng = random.Random(f"shapes/{VERSION}/{SEED}/{split}/{number}")
    width, height = _SIZES[_below(rng, len(_SIZES))]
    order = sorted(CATEGORIES, key=lambda category: (rng.random(), category.name))
    taken: list[tuple[float, float, float]] = []  # x, y, radius
    objects = []
    for category in order[: 2 + _below(rng, 3)]:
        spot = _free_spot(rng, width, height, taken)
        if spot:
            taken.append(spot)
            objects.append(_placed(rng, category, *spot))
    ground = _GROUNDS[_below(rng, len(_GROUNDS))]
    return Scene(split, number, width, height, ground, tuple(objects), _below(rng, 2**32))


def _below(rng: random.Random, end: int) -> int:
    return int(rng.random() * end)  # random() is the one draw that Python promises never to change


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _free_spot(
    rng: random.Random, width: int, height: int, taken: list[tuple[float, float, float]]
) -> tuple[float, float, float] | None:
    """A circle inside the image that may cover others in part, never mostly."""
    for _ in range(40):
        radius = _between(rng, 0.17, 0.34) * min(width, height)
        x, y = _between(rng, radius, width - radius), _between(rng, radius, height - radius)
        if all(hypot(x - u, y - v) > 0.42 * (radius + r) + 0.3 * max(radius, r) for u, v, r in taken):
            return x, y, radius
    return None


def _placed(rng: random.Random, category: Category, x: float, y: float, radius: float) -> Placed:
    """An instance with its own colours, tilt, stretch and direction."""
    tilt = radians(_between(rng, -30, 30))
    stretch = _between(rng, 0.8, 1.0)
    wide, tall = (radius, radius * stretch) if rng.random() < 0.5 else (radius * stretch, radius)
    wide = -wide if rng.random() < 0.5 else wide
    matrix = (cos(tilt) * wide, -sin(tilt) * tall, sin(tilt) * wide, cos(tilt) * tall, x, y)
    hue = _below(rng, len(_HUES))
    second = (hue + 2 + _below(rng, len(_HUES) - 3)) % len(_HUES)
    colours = {
        "main": _colour(rng, hue, (0.65, 0.95), (0.6, 0.9)),
        "second": _colour(rng, second, (0.5, 0.95), (0.5, 0.95)),
        "dark": _colour(rng, second, (0.2, 0.6), (0.08, 0.25)),
        "light": _colour(rng, hue, (0.02, 0.2), (0.9, 1.0)),
    }
    return Placed(category, _HUES[hue], colours, matrix)


def _colour(rng: random.Random, hue: int, saturation: Point, value: Point) -> Colour:
    turn = (0.0, 0.08, 0.15, 0.33, 0.48, 0.6, 0.75, 0.9)[hue] + _between(rng, -0.02, 0.02)
    red, green, blue = colorsys.hsv_to_rgb(turn % 1.0, _between(rng, *saturation), _between(rng, *value))
    return round(red * 255), round(green * 255), round(blue * 255)


# -------------------------------------------------------------------------------------------------- painting


def paint(scene: Scene) -> Image.Image:
    """The scene's image, RGB."""
    canvas = _background(scene)
    for placed in scene.objects:
        x, y, side_x, side_y = _frame(placed)
        fine = Image.new("RGB", (side_x * _FINE, side_y * _FINE), placed.colours["main"])
        _draw(fine, placed, x, y, placed.colours)
        canvas.paste(fine.reduce(_FINE), (x, y), _stencil(placed))
    return canvas


def _frame(placed: Placed) -> tuple[int, int, int, int]:
    """Left, top, width and height, in whole pixels, of what an object may cover."""
    xs, ys = zip(*(corner for outline in placed.outlines for corner in outline), strict=True)
    left, top = int(min(xs) // 1) - 1, int(min(ys) // 1) - 1
    return left, top, int(max(xs) // 1) + 2 - left, int(max(ys) // 1) + 2 - top


def _stencil(placed: Placed) -> Image.Image:
    """How much of each pixel of its frame an object covers, 0 to 255; mode L."""
    x, y, width, height = _frame(placed)
    fine = Image.new("L", (width * _FINE, height * _FINE), 0)
    _draw(fine, placed, x, y, dict.fromkeys(placed.colours, 255))
    return fine.reduce(_FINE)


def _draw(fine: Image.Image, placed: Placed, left: int, top: int, fill: dict[str, Any]) -> None:
    """Draw an object's parts, enlarged, into its frame. Pillow's polygons speak of pixel centres."""
    pen = ImageDraw.Draw(fine)
    for part, outline in zip(placed.category.parts, placed.outlines, strict=True):
        corners = [((x - left) * _FINE - 0.5, (y - top) * _FINE - 0.5) for x, y in outline]
        pen.polygon(corners, fill[part.paint])


def _background(scene: Scene) -> Image.Image:
    """Two pale colours mixed by a pattern, with grain."""
    noise = np.random.RandomState(scene.noise)  # its stream is frozen; default_rng's is not
    ends = zip(*(noise.randint(90, 210, 3).tolist() for _ in range(2)), strict=True)
    mix = Image.fromarray(_pattern(scene, noise))
    planes = [mix.point([one + ((other - one) * v >> 8) for v in range(256)]) for one, other in ends]
    grain = Image.frombytes("L", mix.size, noise.bytes(scene.width * scene.height))
    grain = grain.point([v & 15 for v in range(256)])
    return Image.merge("RGB", [ImageChops.add(plane, grain) for plane in planes])


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
    """Masks of what is to be seen, boxes around them, keypoints, and a caption."""
    objects = []
    for place, (placed, pixels) in enumerate(zip(scene.objects, visible(scene), strict=True)):
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
    return Annotations(tuple(objects), (caption(scene),))


def keypoints(scene: Scene, place: int) -> tuple[Keypoint, ...]:
    """Keypoints of the object `place`; hidden (1) when a part of an object before it covers the point."""
    placed, before = scene.objects[place], scene.objects[place + 1 :]
    points = ((name, placed.at(point)) for name, point in placed.category.keypoints.items())
    return tuple(Keypoint(name, *at, 1 if any(_covers(o, at) for o in before) else 2) for name, at in points)


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


def caption(scene: Scene) -> str:
    """One sentence that names what is there, from left to right."""
    things = [f"a {o.hue} {o.category.name}" for o in sorted(scene.objects, key=lambda o: o.matrix[4])]
    listed = ", ".join(things[:-1]) + " and " + things[-1] if len(things) > 1 else things[0]
    return f"{listed} on a {scene.ground} background".replace("a orange", "an orange")
