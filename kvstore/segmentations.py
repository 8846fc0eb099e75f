"""COCO's ``segmentation`` as a mask, in all the forms that can be meant in one way only.

COCO has polygons ``[[x0, y0, x1, y1, ...], ...]``, run lengths as a list, and compressed run lengths. Tools
also write one polygon without the outer list, pairs ``[[x, y], ...]``, a list too many, and run lengths as
floats. pycocotools trusts what it is given (a bad run length reads past its memory), so all is checked first.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

from kvstore import masks

#: What was met that is not as COCO has it: kind -> whether something is lost by it, as in `contracts.Note`.
Met = dict[str, bool]

_UNREADABLE = "segmentations that cannot be read"
_DEPTH = 4  # lists in lists; what is deeper describes no polygon


def read(segmentation: Any, width: int, height: int) -> tuple[str | None, Met]:
    """The mask (as `Object.mask`) of a `width` x `height` image, and what was met.

    None, and nothing met, where there is none: null, an empty list. None where it describes no mask: polygons
    of fewer than 3 points, run lengths that do not add up to the image.
    """
    met: Met = {}
    if segmentation is None or _empty(segmentation):
        return None, met
    if isinstance(segmentation, list) and all(isinstance(part, dict) for part in segmentation):
        return _union([_from_runs(part, width, height, met) for part in segmentation]), met
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, width, height, met), met
    if isinstance(segmentation, list | array):
        return _from_polygons(segmentation, width, height, met), met
    return None, {_UNREADABLE: True}


def _empty(value: Any, depth: int = 0) -> bool:
    """Is this a list of nothing, or of lists of nothing?"""
    return (
        isinstance(value, list | array) and depth < _DEPTH and all(_empty(part, depth + 1) for part in value)
    )


def _union(parts: list[str | None]) -> str | None:
    """A list of run lengths is their union, as RefCOCO's own code has it; none where one cannot be read."""
    whole = [part for part in parts if part]
    return masks.union(whole) if len(whole) == len(parts) else None


# --------------------------------------------------------------------------------------------------- polygons


def _from_polygons(value: Sequence[Any], width: int, height: int, met: Met) -> str | None:
    """The union of the polygons, as cocoapi's annToRLE makes it."""
    from pycocotools import mask

    found = [_closed(flat, max(width, height), met) for flat in _polygons(value, met)]
    good = [flat for flat in found if flat]
    if not good:
        met.update({} if any(met.values()) else {_UNREADABLE: True})
        return None
    return masks.text(mask.merge(mask.frPyObjects(good, height, width)))


def _polygons(value: Sequence[Any], met: Met, depth: int = 0) -> list[array[float]]:
    """Coordinates of each polygon, however deep they lie."""
    flat = coordinates(value, met)
    if flat is not None:
        if depth == 0:
            met["segmentations of one flat list"] = False
        elif depth > 1:
            met["segmentations of a list too many"] = False
        return [flat]
    if depth >= _DEPTH or not isinstance(value, list):
        met["polygons that cannot be read"] = True
        return []
    pairs = _pairs(value)
    if pairs is not None:
        met["segmentations of pairs [x, y]"] = False
        return [pairs]
    return [found for part in value if not _empty(part) for found in _polygons(part, met, depth + 1)]


def _pairs(value: list[Any]) -> array[float] | None:
    """Coordinates given as at least 3 pairs: as polygons, none of them would have an area."""
    points = [coordinates(part, {}) for part in value]
    if len(points) < 3 or not all(point is not None and len(point) == 2 for point in points):
        return None
    return array("d", [number for point in points if point for number in point])


def coordinates(value: Any, met: Met) -> array[float] | None:
    """A list of numbers, some of them perhaps as text; None for anything else, an empty list too."""
    if isinstance(value, array):
        return value or None
    if not isinstance(value, list) or not value or not {*map(type, value)} <= {int, float, str}:
        return None
    try:
        flat = array("d", map(float, value))
    except (ValueError, OverflowError):
        return None
    if str in {*map(type, value)}:
        met["coordinates written as text"] = False
    return flat


def _closed(flat: array[float], side: int, met: Met) -> list[float] | None:
    """Finite coordinates of at least 3 points; pycocotools takes 2 points for a box, so they are left out.

    Coordinates are held within some image sides, since pycocotools takes memory for each pixel of an edge.
    """
    if not all(map(math.isfinite, flat)):
        met["polygons that cannot be read"] = True
        return None
    if len(flat) < 6:
        met["polygons of fewer than 3 points"] = True
        return None
    if len(flat) % 2:
        met["polygons with an odd count of numbers, without the last"] = True
    low, high = -4.0 * side, 5.0 * side
    if min(flat) < low or max(flat) > high:
        met["polygons with corners far outside of their image, drawn nearer"] = False
    return [min(max(value, low), high) for value in flat[: len(flat) // 2 * 2]]


# ------------------------------------------------------------------------------------------------ run lengths


def _from_runs(rle: dict[str, Any], width: int, height: int, met: Met) -> str | None:
    from pycocotools import mask

    size, runs = rle.get("size"), _runs(rle.get("counts"), met)
    if runs is None:
        met[_UNREADABLE] = True
    elif size != [height, width]:
        swapped = size == [width, height]
        met[f"run lengths of {'[width, height]' if swapped else 'another size'} for their image"] = True
    elif sum(runs) != width * height:
        met["run lengths that do not add up to their image"] = True
    else:
        return masks.text(mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))
    return None


def _runs(counts: Any, met: Met) -> list[int] | None:
    """Run lengths of a list or a compressed text."""
    if isinstance(counts, str):
        runs = masks.unpacked(counts)
    elif not isinstance(counts, list):
        return None
    elif {*map(type, counts)} <= {int}:
        runs = counts
    else:
        flat = coordinates(counts, {})
        if flat is None or not all(run.is_integer() for run in flat):
            return None
        met["run lengths written as floats or text"] = False
        runs = [int(run) for run in flat]
    return runs if runs and min(runs) >= 0 else None
