"""A data set loaded, looked at and annotated as an ingest does, into a catalog in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import duckdb

from kvstore import datasets, warehouse
from kvstore.contracts import Grid, Layout, Note
from kvstore.notes import told
from kvstore.prefill import across, annotate
from kvstore.prefill.survey import Seen, survey
from tests.fuzz.worlds import World

TABLES = ("object", "keypoint", "caption", "expression", "void", "pair", "pair_keypoint", "frame", "category")


@dataclass(frozen=True)
class Loaded:
    """Rows of the catalog by table, whether anything was said to be missing or mended, and the lines told."""

    counts: Counter[str]
    lost: int
    mended: int
    lines: list[str]


def loaded(world: World) -> Loaded:
    """Load, look at and annotate a data set as an ingest does, into a catalog in memory."""
    dataset = world.load()
    datasets.fingerprint(dataset)
    seen: list[Seen] = survey(
        dataset.images, lambda size: Layout((Grid(1, 1, (0, 0, *size)),), 1), 1, lambda n: None
    )
    rows, judged = annotate.collect(dataset, seen, set())
    sifted = across.sift(dataset)
    faults = sum(image.fault is not None for image in judged)
    ids = {image.name: number for number, image in enumerate(judged) if image.fault is None}
    rows = {table: [row for row in found if row.get("file") in (None, *ids)] for table, found in rows.items()}
    with _catalog() as con:
        con.execute(
            "insert into dataset (dataset_id, name, split, fingerprint, images)"
            " values ('set', 'set', '', '', $n)",
            {"n": len(judged)},
        )
        for place, (name, image) in enumerate(ids.items()):
            con.execute(
                "insert into dataset_image values ('set', $name, $image, $place)",
                {"name": datasets.sound(name), "image": image, "place": place},
            )
        annotate.store(con, "set", rows, sifted, ids)
        what = (*TABLES, "object where mask is not null")
        found = con.execute(f"select {', '.join(f'(select count(*) from {one})' for one in what)}").fetchone()
        counts = Counter(dict(zip((*TABLES, "mask"), found or (), strict=True)), image=len(ids))
        told_of = con.execute("select kind, place, count, lost from load_note").fetchall()
    notes = [Note(*row) for row in told_of]
    lost = faults + sum(note.count for note in notes if note.lost)
    return Loaded(counts, lost, sum(note.count for note in notes if not note.lost), told(notes))


@contextmanager
def _catalog() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty catalog; what is put into it goes again."""
    con = _made()
    con.begin()
    try:
        yield con
    finally:
        con.rollback()


@cache
def _made() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config={"threads": 1})
    warehouse.create_tables(con)
    return con
