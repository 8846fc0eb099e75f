"""Small stores for tests: catalog and Lance tables filled consistently, without the code that ingests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from kvstore.store import Store

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Made:
    """A store and the arrays that are in it; image ids are 1, 2, ...

    vectors   run -> site -> float16: key and value [images, layers, heads, patches, width],
              input [images, patches, width], encoder [images, layers, patches, width]
    layers    language model layers, in the order of the arrays; the encoder's are the same
    """

    store: Store
    vectors: dict[str, dict[str, Array]]
    layers: tuple[int, ...]
    image_ids: tuple[int, ...]


def make_store(
    root: Path,
    *,
    runs: Sequence[str] = ("run",),
    images: int = 3,
    layers: Sequence[int] = (0, 1),
    heads: int = 2,
    grid: tuple[int, int] = (3, 4),
    width: int = 8,
    sites: Sequence[str] = ("value", "key"),
    cell: int = 10,
    seed: int = 0,
) -> Made:
    """A store in which each run holds the same images, each of rows x columns patches of `cell` pixels."""
    store = Store.open(root, create=True)
    rng = np.random.default_rng(seed)
    image_ids = tuple(range(1, images + 1))
    made = Made(store, {}, tuple(layers), image_ids)
    patches = grid[0] * grid[1]
    tables: dict[str, dict[str, int]] = {}
    for run in runs:
        shape = (images, len(layers), heads, patches, width)
        made.vectors[run] = {
            site: rng.standard_normal(_shape(site, shape)).astype(np.float16) for site in sites
        }
        tables[run] = write_tables(store.lance, run, made.vectors[run], layers, image_ids)
    with store.publish() as con:
        _fill_images(con, image_ids, heads, width, grid, cell)
        for run in runs:
            _fill_run(con, run, tables[run], image_ids, layers, sites, grid, cell, patches * images)
    return made


def fill_catalog(
    store: Store,
    image_ids: Sequence[int],
    layers: Sequence[int],
    heads: int,
    width: int,
    grid: tuple[int, int],
    cell: float,
) -> None:
    """The catalog of a store whose only run, 'run', has values in Lance already."""
    with store.publish() as con:
        _fill_images(con, image_ids, heads, width, grid, cell)
        patches = grid[0] * grid[1] * len(image_ids)
        _fill_run(con, "run", {"patch_kv": 1}, image_ids, layers, ("value",), grid, cell, patches)


def write_tables(
    folder: Path, run: str, vectors: dict[str, Array], layers: Sequence[int], image_ids: Sequence[int]
) -> dict[str, int]:
    """Write one run's Lance tables; their versions by table."""
    tables: dict[str, pa.Table] = {}
    kv = {site: vectors[site] for site in ("key", "value") if site in vectors}
    if kv:
        heads, patches = next(iter(kv.values())).shape[2:4]
        axes = {"image_id": image_ids, "layer": layers, "head": range(heads)}
        tables["patch_kv"] = _table({**axes, "patch": range(patches)}, kv)
        means = {site: array.astype(np.float64).mean(axis=3) for site, array in kv.items()}
        pooled = _table(axes, means)
        for site, mean in means.items():
            norm = np.linalg.norm(mean, axis=-1).reshape(-1)
            pooled = pooled.append_column(f"{site}_norm", pa.array(norm, pa.float32()))
        tables["pooled_kv"] = pooled
    if "input" in vectors:
        axes = {"image_id": image_ids, "patch": range(vectors["input"].shape[1])}
        tables["patch_input"] = _table(axes, {"feature": vectors["input"]})
    if "encoder" in vectors:
        axes = {"image_id": image_ids, "layer": layers, "patch": range(vectors["encoder"].shape[2])}
        tables["patch_encoder"] = _table(axes, {"feature": vectors["encoder"]})
    versions = {}
    for name, table in tables.items():
        dataset = lance.write_dataset(table, str(folder / f"{run}.{name}.lance"))
        dataset.create_scalar_index("image_id", "ZONEMAP")
        versions[name] = dataset.version
    return versions


def name_versions(store: Store, run: str, versions: dict[str, int]) -> None:
    """Tell the catalog of Lance tables that were changed behind its back."""
    with store.publish() as con:
        con.execute(
            "update run set versions = map_concat(versions, map($tables::varchar[], $numbers::bigint[]))"
            " where run_id = $run",
            {"tables": list(versions), "numbers": list(versions.values()), "run": run},
        )


def _shape(site: str, shape: tuple[int, int, int, int, int]) -> tuple[int, ...]:
    images, layers, _, patches, width = shape
    return {"input": (images, patches, width), "encoder": (images, layers, patches, width)}.get(site, shape)


_TYPES = {"image_id": pa.int64(), "layer": pa.int16(), "head": pa.int16(), "patch": pa.int32()}


def _table(axes: dict[str, Sequence[int]], vectors: dict[str, Array]) -> pa.Table:
    """A long table: one row per point of the axes, in order, with one vector column per entry."""
    points = np.meshgrid(*(np.asarray(list(axis)) for axis in axes.values()), indexing="ij")
    columns: dict[str, pa.Array] = {
        name: pa.array(point.reshape(-1), _TYPES[name]) for name, point in zip(axes, points, strict=True)
    }
    for name, array in vectors.items():
        flat = pa.array(np.ascontiguousarray(array, dtype=np.float16).reshape(-1))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, array.shape[-1])
    return pa.table(columns)


def _fill_images(
    con: Any, image_ids: Sequence[int], heads: int, width: int, grid: tuple[int, int], cell: float
) -> None:
    con.execute(
        "insert into model values ('model', 'model', 'model', 'r0', 'llava_onevision', 'Nothing',"
        " 28, 28, $heads, $width, $width, 32, 12, 16, 1000, '{}')",
        {"heads": heads, "width": width},
    )
    con.execute(
        "insert into dataset (dataset_id, name, split, fingerprint, images)"
        " values ('set', 'set', '', 'f', ?)",
        [len(image_ids)],
    )
    for image_id in image_ids:
        size = [round(grid[1] * cell), round(grid[0] * cell)]
        con.execute(
            "insert into image values (?, sha256(?), ?, ?, 'PNG', 1, 100)",
            [image_id, str(image_id), *size],
        )
        con.execute(
            "insert into dataset_image values ('set', ?, ?, ?)", [f"{image_id}.png", image_id, image_id - 1]
        )


def _fill_run(
    con: Any,
    run: str,
    versions: dict[str, int],
    image_ids: Sequence[int],
    layers: Sequence[int],
    sites: Sequence[str],
    grid: tuple[int, int],
    cell: float,
    tokens: int,
) -> None:
    rows, columns = grid
    con.execute(
        "insert into run (run_id, fingerprint, identity, model_id, dataset_id, prefix, view, sites, layers,"
        " encoder_layers, pool, dtype, device, code_version, state, versions, requested, finished_at, images,"
        " tokens) values ($run, $run, '{}', 'model', 'set', '', 'base', $sites::varchar[],"
        " $layers::smallint[], $encoder::smallint[], 1, 'float32', 'cpu', '0', 'done',"
        " map($tables::varchar[], $versions::bigint[]), $images, now(), $images, $tokens)",
        {
            "run": run,
            "sites": list(sites),
            "layers": list(layers),
            "encoder": list(layers) if "encoder" in sites else [],
            "tables": list(versions),
            "versions": list(versions.values()),
            "images": len(image_ids),
            "tokens": tokens,
        },
    )
    for image_id in image_ids:
        con.execute(
            "insert into token_grid values (?, ?, 0, ?, ?, 0, 0, ?, ?, 0, 0, ?, 1, 1)",
            [run, image_id, rows, columns, columns * cell, rows * cell, columns],
        )
