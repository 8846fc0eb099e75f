"""A gallery as HTML: each image once, each tile an SVG that draws on it in pixels of the whole image."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

from kvstore import masks
from kvstore.report.blocks import Block, Box, Gallery, Ring, Shade, Strip, Thumbnail, Tile
from kvstore.report.pictures import SIDE

#: Opacity, of 255, of the darkness around a shade and of its colour; how many pixels wide its outline is.
_DARK, _COVER, _OUTLINE = 165, 150, 2


def images(blocks: Iterable[Block]) -> str:
    """Every image of the page's galleries, once and unseen, for tiles to show."""
    galleries = [block for block in blocks if isinstance(block, Gallery)]
    found = {
        tile.image.sha256: tile.image
        for gallery in galleries
        for strip in gallery.strips
        for tile in strip.tiles
    }
    if not found:
        return ""
    symbols = "\n".join(map(_symbol, found.values()))
    return f'<svg class="images" width="0" height="0" aria-hidden="true"><defs>\n{symbols}\n</defs></svg>'


def address(image: Thumbnail) -> str:
    """The image as a data address."""
    return "data:image/jpeg;base64," + base64.b64encode(image.data).decode()


def _name(image: Thumbnail) -> str:
    return f"image-{image.sha256[:16]}"


def _symbol(image: Thumbnail) -> str:
    size = f'width="{image.width}" height="{image.height}"'
    return f'<image id="{_name(image)}" {size} preserveAspectRatio="none" href="{address(image)}"/>'


def figure(gallery: Gallery) -> str:
    """The gallery's figure, without its images."""
    strips = "\n".join(_strip(strip) for strip in gallery.strips)
    caption = f"<figcaption>{escape(gallery.caption)}</figcaption>"
    return f'<figure class="gallery"><h2>{escape(gallery.title)}</h2>\n{caption}\n{strips}</figure>'


def _strip(strip: Strip) -> str:
    tiles = "".join(_tile(tile) for tile in strip.tiles)
    return f'<div class="strip"><h3>{escape(strip.heading)}</h3><div class="tiles">{tiles}</div></div>'


def _tile(tile: Tile) -> str:
    image = tile.image
    marks = "".join(_mark(mark, image) for mark in tile.marks)
    return (
        f'<div class="tile"><svg viewBox="0 0 {image.width} {image.height}" role="img"'
        f' aria-label="{escape(tile.alt)}"><use href="#{_name(image)}"/>{marks}</svg>'
        f"<span>{escape(tile.label)}</span></div>"
    )


def _mark(mark: Box | Ring | Shade, image: Thumbnail) -> str:
    if isinstance(mark, Shade):
        size = f'width="{image.width}" height="{image.height}"'
        return f'<image {size} preserveAspectRatio="none" href="{_shade(mark)}"/>'
    colour = escape(mark.colour)
    if isinstance(mark, Box):
        corner = f'x="{mark.x0:.1f}" y="{mark.y0:.1f}"'
        shape = f'{corner} width="{mark.x1 - mark.x0:.1f}" height="{mark.y1 - mark.y0:.1f}"'
        return f'<rect class="halo" {shape}/><rect {shape} stroke="{colour}"/>'
    centre = f'cx="{mark.x:.1f}" cy="{mark.y:.1f}"'
    dot = max(image.width, image.height) / 90
    return (
        f'<circle class="halo" {centre} r="{mark.radius:.1f}"/>'
        f'<circle {centre} r="{mark.radius:.1f}" stroke="{colour}"/>'
        f'<circle class="dot" {centre} r="{dot:.1f}" fill="{colour}"/>'
    )


def _shade(shade: Shade) -> str:
    """A PNG no larger than a thumbnail: clear, the darkness around, the colour inside, the outline."""
    from PIL import Image, ImageColor

    whole = Image.fromarray(masks.to_array(shade.mask))
    whole.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    inside = np.array(whole)
    kinds = np.where(inside, 0 if shade.spot else 2, 1 if shade.spot else 0)
    kinds[inside & ~_inner(inside)] = 3
    colour = ImageColor.getrgb(shade.colour)[:3]
    small = Image.fromarray(kinds.astype(np.uint8), "P")
    small.putpalette([0, 0, 0, 0, 0, 0, *colour, *colour])
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True, bits=2, transparency=bytes([0, _DARK, _COVER, 255]))
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _inner(inside: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pixels inside that are further than the outline's width from any outside, the image's edge aside."""
    padded = np.pad(inside, _OUTLINE, mode="edge")
    height, width = inside.shape
    steps = range(2 * _OUTLINE + 1)
    moved = [padded[down : down + height, right : right + width] for down in steps for right in steps]
    inner: np.ndarray[Any, Any] = np.logical_and.reduce(moved)
    return inner
