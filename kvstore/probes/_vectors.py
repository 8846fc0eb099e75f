"""Vectors for probes, image by image on the device, in bounded memory; and what stands for positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore.geometry import Placed
from kvstore.matching import Heads
from kvstore.probes import Part
from kvstore.probes._predictions import of_grid, tensor

if TYPE_CHECKING:
    import torch

    from kvstore.store import Store

#: Bytes of float16 vectors that are read at a time.
BLOCK_BYTES = 64 << 20

Features = np.ndarray[Any, Any]
#: Gives images, in the order asked for, each with its vectors [heads, patches, width].
Source = Callable[[Sequence[int]], Iterable[tuple[int, "torch.Tensor"]]]


@dataclass(frozen=True, slots=True)
class Stored:
    """The vectors of one part through grid 0, float16, block by block from the store."""

    store: Store
    run_id: str
    part: Part
    grids: Mapping[int, Placed]
    bytes_per_patch: int
    device: Any
    advance: Callable[[int], None]

    def __call__(self, images: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        from kvstore.vectors import read_layer

        for block in blocks(images, self.grids, self.bytes_per_patch, BLOCK_BYTES):
            found = read_layer(self.store.lance, self.run_id, self.part.site, self.part.layer, block)
            for image in block:
                yield image, tensor(of_grid(found[image], self.grids[image]), self.device)
                self.advance(1)


def blocks(
    images: Sequence[int], grids: Mapping[int, Placed], bytes_per_patch: int, limit: int
) -> Iterator[list[int]]:
    """Consecutive images whose vectors together hold at most `limit` bytes; one image at least."""
    block: list[int] = []
    held = 0
    for image in images:
        size = grids[image].grid.patches * bytes_per_patch
        if block and held + size > limit:
            yield block
            block, held = [], 0
        block.append(image)
        held += size
    if block:
        yield block


@dataclass(frozen=True, slots=True)
class Places:
    """What tells only where a patch is, as vectors [1, patches, 25] (see `places`)."""

    grids: Mapping[int, Placed]

    def __call__(self, images: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        for image in images:
            grid = self.grids[image].grid
            yield image, tensor(places(grid.rows, grid.columns)[None], "cpu")


def places(rows: int, columns: int) -> Features:
    """Features of position [patches, 25]: products of 1, cos, sin of half-turns in y and in x, of norm 3."""

    def along(n: int) -> Features:
        turn = np.pi * (np.arange(n) + 0.5) / n
        return np.stack([np.ones(n), *(wave(k * turn) for k in (1, 2) for wave in (np.cos, np.sin))], 1)

    both: Features = np.einsum("ri,cj->rcij", along(rows), along(columns))
    return both.reshape(rows * columns, 25)


def unit(vectors: torch.Tensor, how: Heads) -> list[torch.Tensor]:
    """L2-normalised float32: [heads, patches, width] unless "concat", [1, patches, all] unless "each"."""
    vectors = vectors.float()
    found = [] if how == "concat" else [normal(vectors)]
    return found if how == "each" else [*found, normal(vectors.transpose(0, 1).flatten(1)[None])]


def normal(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of norm 1; a zero vector stays."""
    norm: torch.Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / norm.clamp_min(1e-30)
