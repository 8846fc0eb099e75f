"""Nearest pixels by cosine in feature maps that are upsampled to the image: exact, without making the maps.

An upsampled vector is a mean of the vectors of the four patches around it, weighted by bilinear
interpolation. Its product with a source vector is the same mean of the patches' products, and its squared
norm a quadratic form of their inner products: 16 numbers for each cell between four patches. So no map of all
channels is made.

Nor are most pixels looked at. Let c be the highest cosine of a cell's corners with the source, and g the
lowest among the corners. A mean of four vectors of which no two have a cosine under g is at least
sqrt((1 + 3 g) / 4) times as long as the mean of their lengths, so no pixel of the cell exceeds c over that
root. Cells that cannot reach the best pixel found so far are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore.contracts import Grid
from kvstore.geometry import between
from kvstore.matching import CHUNK, TIE, Heads

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]

#: Pixels whose similarities are held at once, in float64: some eight arrays of 4 MiB.
PIXELS = 1 << 19
#: By how much a cell's bound, made in float32, may be off.
SLACK = 1e-5
#: A mean of vectors that is shorter than this share of the mean of their lengths is what rounding left of 0.
NOTHING = 1e-6


def around(grid: Grid, size: tuple[int, int], pixels: Array) -> tuple[Array, Array]:
    """The patches that pixels (x, y) of a map upsampled to `size` (width, height) are means of, and weights.

    pixels int64 [points, 2]. Returns int64 and float32 [points, 4]; the weights of a pixel add up to 1.
    """
    (across, x), (down, y) = ((axis, axis.placed(pixels[:, n])) for n, axis in enumerate(_axes(grid, size)))
    columns, rows = across.corners()[x[0]], down.corners()[y[0]]  # [points, 2]
    wide, high = (np.stack([1 - on, on], 1) for _, on in (x, y))
    patches = rows[:, :, None] * grid.columns + columns[:, None, :]
    weights = (high[:, :, None] * wide[:, None, :]).astype(np.float32)
    return patches.reshape(-1, 4), weights.reshape(-1, 4)


class Upsampled:
    """The map of a grid, [heads, patches, width], as if upsampled to an image of `size` (width, height)."""

    def __init__(self, vectors: torch.Tensor, grid: Grid, size: tuple[int, int], heads: Heads) -> None:
        import torch

        def put(array: Array) -> torch.Tensor:
            return torch.from_numpy(array).to(vectors.device)

        self.vectors, self.heads, self.size = vectors.float(), heads, size
        x, y = _axes(grid, size)
        self.down, self.rows = map(put, y.blocks())
        self.across, self.columns = map(put, x.blocks())
        patches = y.corners()[:, None, :, None] * grid.columns + x.corners()[None, :, None, :]
        self.corners = put(patches.reshape(-1, 4))  # [cells, 4]: upper left and right, lower left and right
        self.products = self._products()  # [kinds, cells, 4, 4]
        self.lengths = self.products.diagonal(dim1=-2, dim2=-1).sqrt()  # [kinds, cells, 4]
        self.gain = _gain(self.products, self.lengths)  # [kinds, cells]

    def nearest(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For each source vector the pixel with the highest cosine similarity, and that similarity.

        source [heads, points, width], any float dtype. Returns pixels, int64, counted row by row, and
        similarities, float32, both [kinds, points] with kinds as in `kvstore.matching.nearest`. A zero vector
        is at similarity 0 to everything. Ties go to the first pixel (see `kvstore.matching.TIE`).
        """
        import torch

        step = max(1, CHUNK // (len(self.vectors) * self.corners.numel()))
        found = [self._nearest(self._dots(part.float())) for part in torch.split(source, step, dim=1)]
        pixels, similarities = zip(*found, strict=True)
        return torch.cat(pixels, 1), torch.cat(similarities, 1)

    def _products(self) -> torch.Tensor:
        """Inner products of each cell's corners, float64 [kinds, cells, 4, 4]."""
        import torch

        heads, _, width = self.vectors.shape
        found = []
        for part in torch.split(self.corners, max(1, PIXELS // (heads * width))):
            near = self.vectors[:, part].double()  # [heads, some cells, 4, width]
            found.append(near @ near.transpose(-1, -2))
        return self._kinds(torch.cat(found, 1))

    def _dots(self, source: torch.Tensor) -> torch.Tensor:
        """Products of unit source vectors with each cell's corners, float32 [kinds, points, cells, 4]."""
        dots = self._kinds(source @ self.vectors.transpose(1, 2))
        norm = self._kinds(source.square().sum(-1)).sqrt().clamp_min(1e-30)
        return (dots / norm[..., None])[..., self.corners]

    def _kinds(self, of_heads: torch.Tensor) -> torch.Tensor:
        """Sums of products over channels [heads, ...], as [kinds, ...]: those of heads together add up."""
        import torch

        kinds = [] if self.heads == "concat" else [of_heads]
        return torch.cat(kinds if self.heads == "each" else [*kinds, of_heads.sum(0, keepdim=True)])

    def _nearest(self, dots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The pixels and similarities of some points."""
        import torch

        kinds, points = dots.shape[:2]
        bounds = self._bounds(dots)
        everywhere = torch.cartesian_prod(*(torch.arange(n, device=dots.device) for n in (kinds, points)))
        first = torch.cat([everywhere, bounds.argmax(-1).view(-1, 1)], 1)
        least = self._highest(dots, first).view(kinds, points)
        cells = (bounds >= least[..., None] - TIE - SLACK).nonzero()  # [n, 3]: kind, point, cell
        point = cells[:, 0] * points + cells[:, 1]
        highest = self._highest(dots, cells)
        best = least.flatten().scatter_reduce(0, point, highest, "amax")
        good = highest >= best[point] - TIE
        pixels = self._first(dots, cells[good], best[point[good]] - TIE)
        beyond = torch.full_like(everywhere[:, 0], self.size[0] * self.size[1])
        pixel = beyond.scatter_reduce(0, point[good], pixels, "amin")
        return pixel.view(kinds, points), best.view(kinds, points).float().clamp(-1, 1)

    def _bounds(self, dots: torch.Tensor) -> torch.Tensor:
        """What no pixel of a cell exceeds: float64 [kinds, points, cells]."""
        lengths = self.lengths[:, None].float().clamp_min(1e-30)
        highest = (dots / lengths).amax(-1).double()
        return highest.where(highest <= 0, highest * self.gain[:, None])

    def _highest(self, dots: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """The highest similarity in each of some cells: [n] of [n, 3], which are kind, point and cell."""
        import torch

        parts = torch.split(cells, max(1, PIXELS // (self.rows.shape[1] * self.columns.shape[1])))
        return torch.cat([self._similarities(dots, part).amax((1, 2)) for part in parts])

    def _first(self, dots: torch.Tensor, cells: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """The first pixel in each of some cells [n, 3] whose similarity is at least `least` [n]."""
        import torch

        step = max(1, PIXELS // (self.rows.shape[1] * self.columns.shape[1]))
        found = []
        for part, enough in zip(torch.split(cells, step), torch.split(least, step), strict=True):
            row, column = self._lines(part)
            numbers = self.rows[row][:, :, None] * self.size[0] + self.columns[column][:, None, :]
            good = self._similarities(dots, part) >= enough[:, None, None]
            found.append(numbers.where(good, self.size[0] * self.size[1]).amin((1, 2)))
        return torch.cat(found)

    def _lines(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The row and the column of cells [n, 3]."""
        across = len(self.columns)
        return cells[:, 2] // across, cells[:, 2] % across

    def _similarities(self, dots: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Cosines of the pixels of some cells [n, 3]: float64 [n, rows, columns], -inf for no pixel."""
        kind, point, cell = cells.unbind(1)
        row, column = self._lines(cells)
        down, across = self.down[row][:, :, None], self.across[column][:, None, :]
        product = _mean(dots[kind, point, cell].double(), down, across)
        square = _square(self.products[kind, cell], down, across)
        length = _mean(self.lengths[kind, cell], down, across)
        cosine = product / square.clamp_min(1e-60).sqrt()
        cosine = cosine.where(square > (NOTHING * length).square(), 0.0)
        there = (self.rows[row] >= 0)[:, :, None] & (self.columns[column] >= 0)[:, None, :]
        return cosine.where(there, -float("inf"))


def _gain(products: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """By how much the cosine of a mean of a cell's corners may exceed theirs: [kinds, cells], 1 to inf."""
    scale = (lengths[..., None] * lengths[..., None, :]).clamp_min(1e-60)
    lowest = (products / scale).amin((-1, -2))
    return ((1 + 3 * lowest) / 4).clamp(0, 1).rsqrt()


def _mean(corners: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """Values [n, 4] of corners, interpolated at fractions down [n, rows, 1] and across [n, 1, columns]."""
    left, right, low_left, low_right = (one[:, None, None] for one in corners.unbind(1))
    top = left + (right - left) * across
    bottom = low_left + (low_right - low_left) * across
    return top + (bottom - top) * down


def _square(products: torch.Tensor, down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
    """Squared lengths of interpolated vectors, from the inner products [n, 4, 4] of the corners."""

    up, back = 1 - down, 1 - across

    def along(a: int, b: int) -> torch.Tensor:
        """Products of the means of corners a, a + 1 with those of b, b + 1."""
        near, far = products[:, a, b], products[:, a + 1, b + 1]
        mixed = products[:, a, b + 1] + products[:, a + 1, b]
        near, far, mixed = (one[:, None, None] for one in (near, far, mixed))
        return near * back * back + mixed * back * across + far * across * across

    return along(0, 0) * up * up + 2 * along(0, 2) * up * down + along(2, 2) * down * down


def _axes(grid: Grid, size: tuple[int, int]) -> tuple[_Axis, _Axis]:
    """Of x and of y."""
    x0, y0, x1, y1 = grid.box
    across, down = between(size[0], x0, x1, grid.columns), between(size[1], y0, y1, grid.rows)
    return _Axis(across, grid.columns), _Axis(down, grid.rows)


@dataclass(frozen=True, slots=True)
class _Axis:
    """The pixels of a row or a column of an image among its patches.

    at   float64 [pixels]: where each one's centre lies among those of the patches (see `between`)
    """

    at: Array
    patches: int

    @property
    def cells(self) -> int:
        """Cells between the centres of neighbouring patches; of a single patch one of no width."""
        return max(self.patches - 1, 1)

    def corners(self) -> Array:
        """The patches before and after each cell: int64 [cells, 2]."""
        return np.minimum(np.arange(self.cells)[:, None] + [0, 1], self.patches - 1)

    def placed(self, pixels: Array) -> tuple[Array, Array]:
        """The cell of each pixel, and how far it is on the way through it: 0 to 1."""
        cell = np.minimum(self.at[pixels].astype(np.int64), self.cells - 1)
        return cell, self.at[pixels] - cell

    def blocks(self) -> tuple[Array, Array]:
        """By cell: how far on its pixels are, and their numbers, -1 for none; both [cells, most of one].

        Of pixels in one place, as all are that lie beyond the outer patches' centres, the first is there.
        """
        _, first = np.unique(self.at, return_index=True)
        cell, fraction = self.placed(first)
        rank = np.arange(len(first)) - np.searchsorted(cell, cell)
        shape = self.cells, int(rank.max()) + 1
        fractions, numbers = np.zeros(shape), np.full(shape, -1)
        fractions[cell, rank], numbers[cell, rank] = fraction, first
        return fractions, numbers
