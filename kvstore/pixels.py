"""From patches to pixels: each pixel belongs to the patch whose cell contains its centre.

So a mask of patches is a mask of pixels, and pixel counts of a mask of patches are sums over patches: a
prediction is scored exactly, pixel by pixel, with one inner product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kvstore.contracts import Grid

Array = np.ndarray[Any, Any]


class Cells:
    """The pixels of an image of `width` x `height` and the patch of `grid` that each belongs to.

    A pixel outside the grid's box belongs to the nearest patch, as in `kvstore.geometry.patch_of`.
    """

    def __init__(self, width: int, height: int, grid: Grid) -> None:
        x0, y0, x1, y1 = grid.box
        self.grid = grid
        self.rows = _cells(height, y0, y1, grid.rows)  # [height] row of patches of each row of pixels
        self.columns = _cells(width, x0, x1, grid.columns)  # [width]

    def spread(self, patches: Array) -> Array:
        """What patches [..., patches] say, at each pixel: [..., height, width]."""
        square = patches.reshape(*patches.shape[:-1], self.grid.rows, self.grid.columns)
        spread: Array = square[..., self.rows[:, None], self.columns]
        return spread

    def count(self, pixels: Array) -> Array:
        """How many pixels of masks [..., height, width] each patch has: int64 [..., patches]."""
        down = _summed(pixels.astype(np.int64), self.rows, self.grid.rows, -2)
        across = _summed(down, self.columns, self.grid.columns, -1)
        counts: Array = across.reshape(*pixels.shape[:-2], self.grid.patches)
        return counts


def _cells(pixels: int, start: float, stop: float, count: int) -> Array:
    """The cell of each pixel's centre along one axis."""
    at = np.floor((np.arange(pixels) + 0.5 - start) * count / (stop - start)).astype(np.int64)
    cells: Array = np.clip(at, 0, count - 1)
    return cells


def _summed(values: Array, cells: Array, count: int, axis: int) -> Array:
    """Sums over the stretches of equal `cells` along an axis; cells that have no pixel get 0."""
    edges = np.searchsorted(cells, np.arange(count + 1))
    total = np.cumsum(values, axis)
    padded = np.concatenate([np.zeros_like(total.take([0], axis)), total], axis)
    return np.asarray(np.diff(padded.take(edges, axis), axis=axis))
