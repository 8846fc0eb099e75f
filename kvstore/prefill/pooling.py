"""Averaging neighbouring patches before they are stored (``--pool N``)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.nn.functional import avg_pool2d

from kvstore.contracts import Grid, Layout


def pooled(layout: Layout, size: int) -> Layout:
    """The layout of the stored patches: grids of ceil(rows / size) x ceil(columns / size) cells.

    A grid that `size` does not divide ends in cells of fewer patches; its box then reaches as far as whole
    cells would. Token positions stay those of the patches before pooling.
    """
    return layout if size == 1 else replace(layout, grids=tuple(_pooled(g, size) for g in layout.grids))


def _pooled(grid: Grid, size: int) -> Grid:
    rows, columns = math.ceil(grid.rows / size), math.ceil(grid.columns / size)
    x0, y0, x1, y1 = grid.box
    width, height = (x1 - x0) / grid.columns * size, (y1 - y0) / grid.rows * size
    box = (x0, y0, x0 + columns * width, y0 + rows * height)
    return replace(grid, rows=rows, columns=columns, box=box)


def average(vectors: torch.Tensor, layout: Layout, size: int) -> torch.Tensor:
    """Mean over size x size blocks of each grid of `layout` (as it was before pooling).

    vectors  [..., patches, width], any dtype; the mean is taken in float32
    """
    if size == 1:
        return vectors
    lead, width = vectors.shape[:-2], vectors.shape[-1]
    parts = []
    for part, grid in zip(vectors.split([g.patches for g in layout.grids], -2), layout.grids, strict=True):
        image = part.float().reshape(-1, grid.rows, grid.columns, width).movedim(-1, 1)
        mean = avg_pool2d(image, size, ceil_mode=True, count_include_pad=False)
        parts.append(mean.movedim(1, -1).reshape(*lead, -1, width))
    return torch.cat(parts, -2)
