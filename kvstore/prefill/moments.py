"""Moments of keys over images, at each position of one grid.

Keys carry the rotary position, the same for every image at one position, so they are comparable between
images only where a patch of the same grid lies at the same position: sums are kept apart by `Place`. The
overview of a mosaic stands before the tiles, so images of all mosaics share its sums.
The sums are float64: input-agnostic keys vary by thousandths of their length, and E|k|^2 - |E k|^2 cancels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import torch

from kvstore.contracts import Layout
from kvstore.errors import KvstoreError
from kvstore.outside import told
from kvstore.vectors import schema as tables
from kvstore.vectors import write
from kvstore.vectors.checksums import of_values

#: Sums kept at most, in bytes; images of further grids are left out of the statistic, and `key_stat` has no
#: row of those grids: a grid is in it with all of its images or not at all.
BUDGET = 1 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """A grid and where its patches lie: what images must share for their keys to be comparable there.

    grid         which of the image's grids
    first_token  of its first patch, among the image's tokens
    row_stride   tokens from one row to the next
    """

    grid: int
    rows: int
    columns: int
    first_token: int
    row_stride: int

    @property
    def patches(self) -> int:
        """How many positions the grid has."""
        return self.rows * self.columns


def places(layout: Layout) -> Iterator[tuple[Place, slice]]:
    """Each grid's place, and its stretch of the image's patches."""
    first = 0
    for number, grid in enumerate(layout.grids):
        place = Place(number, grid.rows, grid.columns, grid.first_token, grid.row_stride)
        yield place, slice(first, first + grid.patches)
        first += grid.patches


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
        # The square of a float16 is exact in float32; a sum of them is not.
        self.square += keys.float().square().sum(-1, dtype=torch.float64)


class KeyMoments:
    """Sums of keys over the images of a run, by place."""

    def __init__(self) -> None:
        self.sums: dict[Place, Sums] = {}
        self.bytes = 0

    def add(self, layout: Layout, keys: torch.Tensor, good: torch.Tensor) -> None:
        """Add one image's keys, [layers, heads, patches, width]."""
        for place, part in places(layout):
            self._add(place, keys[:, :, part], good)

    def _add(self, place: Place, keys: torch.Tensor, good: torch.Tensor) -> None:
        if place not in self.sums:
            size = 8 * (keys.numel() + keys.numel() // keys.shape[-1])
            if self.sums and self.bytes + size > BUDGET:
                return
            self.bytes += size
            self.sums[place] = Sums.zero(keys)
        self.sums[place].add(keys, good)

    # --------------------------------------------------------------------- keeping and going on

    def save(self, lance_dir: Path, run_id: str, covered: int) -> None:
        """Write the sums beside the run's vectors; `covered` patches are in them."""
        path = tables.location(lance_dir, run_id, tables.KEY_MOMENT)
        rows = [
            {
                "covered": covered,
                **asdict(place),
                "n": float(sums.n),
                "total": _bytes(sums.total),
                "square": _bytes(sums.square),
            }
            for place, sums in self.sums.items()
        ]
        summed = [{**row, "sum": of_values(row)} for row in rows]
        write.replace(path, pa.Table.from_pylist(summed, _KEPT))
        write.settled(lance_dir, run_id, [tables.KEY_MOMENT])

    @classmethod
    def load(
        cls, lance_dir: Path, run_id: str, layers: int, heads: int, stored: int, device: str
    ) -> tuple[KeyMoments, int]:
        """The sums that were kept, and how many patches, in the order of the run's rows, they cover.

        Sums of more than the `stored` patches, sums that are broken, and those that an older kvstore kept by
        the shape of the whole image, cover none: they are made anew.
        """
        moments, covered = cls(), 0
        rows = _kept(lance_dir, run_id)
        for row in rows if all(row["covered"] <= stored for row in rows) else []:
            place = Place(**{field.name: row[field.name] for field in fields(Place)})
            total = _tensor(row["total"], device).reshape(layers, heads, place.patches, -1)
            square = _tensor(row["square"], device).reshape(layers, heads, place.patches)
            n = torch.tensor(row["n"], dtype=torch.float64, device=device)
            moments.sums[place] = Sums(n, total, square)
            moments.bytes += 8 * (total.numel() + square.numel())
            covered = row["covered"]
        return moments, covered


_KEPT = pa.schema(
    {
        "covered": pa.int64(),
        **{field.name: pa.int32() for field in fields(Place)},
        "n": pa.float64(),
        "total": pa.large_binary(),
        "square": pa.large_binary(),
        "sum": pa.uint64(),  # checksum of the others; an older kvstore kept none
    }
)


def _kept(lance_dir: Path, run_id: str) -> list[dict[str, Any]]:
    """The rows that were kept; none where they are broken, and then the table goes."""
    path = tables.location(lance_dir, run_id, tables.KEY_MOMENT)
    if not path.is_dir():
        return []
    try:
        with told("the key moments cannot be read"):
            rows: list[dict[str, Any]] = lance.dataset(str(path)).to_table().to_pylist()
    except KvstoreError:
        rows = []
    sound = all(kept_sum == of_values(row) for row in rows if (kept_sum := row.pop("sum", None)) is not None)
    if not rows or not sound or list(rows[0]) != _KEPT.names[:-1]:
        write.remove(lance_dir, run_id, tables.KEY_MOMENT)
        return []
    return rows


def _bytes(sums: torch.Tensor) -> bytes:
    return sums.cpu().numpy().tobytes()


def _tensor(data: bytes, device: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.float64).copy()).to(device)


def statistics(moments: KeyMoments, layers: tuple[int, ...], head: int) -> pa.Table:
    """Rows of table ``key_stat`` without its run: E|k|^2, |E k|^2 and their difference, per position.

    `head` tokens stand before the image. The variance is clipped at 0, where rounding alone makes it less;
    of one image there is none, and it is null.
    """
    parts = [_stat(place, sums, layers, head) for place, sums in moments.sums.items() if float(sums.n)]
    return pa.concat_tables(parts) if parts else _STAT.empty_table()


_STAT = pa.schema(
    {
        "rows": pa.int16(),
        "columns": pa.int16(),
        "grid": pa.int8(),
        "first_position": pa.int32(),
        "row_stride": pa.int16(),
        "layer": pa.int16(),
        "head": pa.int16(),
        "patch": pa.int32(),
        "n": pa.int32(),
        "mean_square": pa.float64(),
        "square_mean": pa.float64(),
        "variance": pa.float64(),
    }
)


def _stat(place: Place, sums: Sums, layers: tuple[int, ...], head: int) -> pa.Table:
    n = int(sums.n)
    mean_square = (sums.square / n).cpu().numpy()  # [layers, heads, patches]
    square_mean = (sums.total / n).square().sum(-1).cpu().numpy()
    layer, kv_head, patch = np.indices(mean_square.shape).reshape(3, -1)
    variance = np.maximum(mean_square - square_mean, 0).reshape(-1)
    columns = [
        *(np.full(len(layer), number) for number in (place.rows, place.columns, place.grid)),
        *(np.full(len(layer), number) for number in (head + place.first_token, place.row_stride)),
        np.asarray(layers)[layer],
        kv_head,
        patch,
        np.full(len(layer), n),
        mean_square.reshape(-1),
        square_mean.reshape(-1),
        pa.array(variance, mask=np.full(len(layer), n < 2)),
    ]
    return pa.table([pa.array(c).cast(f.type) for c, f in zip(columns, _STAT, strict=True)], schema=_STAT)
