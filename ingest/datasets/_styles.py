"""The five styles that `shapes` draws in: how an object's inside is painted, and what is done to the picture.

A style changes colours only: masks, boxes and keypoints are of the drawing beneath it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

STYLES = ("flat", "outline", "hatched", "pixelated", "watercolour")

_INK = (22, 20, 26)
_STROKE = 9  # pixels; half of it lies inside the part
_HATCH = 13  # pixels from one line to the next
_BLOCK = 10  # pixels along a side of the mosaic's squares

Colour = tuple[int, int, int]
Corners = Sequence[tuple[float, float]]
Pixels = np.ndarray[Any, np.dtype[Any]]


def inside(
    style: str, size: tuple[int, int], parts: Sequence[tuple[Corners, Colour]], fine: int
) -> Image.Image:
    """An object's parts, from back to front, painted in the style, `fine` times enlarged; RGB."""
    if style == "outline":
        return _outlined(size, parts, fine)
    painted = _filled(size, parts)
    if style == "hatched":
        pale = _filled(size, [(corners, _paler(colour, 0.62)) for corners, colour in parts])
        return Image.composite(painted, pale, _lines(size, fine * _HATCH, 0.5))
    return painted


def whole(style: str, picture: Image.Image, noise: np.random.RandomState) -> Image.Image:
    """What is done in the style to the whole picture; the same noise whatever the picture shows."""
    if style == "pixelated":
        width, height = picture.size
        small = picture.reduce(_BLOCK)
        large = small.resize((small.width * _BLOCK, small.height * _BLOCK), Image.Resampling.NEAREST)
        return large.crop((0, 0, width, height))
    return _washed(picture, noise) if style == "watercolour" else picture


def ground(style: str, picture: Image.Image) -> Image.Image:
    """The background in the style: pale paper for outlines, thin lines where objects are hatched."""
    if style == "outline":
        return picture.point([150 + v * 105 // 255 for v in range(256)] * 3)
    if style == "hatched":
        lines = _lines(picture.size, _HATCH, 0.3).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return Image.composite(picture.point([v * 3 // 4 for v in range(256)] * 3), picture, lines)
    return picture


def _paler(colour: Colour, by: float) -> Colour:
    red, green, blue = (round(v + (255 - v) * by) for v in colour)
    return red, green, blue


def _filled(size: tuple[int, int], parts: Sequence[tuple[Corners, Colour]]) -> Image.Image:
    picture = Image.new("RGB", size, parts[0][1])
    pen = ImageDraw.Draw(picture)
    for corners, colour in parts:
        pen.polygon(corners, colour)
    return picture


def _outlined(size: tuple[int, int], parts: Sequence[tuple[Corners, Colour]], fine: int) -> Image.Image:
    """Pale parts, each with a stroke along its edge that is thinner for a small part."""
    picture = Image.new("RGB", size, _INK)
    pen = ImageDraw.Draw(picture)
    for corners, colour in parts:
        xs, ys = zip(*corners, strict=True)
        least = min(max(xs) - min(xs), max(ys) - min(ys))
        pen.polygon(corners, _paler(colour, 0.25))
        pen.line([*corners, *corners[:2]], _INK, round(min(fine * _STROKE, 0.4 * least)))
    return picture


def _lines(size: tuple[int, int], period: int, share: float) -> Image.Image:
    """Where parallel slanting lines are, 255, that cover `share` of the plane; mode L."""
    side = 512 * (1 + (max(size) - 1) // 512)
    return _square_of_lines(side, period, share).crop((0, 0, *size))


@lru_cache(8)
def _square_of_lines(side: int, period: int, share: float) -> Image.Image:
    x = np.arange(side, dtype=np.int32)
    on: Pixels = (2 * x + x[:, None]) % (2 * period) < round(2 * period * share)
    return Image.fromarray(on.view(np.uint8) * np.uint8(255))


def _washed(picture: Image.Image, noise: np.random.RandomState) -> Image.Image:
    """Edges that run, colours thinned unevenly and gathered at the edges, rough paper."""
    width, height = picture.size
    right, down = (_clouds(picture.size, noise, 32, 10).astype(np.int32) - 5 for _ in range(2))
    rows, columns = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)
    at = np.clip(rows + down, 0, height - 1) * width + np.clip(columns + right, 0, width - 1)
    four = np.frombuffer(picture.convert("RGBA").tobytes(), np.uint32).take(at)
    bled = Image.frombytes("RGBA", picture.size, four.tobytes()).convert("RGB")
    soft = bled.filter(ImageFilter.BoxBlur(3))
    edges = ImageChops.difference(bled, soft).point([min(v, 70) for v in range(256)] * 3)
    paint = ImageChops.subtract(soft, edges)
    wash = _clouds(picture.size, noise, 9, 86) + _clouds(picture.size, noise, 28, 51) + 20  # of 256 are paper
    paper = noise.randint(225, 256, (height // 3 + 1, width // 3 + 1)).astype(np.uint8)
    rough = Image.fromarray(paper).resize(picture.size, Image.Resampling.BILINEAR)
    blank = Image.merge("RGB", [rough, rough, rough])
    return Image.composite(blank, ImageChops.multiply(paint, blank), Image.fromarray(wash))


def _clouds(size: tuple[int, int], noise: np.random.RandomState, cells: int, most: int) -> Pixels:
    """Smooth noise with about `cells` bumps along a side; uint8 [height, width], 0 to `most`."""
    coarse = Image.fromarray(noise.randint(0, 256, (cells, cells)).astype(np.uint8))
    smooth = coarse.resize((size[0] // 2, size[1] // 2), Image.Resampling.BICUBIC)
    return np.asarray(
        smooth.resize(size, Image.Resampling.BILINEAR).point([v * most // 255 for v in range(256)])
    )
