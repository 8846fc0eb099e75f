"""Pixels and patches: the one place where a point becomes a patch and a patch a point.

A grid of `rows` x `columns` patches cuts its pixel box into equal cells, row by row. Pixels are those of
the upright image, the origin at the top left corner of the top left pixel, far edges exclusive: a point on
the border of two cells belongs to the right or lower one, a point outside the box to the nearest cell.
Patches are numbered from 0 within their grid; with `Placed.first_patch` added, as they are stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvstore.contracts import Box, Grid

if TYPE_CHECKING:
    import duckdb
    import numpy as np


@dataclass(frozen=True, slots=True)
class Placed:
    """A grid of one image of a run, which of the image's grids it is, and the number of its first patch."""

    grid: Grid
    first_patch: int
    number: int = 0


def patch_of(point: tuple[float, float], grid: Grid) -> int:
    """The patch of `grid` that contains a point (x, y), in pixels; the nearest one for a point outside."""
    x0, y0, x1, y1 = grid.box
    column = math.floor((point[0] - x0) * grid.columns / (x1 - x0))
    row = math.floor((point[1] - y0) * grid.rows / (y1 - y0))
    return min(max(row, 0), grid.rows - 1) * grid.columns + min(max(column, 0), grid.columns - 1)


def box_of(patch: int, grid: Grid) -> Box:
    """The pixel box of a patch; at the far edges it may reach beyond the image, as the grid does."""
    x0, y0, x1, y1 = grid.box
    row, column = divmod(patch, grid.columns)
    width, height = (x1 - x0) / grid.columns, (y1 - y0) / grid.rows
    return (x0 + column * width, y0 + row * height, x0 + (column + 1) * width, y0 + (row + 1) * height)


def centre_of(patch: int, grid: Grid) -> tuple[float, float]:
    """The centre (x, y) of a patch, in pixels."""
    x0, y0, x1, y1 = grid.box
    row, column = divmod(patch, grid.columns)
    return (x0 + (column + 0.5) * (x1 - x0) / grid.columns, y0 + (row + 0.5) * (y1 - y0) / grid.rows)


def between(pixels: int, start: float, stop: float, cells: int) -> np.ndarray[Any, Any]:
    """Where pixels' centres lie among those of equal cells that reach from `start` to `stop`.

    float64 [pixels]: 0 at the first cell's centre, 1 at the second's; beyond the outer ones held there, as
    torch interpolates with ``align_corners=False``.
    """
    import numpy as np

    at = (np.arange(pixels) + 0.5 - start) * cells / (stop - start) - 0.5
    held: np.ndarray[Any, Any] = np.clip(at, 0, cells - 1)
    return held


def coverage(pixels: np.ndarray[Any, Any], grid: Grid) -> np.ndarray[Any, Any]:
    """The share of each patch's pixel box that a mask covers: float64 [patches], exact for any box.

    pixels [height, width], true inside, of the whole image. Of a patch that reaches beyond the image the part
    inside counts; one that lies outside altogether is covered by nothing.
    """
    import numpy as np

    height, width = pixels.shape
    x0, y0, x1, y1 = grid.box
    xs = np.clip(x0 + np.arange(grid.columns + 1) * (x1 - x0) / grid.columns, 0, width)
    ys = np.clip(y0 + np.arange(grid.rows + 1) * (y1 - y0) / grid.rows, 0, height)
    # Mask pixels left of and above each corner of the grid: a pixel counts as far as it lies inside.
    across = np.clip(xs[:, None] - np.arange(width), 0, 1)  # [columns + 1, width]
    down = np.clip(ys[:, None] - np.arange(height), 0, 1)  # [rows + 1, height]
    inside = np.diff(down, axis=0) @ pixels.astype(np.float64) @ np.diff(across, axis=0).T  # [rows, columns]
    area = np.outer(np.diff(ys), np.diff(xs))
    share: np.ndarray[Any, Any] = np.divide(inside, area, np.zeros_like(area), where=area > 0)
    return share.reshape(-1)


def read_grids(
    con: duckdb.DuckDBPyConnection, run_id: str, grid: int | None = None
) -> dict[int, list[Placed]]:
    """The grids of a run's images by image_id, in order of their patches; only number `grid` when given."""
    rows = con.execute(
        "select image_id, rows, columns, x0, y0, x1, y1, first_patch, grid from token_grid"
        " where run_id = $run and ($grid is null or grid = $grid) order by image_id, first_patch",
        {"run": run_id, "grid": grid},
    ).fetchall()
    found: dict[int, list[Placed]] = {}
    for image, high, wide, x0, y0, x1, y1, first, number in rows:
        found.setdefault(image, []).append(Placed(Grid(high, wide, (x0, y0, x1, y1)), first, number))
    return found
