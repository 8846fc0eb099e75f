"""Contours of masks, and how much of one lies within reach of another: the counts of the boundary measure F.

F is that of Perazzi et al. 2016 ("A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", section 4), as the evaluation of DAVIS 2017 counts it: contours are one pixel wide, and a pixel
of a contour is a hit when a pixel of the other lies within a disk around it. Precision and recall are shares
of hits; SQL makes them of the counts (macro `tracked`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: The disk's radius is this share of the image's diagonal, rounded up to whole pixels.
TOLERANCE = 0.008


def reach(width: int, height: int) -> int:
    """Radius in pixels within which contours of an image of this size count as met."""
    return math.ceil(TOLERANCE * math.hypot(width, height))


def contour(mask: Array) -> Array:
    """Pixels that differ from their right, lower or lower right neighbour: bool [height, width].

    Beyond the right and the lower border the mask goes on as it ends there, so that the border is no contour.
    """
    wide = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    found: Array = (mask != wide[:-1, 1:]) | (mask != wide[1:, :-1]) | (mask != wide[1:, 1:])
    return found


class Contour:
    """The contour pixels of a mask, bool [height, width]; `len` counts them."""

    def __init__(self, mask: Array) -> None:
        top, bottom = _span(np.asarray(mask.any(1)))
        left, right = _span(np.asarray(mask.any(0)))
        pixels = contour(mask[top:bottom, left:right])
        self.top, self.left = top, left
        self.y, self.x = np.nonzero(pixels)
        # Contour pixels left of each place of a row, with a row of nothing above and one below.
        self._before = np.pad(np.cumsum(pixels, 1, np.int32), ((1, 1), (1, 0)))

    def __len__(self) -> int:
        return len(self.y)

    def hits(self, other: Contour, radius: int) -> int:
        """How many of these pixels have a pixel of `other` at a distance of at most `radius`."""
        down = np.arange(-radius, radius + 1)
        half = np.array([math.isqrt(radius**2 - step**2) for step in down.tolist()])
        rows, columns = other._before.shape
        y = (self.y + (self.top - other.top + 1))[:, None] + down  # [pixels, rows of the disk]
        x = (self.x + (self.left - other.left))[:, None]
        flat = np.clip(y, 0, rows - 1) * columns
        before = other._before.reshape(-1)
        start, stop = (np.clip(edge, 0, columns - 1) + flat for edge in (x - half, x + half + 1))
        return int((before[stop] > before[start]).any(1).sum())


def _span(some: Array) -> tuple[int, int]:
    """Where a contour can be: from the place before the first that is true to two behind the last."""
    places = np.flatnonzero(some)
    return (max(int(places[0]) - 1, 0), int(places[-1]) + 2) if len(places) else (0, 1)
