"""Moments of keys over images, at each position of one shape of grids.

Keys carry the rotary position, the same for every image at one position, so they are comparable between
images only at the same position of the same grid: sums are kept apart by the shape of an image's grids.
The sums are float64: input-agnostic keys vary by thousandths of their length, and E|k|^2 - |E k|^2 cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import torch

from kvstore.contracts import Layout
from kvstore.vectors import schema as tables
from kvstore.vectors import write

#: ((rows, columns) of each grid, in order)
Shape = tuple[tuple[int, int], ...]

#: Sums kept at most, in bytes; images of further shapes are left out of the statistic (`key_stat.n` tells).
BUDGET = 1 << 30


def shape_of(layout: Layout) -> Shape:
    """What two images must share for their keys to be comparable."""
    return tuple((grid.rows, grid.columns) for grid in layout.grids)


@dataclass
class Sums:
    """n images; total [layers, heads, patches, width] and square [layers, heads, patches], float64."""

    n: torch.Tensor
    total: torch.Tensor
    square: torch.Tensor

    @classmethod
    def zero(cls, keys: torch.Tensor) -> Sums:
        """No images yet, on the device and of the size of one image's keys."""

        def zeros(*size: int) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.float64, device=keys.device)

        return cls(zeros(), zeros(*keys.shape), zeros(*keys.shape[:-1]))

    def add(self, keys: torch.Tensor, good: torch.Tensor) -> None:
        """Add one image's keys, float16 [layers, heads, patches, width], if the scalar `good` is true."""
        if keys.is_cuda:  # without asking the device for `good`, which would wait for it
            keys = keys.masked_fill(~good, 0)
        elif not good:
            return
        self.n += good
        self.total += keys
        self.square += keys.float().square().sum(-1)


class KeyMoments:
    """Sums of keys over the images of a run, by shape of grids."""

    def __init__(self) -> None:
        self.sums: dict[Shape, Sums] = {}
        self.bytes = 0

    def add(self, layout: Layout, keys: torch.Tensor, good: torch.Tensor) -> None:
        """Add one image's keys, [layers, heads, patches, width]."""
        shape = shape_of(layout)
        if shape not in self.sums:
            size = 8 * (keys.numel() + keys.numel() // keys.shape[-1])
            if self.sums and self.bytes + size > BUDGET:
                return
            self.bytes += size
            self.sums[shape] = Sums.zero(keys)
        self.sums[shape].add(keys, good)

    # --------------------------------------------------------------------- keeping and going on

    def save(self, lance_dir: Path, run_id: str, covered: int) -> int:
        """Write the sums beside the run's vectors; `covered` patches are in them. Returns the version."""
        path = tables.location(lance_dir, run_id, tables.KEY_MOMENT)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {
            "covered": pa.array([covered] * len(self.sums), pa.int64()),
            "shape": pa.array(
                [list(map(list, shape)) for shape in self.sums], pa.list_(pa.list_(pa.int32()))
            ),
            "n": pa.array([float(s.n) for s in self.sums.values()], pa.float64()),
            "total": pa.array([_bytes(s.total) for s in self.sums.values()], pa.large_binary()),
            "square": pa.array([_bytes(s.square) for s in self.sums.values()], pa.large_binary()),
        }
        return write.replace(path, pa.table(rows))

    @classmethod
    def load(
        cls, lance_dir: Path, run_id: str, layers: int, heads: int, device: str
    ) -> tuple[KeyMoments, int]:
        """The sums that were kept, and how many patches, in the order of the run's rows, they cover."""
        moments, covered = cls(), 0
        path = tables.location(lance_dir, run_id, tables.KEY_MOMENT)
        if not path.is_dir():
            return moments, 0
        for row in lance.dataset(str(path)).to_table().to_pylist():
            shape = tuple((rows, columns) for rows, columns in row["shape"])
            patches = sum(rows * columns for rows, columns in shape)
            total = _tensor(row["total"], device).reshape(layers, heads, patches, -1)
            square = _tensor(row["square"], device).reshape(layers, heads, patches)
            n = torch.tensor(row["n"], dtype=torch.float64, device=device)
            moments.sums[shape] = Sums(n, total, square)
            moments.bytes += 8 * (total.numel() + square.numel())
            covered = row["covered"]
        return moments, covered


def _bytes(sums: torch.Tensor) -> bytes:
    return sums.cpu().numpy().tobytes()


def _tensor(data: bytes, device: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.float64).copy()).to(device)


def statistics(moments: KeyMoments, layers: tuple[int, ...]) -> pa.Table:
    """Rows of table ``key_stat`` without its run: E|k|^2, |E k|^2 and their difference, per position.

    The variance is clipped at 0, where rounding alone makes it negative.
    """
    parts = [part for shape, sums in moments.sums.items() for part in _parts(shape, sums, layers)]
    return pa.concat_tables(parts) if parts else _STAT.empty_table()


_STAT = pa.schema(
    {
        "rows": pa.int16(),
        "columns": pa.int16(),
        "grid": pa.int8(),
        "layer": pa.int16(),
        "head": pa.int16(),
        "patch": pa.int32(),
        "n": pa.int32(),
        "mean_square": pa.float64(),
        "square_mean": pa.float64(),
        "variance": pa.float64(),
    }
)


def _parts(shape: Shape, sums: Sums, layers: tuple[int, ...]) -> list[pa.Table]:
    n = float(sums.n)
    if not n:
        return []
    mean_square = (sums.square / n).cpu().numpy()  # [layers, heads, patches]
    square_mean = (sums.total / n).square().sum(-1).cpu().numpy()
    found, first = [], 0
    for grid, (rows, columns) in enumerate(shape):
        part = slice(first, first + rows * columns)
        first = part.stop
        found.append(
            _stat(grid, rows, columns, layers, int(n), mean_square[..., part], square_mean[..., part])
        )
    return found


def _stat(
    grid: int,
    rows: int,
    columns: int,
    layers: tuple[int, ...],
    n: int,
    mean_square: Floats,
    square_mean: Floats,
) -> pa.Table:
    layer, head, patch = np.indices(mean_square.shape).reshape(3, -1)
    count = len(layer)
    arrays = [
        np.full(count, rows),
        np.full(count, columns),
        np.full(count, grid),
        np.asarray(layers)[layer],
        head,
        patch,
        np.full(count, n),
        mean_square.reshape(-1),
        square_mean.reshape(-1),
        np.maximum(mean_square - square_mean, 0).reshape(-1),
    ]
    return pa.table([pa.array(a).cast(f.type) for a, f in zip(arrays, _STAT, strict=True)], schema=_STAT)


Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
