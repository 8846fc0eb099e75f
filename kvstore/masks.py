"""Masks as COCO's compressed run lengths, in and out of pixels.

A mask is kept as JSON text ``{"size": [height, width], "counts": text}``; pycocotools reads it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from kvstore.errors import StoreError
from kvstore.lines import shortened

#: Pixels of the largest image that is read, as `images.MAX_PIXELS` says.
MOST_PIXELS = 2**28 // 3
Pixels = np.ndarray[Any, np.dtype[Any]]


def from_array(pixels: Pixels) -> str:
    """The mask of an array [height, width], true or non-zero inside."""
    from pycocotools import mask

    return text(mask.encode(np.asfortranarray(pixels, dtype=np.uint8)))


def to_array(mask: str) -> Pixels:
    """Pixels of a mask: bool [height, width]; `StoreError` for a text that is none."""
    from pycocotools import mask as coco

    rle = _sound(mask)
    try:
        pixels: Pixels = coco.decode(rle).astype(bool)
    except ValueError:  # its run lengths do not fit its size
        raise _no_mask(mask) from None
    return pixels


def _sound(mask: str) -> dict[str, Any]:
    """What pycocotools reads; `StoreError` where it is no mask, or one larger than any image that is read.

    A recipe makes masks by this file; those of a store that somebody sent may be anything.
    """
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(mask)
        height, width = found["size"]
        if type(height) is type(width) is int and min(height, width) >= 0 and height * width <= MOST_PIXELS:
            return {"size": [height, width], "counts": str(found["counts"])}
    raise _no_mask(mask)


def _no_mask(mask: str) -> StoreError:
    return StoreError(f"the catalog holds a mask that is none: {shortened(mask, 80)}")


def union(masks: Sequence[str]) -> str:
    """The mask of all pixels that any of these masks of one image has."""
    from pycocotools import mask as coco

    return text(coco.merge([_sound(mask) for mask in masks]))


def area(mask: str) -> int:
    """How many pixels a mask has."""
    from pycocotools import mask as coco

    return int(coco.area(_sound(mask)))


def box(mask: str) -> tuple[float, float, float, float]:
    """The smallest box (x0, y0, x1, y1) around a mask, far edges exclusive; zeros for an empty mask."""
    from pycocotools import mask as coco

    x, y, width, height = (float(v) for v in coco.toBbox(_sound(mask)))
    return x, y, x + width, y + height


def runs(mask: str) -> list[int]:
    """A mask's run lengths, column by column, outside and inside in turn; the first is outside."""
    return unpacked(json.loads(mask)["counts"]) or []


def unpacked(counts: str) -> list[int] | None:
    """Run lengths of a compressed text (cocoapi's rleFrString): 5 bits a character, then differences.

    None where the text is cut or holds other characters; lengths may be negative.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 40:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the sign bit of the last group
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs


def text(rle: dict[str, Any]) -> str:
    """The mask of compressed run lengths as pycocotools gives them."""
    return json.dumps({"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()})
