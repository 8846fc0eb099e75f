"""Masks as COCO's compressed run lengths, in and out of pixels.

A mask is kept as JSON text ``{"size": [height, width], "counts": text}``; pycocotools reads it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

Pixels = np.ndarray[Any, np.dtype[Any]]


def from_array(pixels: Pixels) -> str:
    """The mask of an array [height, width], true or non-zero inside."""
    from pycocotools import mask

    return text(mask.encode(np.asfortranarray(pixels, dtype=np.uint8)))


def to_array(mask: str) -> Pixels:
    """Pixels of a mask: bool [height, width]."""
    from pycocotools import mask as coco

    pixels: Pixels = coco.decode(json.loads(mask)).astype(bool)
    return pixels


def union(masks: Sequence[str]) -> str:
    """The mask of all pixels that any of these masks of one image has."""
    from pycocotools import mask as coco

    return text(coco.merge([json.loads(mask) for mask in masks]))


def area(mask: str) -> int:
    """How many pixels a mask has."""
    from pycocotools import mask as coco

    return int(coco.area(json.loads(mask)))


def box(mask: str) -> tuple[float, float, float, float]:
    """The smallest box (x0, y0, x1, y1) around a mask, far edges exclusive; zeros for an empty mask."""
    from pycocotools import mask as coco

    x, y, width, height = (float(v) for v in coco.toBbox(json.loads(mask)))
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
