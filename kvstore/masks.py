"""Masks as COCO's compressed run lengths, in and out of pixels, polygons and the other forms COCO allows.

A mask is kept as JSON text ``{"size": [height, width], "counts": text}``; pycocotools reads it as it is.
pycocotools trusts what it is given (a bad run length reads past its memory), so each form is checked first;
what describes no mask gives None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Pixels = np.ndarray[Any, np.dtype[Any]]


def from_array(pixels: Pixels) -> str:
    """The mask of an array [height, width], true or non-zero inside."""
    from pycocotools import mask

    return _text(mask.encode(np.asfortranarray(pixels, dtype=np.uint8)))


def to_array(mask: str) -> Pixels:
    """Pixels of a mask: bool [height, width]."""
    from pycocotools import mask as coco

    pixels: Pixels = coco.decode(json.loads(mask)).astype(bool)
    return pixels


def union(masks: Sequence[str]) -> str:
    """The mask of all pixels that any of these masks of one image has."""
    from pycocotools import mask as coco

    return _text(coco.merge([json.loads(mask) for mask in masks]))


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
    return _unpacked(json.loads(mask)["counts"]) or []


def from_coco(segmentation: Any, width: int, height: int) -> str | None:
    """The mask of COCO's ``segmentation``: polygons, a list of run lengths, or compressed run lengths.

    None where it describes no mask of a `width` x `height` image: no polygon of 3 points, or run lengths
    that do not add up to the image.
    """
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, width, height)
    if isinstance(segmentation, dict) and segmentation.get("size") == [height, width]:
        return _from_runs(segmentation.get("counts"), width, height)
    return None


def _from_polygons(polygons: list[Any], width: int, height: int) -> str | None:
    """The union of polygons ``[x0, y0, x1, y1, ...]``, as cocoapi's annToRLE makes it."""
    from pycocotools import mask

    good = [flat for flat in (_flat(p, max(width, height)) for p in polygons) if flat]
    return _text(mask.merge(mask.frPyObjects(good, height, width))) if good else None


def _flat(polygon: Any, side: int) -> list[float] | None:
    """Finite coordinates of at least 3 points; pycocotools takes 2 points for a box, so they are dropped.

    Coordinates are held within some image sides, since pycocotools takes memory for each pixel of an edge.
    """
    try:
        flat = [float(value) for value in polygon]
    except (TypeError, ValueError):
        return None
    flat = flat[: len(flat) // 2 * 2]
    if len(flat) < 6 or not all(map(math.isfinite, flat)):
        return None
    return [min(max(value, -4.0 * side), 5.0 * side) for value in flat]


def _from_runs(counts: Any, width: int, height: int) -> str | None:
    from pycocotools import mask

    runs: Any = _unpacked(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs) != width * height:
        return None
    return _text(mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def _unpacked(counts: str) -> list[int] | None:
    """Run lengths of a compressed text (cocoapi's rleFrString): 5 bits a character, then differences."""
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


def _text(rle: dict[str, Any]) -> str:
    return json.dumps({"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()})
