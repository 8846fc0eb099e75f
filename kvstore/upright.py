"""Annotations turned with their image, from pixels as stored to upright pixels.

**Which pixels an annotation speaks of.** A JPEG may be stored on its side, with an EXIF orientation. Images
are always read upright. Where the annotation file declares a width and height that fit the upright image and
not the stored one, its annotations are upright already; else they speak of the stored pixels, as cocoapi
reads them, and are turned with the image. For square, mirrored and upside-down images the declared size
cannot tell: they are taken as stored. `turn_of` makes that decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kvstore.contracts import Box
from kvstore.errors import ImageError
from kvstore.masks import from_array, to_array

Point = tuple[float, float]
Pixels = np.ndarray[Any, np.dtype[Any]]

#: EXIF orientation -> where a point (x, y) of a stored image of w x h lies upright. Pixel edges, not centres:
#: x runs from 0 to w.
_POINTS: dict[int, Callable[[float, float, int, int], Point]] = {
    1: lambda x, y, w, h: (x, y),
    2: lambda x, y, w, h: (w - x, y),
    3: lambda x, y, w, h: (w - x, h - y),
    4: lambda x, y, w, h: (x, h - y),
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}
_PIXELS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda m: m,
    2: lambda m: m[:, ::-1],
    3: lambda m: m[::-1, ::-1],
    4: lambda m: m[::-1],
    5: lambda m: m.T,
    6: lambda m: np.rot90(m, -1),
    7: lambda m: m[::-1, ::-1].T,
    8: lambda m: np.rot90(m),
}


def stored_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) as stored of an image that is `width` x `height` upright."""
    return (height, width) if orientation >= 5 else (width, height)


def turn_of(declared: tuple[int, int] | None, width: int, height: int, orientation: int) -> int:
    """The orientation to turn annotations by: the image's, or 1 where they are upright already.

    declared        (width, height) that the annotation file gives, None where it gives none
    width, height   of the upright image

    Raises `ImageError` (``changed``) when the file's size is another than the declared one: then no box
    would lie where its object is.
    """
    stored = stored_size(width, height, orientation)
    if declared is None or declared == stored:
        return orientation
    if declared == (width, height):
        return 1
    said, has = "{} x {}".format(*declared), "{} x {}".format(*stored)
    raise ImageError("changed", f"annotated at {said} pixels, but the file has {has}; was it resized?")


def turn_point(point: Point, width: int, height: int, orientation: int) -> Point:
    """A point of an image stored as `width` x `height`, in its upright pixels."""
    return _POINTS[orientation](*point, width, height)


def turn_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """A box of an image stored as `width` x `height`, in its upright pixels."""
    (xa, ya), (xb, yb) = (turn_point(corner, width, height, orientation) for corner in (box[:2], box[2:]))
    return min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)


def turn_mask(mask: str, width: int, height: int, orientation: int) -> str:
    """A mask (`Object.mask`) of an image stored as `width` x `height`, in its upright pixels."""
    if orientation == 1:
        return mask
    stored = to_array(mask)  # [height, width]
    if stored.shape != (height, width):
        raise ValueError(f"a mask of {stored.shape} for an image of {(height, width)}")
    return from_array(_PIXELS[orientation](stored))
