"""AnyRes: one image as an overview tile and a mosaic of tiles, and where their patches lie in the image.

The image is resized as a whole to one square tile (the overview), and once more, with its aspect ratio kept,
into the best fitting of some resolutions ("pinpoints"), padded, and cut into square tiles. The tiles' patches
are put together again, the padding is cut off in whole patches, and a newline token ends each row
(Liu et al. 2024, LLaVA-NeXT; with the reduction of `max_tiles` Li et al. 2024, LLaVA-OneVision).

Two facts make boxes uneven. A tile whose side is no multiple of the patch loses a strip on its right and at
its bottom (384 = 27 * 14 + 6): a box ends where the last patch ends, and inside a mosaic a cell may lie off
by less than that strip. And padding is cut in patches, not in pixels: a box may reach past the image, or
stop short of its edge, by less than a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kvstore.contracts import Grid, Layout, View


@dataclass(frozen=True)
class Tiling:
    """How a model cuts images: sides in pixels, `pinpoints` (height, width); `max_tiles` reduces mosaics."""

    side: int
    patch: int
    pinpoints: Sequence[Sequence[int]]
    max_tiles: int | None = None

    @property
    def count(self) -> int:
        """Patches along one side of a tile."""
        return self.side // self.patch


@dataclass(frozen=True)
class _Axis:
    """One axis of a mosaic: its length in patches, the patches kept, and the way back to image pixels."""

    tiles: int
    start: int
    stop: int
    pad: int
    scale: float

    def edges(self, tiling: Tiling) -> tuple[float, float]:
        """Near edge of the first kept patch and far edge of the last, in pixels of the original image."""
        tile, patch = divmod(self.start, tiling.count)
        near = tile * tiling.side + patch * tiling.patch
        tile, patch = divmod(self.stop - 1, tiling.count)
        far = tile * tiling.side + (patch + 1) * tiling.patch
        return (near - self.pad) / self.scale, (far - self.pad) / self.scale


def layout(tiling: Tiling, size: tuple[int, int], view: View) -> Layout:
    """Grids and tokens of an image of `size` (width, height).

    Of an image so narrow that no row or no column of patches is left of its mosaic, the overview is the only
    grid, as for transformers; where columns are gone, each row's newline token stays, and counts.
    """
    base = overview(tiling, size)
    if view == "base":
        return Layout((base,), base.patches)
    down, across = _axes(tiling, size)
    rows, columns = _reduced(tiling, down.stop - down.start, across.stop - across.start)
    tokens = base.patches + rows * (columns + 1)
    if not rows * columns:
        return Layout((base,), tokens)
    (x0, x1), (y0, y1) = across.edges(tiling), down.edges(tiling)
    mosaic = Grid(rows, columns, (x0, y0, x1, y1), base.patches, columns + 1, down.tiles, across.tiles)
    return Layout((base, mosaic), tokens)


def overview(tiling: Tiling, size: tuple[int, int]) -> Grid:
    """The grid of the whole image squeezed into one tile; its box ends with the last whole patch."""
    seen = tiling.count * tiling.patch / tiling.side
    return Grid(tiling.count, tiling.count, (0.0, 0.0, size[0] * seen, size[1] * seen))


def padded(tiling: Tiling, size: tuple[int, int]) -> Layout:
    """The image padded to a square in its middle, in one tile, and one newline token behind it.

    So LLaVA-OneVision takes each of several images; the box reaches beyond the image by the padding.
    """
    width, height = size
    side = max(size)
    x, y = -((side - width) // 2), -((side - height) // 2)
    seen = side * tiling.count * tiling.patch / tiling.side
    grid = Grid(tiling.count, tiling.count, (x, y, x + seen, y + seen))
    return Layout((grid,), grid.patches + 1)


def _axes(tiling: Tiling, size: tuple[int, int]) -> tuple[_Axis, _Axis]:
    """Rows and columns of the mosaic, as the image processor pads and `unpad_image` cuts them."""
    from transformers.image_processing_utils import select_best_resolution

    width, height = size
    full_height, full_width = select_best_resolution((height, width), list(tiling.pinpoints))
    resized_height, resized_width = _resized(height, width, full_height, full_width)
    tile_rows, tile_columns = full_height // tiling.side, full_width // tiling.side
    rows, columns = tile_rows * tiling.count, tile_columns * tiling.count
    cut_rows, cut_columns = _cut(height, width, rows, columns)
    pad_y, pad_x = (full_height - resized_height) // 2, (full_width - resized_width) // 2
    return (
        _Axis(tile_rows, cut_rows, rows - cut_rows, pad_y, resized_height / height),
        _Axis(tile_columns, cut_columns, columns - cut_columns, pad_x, resized_width / width),
    )


def _resized(height: int, width: int, full_height: int, full_width: int) -> tuple[int, int]:
    """Size after fitting into the resolution with the aspect ratio kept: `get_patch_output_size`."""
    scale_width, scale_height = full_width / width, full_height / height
    if scale_width < scale_height:
        return min(math.ceil(height * scale_width), full_height), full_width
    return full_height, min(math.ceil(width * scale_height), full_width)


def _cut(height: int, width: int, rows: int, columns: int) -> tuple[int, int]:
    """Rows of patches cut at top and bottom each, columns at left and right each: `unpad_image`."""
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


def _reduced(tiling: Tiling, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns after the bilinear reduction of mosaics that are larger than `max_tiles` tiles."""
    if tiling.max_tiles is None:
        return rows, columns
    ratio = math.sqrt(rows * columns / (tiling.max_tiles * tiling.count**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)
