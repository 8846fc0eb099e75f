"""A window's blocks as the rows of a run's Lance tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from kvstore.contracts import Site
from kvstore.prefill.blocks import Blocks, memory_of
from kvstore.vectors import schema as tables
from kvstore.vectors.write import vectors

Stored = tuple[int, int, Blocks]  # image_id, patches stored before it, its vectors


def record_batches(kind: str, schema: pa.Schema, images: Sequence[Stored], layers: Layers) -> Iterator[Any]:
    """The rows of one table, a record batch per image; vectors are not copied."""
    for image_id, first_patch, blocks in images:
        if kind == tables.PATCH_SPAN:
            arrays = [pa.array([first_patch]), pa.array([blocks.layout.patches], pa.int32())]
        elif kind == tables.POOLED_KV:
            arrays = _pooled(schema, blocks, layers[next(iter(blocks.pooled))])
        else:
            arrays = _patches(kind, schema, blocks, layers)
        ids = pa.array(np.full(len(arrays[0]), image_id, np.int64))
        yield pa.RecordBatch.from_arrays([ids, *arrays], schema=schema)


Layers = Mapping[Site, tuple[int, ...]]  # layer numbers of each site, in the order of its blocks

_SITES: Mapping[str, Mapping[str, Site]] = {
    tables.PATCH_KV: {"key": "key", "value": "value"},
    tables.PATCH_INPUT: {"feature": "input"},
    tables.PATCH_ENCODER: {"feature": "encoder"},
}


def _patches(kind: str, schema: pa.Schema, blocks: Blocks, layers: Layers) -> list[pa.Array]:
    site_of = _SITES[kind]
    block = next(blocks.site[site_of[name]] for name in schema.names if name in site_of)
    numbers = _numbers(layers[next(site_of[n] for n in schema.names if n in site_of)], *block.shape[1:3])
    return [
        vectors(memory_of(blocks.site[site_of[name]])) if name in site_of else numbers[name]
        for name in schema.names[1:]
    ]


@lru_cache(maxsize=64)
def _numbers(layers: tuple[int, ...], heads: int, patches: int) -> dict[str, pa.Array]:
    """The columns layer, head and patch of one image's rows, ordered by layer, head, patch."""
    each = heads * patches
    return {
        "layer": pa.array(np.repeat(np.asarray(layers, np.int16), each)),
        "head": pa.array(np.tile(np.repeat(np.arange(heads, dtype=np.int16), patches), len(layers))),
        "patch": pa.array(np.tile(np.arange(patches, dtype=np.int32), len(layers) * heads)),
    }


def _pooled(schema: pa.Schema, blocks: Blocks, layers: tuple[int, ...]) -> list[pa.Array]:
    heads = next(iter(blocks.pooled.values())).shape[1]
    numbers = _numbers(layers, heads, 1)
    columns: dict[str, pa.Array] = {"layer": numbers["layer"], "head": numbers["head"]}
    for site, mean in blocks.pooled.items():
        flat = memory_of(mean)
        columns[site] = vectors(flat.astype(np.float16))
        columns[f"{site}_norm"] = pa.array(np.linalg.norm(flat, axis=1).astype(np.float32))
    return [columns[name] for name in schema.names[1:]]
