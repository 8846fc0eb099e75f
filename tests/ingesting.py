"""Small ingests for tests: noise images on disk, a run of them, and what is stored read back plainly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from kvstore.prefill import ingest as engine
from kvstore.prefill.ingest import Meter, Outcome
from kvstore.prefill.options import Options
from kvstore.store import Store
from tests.tiny import noise

Array = np.ndarray[Any, Any]


def pictures(folder: Path, sizes: Sequence[tuple[int, int]], first: int = 0) -> Path:
    """PNG files of noise, ``00.png``, ``01.png``, ...; each of its own content."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes, first):
        noise(size, number).save(folder / f"{number:02d}.png")
    return folder


def options(images: Path, **wanted: Any) -> Options:
    """Two layers of a tiny model over a folder, one image at a time."""
    dataset = wanted.pop("dataset", "folder")
    given = {"model": "tiny-onevision", "layers": "1,3", "batch": 1, "device": "cpu"} | wanted
    return Options(dataset, given.pop("model"), root=images, **given)


def ingest(root: Path, images: Path, **wanted: Any) -> tuple[Store, Outcome]:
    """Ingest a folder of images into the store at `root`."""
    store = Store.open(root, create=True)
    plan, meter = engine.plan(options(images, **wanted)), Meter()
    return store, engine.ingest(store, plan, engine.look(plan, meter), meter)


def rows(store: Store, run: str, kind: str) -> pa.Table:
    """All rows of one Lance table, in their order."""
    return lance.dataset(str(store.lance / f"{run}.{kind}.lance")).to_table()


def array(table: pa.Table, column: str) -> Array:
    """A vector column as [rows, width]."""
    flat = table.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(table.num_rows, -1)


def query(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    with store.connect() as con:
        return con.execute(sql).fetchall()


def faults(store: Store) -> dict[str, str]:
    """Name -> reason of what is in quarantine."""
    return dict(query(store, "select name, reason from quarantine order by position"))


def assert_clean(store: Store) -> None:
    """Every check of the store returns no row."""
    assert [finding for finding in store.check() if not finding.ok] == []
