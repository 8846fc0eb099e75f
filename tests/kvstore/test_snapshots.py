"""One snapshot: readers see vectors as of the versions that their catalog names, and keep them."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvstore import pins, vectors
from kvstore.errors import LeftOutWarning, StoreError
from kvstore.prefill import plan, record, writing
from kvstore.query import run_sql
from kvstore.search import Query, search
from kvstore.store import Store
from tests import stores
from tests.ingesting import assert_clean, ingest, pictures

RUN = "folder-tiny-onevision"
WANTED = {"layers": "0", "sites": ("value", "input")}
COUNTS = """
select
    (select count(distinct image_id) from token_grid),
    (select count(distinct image_id) from patch_kv),
    (select count(distinct image_id) from pooled_kv),
    (select count(distinct image_id) from patch_input),
    (select count(distinct image_id) from run_vectors($run, 'patch_kv')),
    (select max(images) from run),
"""


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WINDOW_IMAGES", 2)
    monkeypatch.setattr(writing, "INTERVAL", 0.0)
    monkeypatch.setattr(writing, "PATIENCE", 0.0)


def seen(store: Store) -> tuple[int, ...]:
    with store.connect() as con:
        counts: Any = con.execute(COUNTS, {"run": RUN}).fetchone()
        return tuple(counts)


def test_between_lances_commit_and_the_catalogs_nobody_sees_more_than_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    commit, met = record.commit, []

    def reads_first(*arguments: Any) -> None:
        store = Store.open(tmp_path / "store")
        newest = vectors.Reader(store.lance, RUN).image_ids
        named = vectors.reader(store.lance, RUN).image_ids
        met.append((len(newest), len(named), *seen(store)))
        if named:
            found = search(store, Query(str(named[0]), 0, 0, 0, top=9999))
            assert {one.image_id for one in found} == set(named[1:])
        commit(*arguments)

    monkeypatch.setattr(record, "commit", reads_first)
    images = pictures(tmp_path / "images", [(60, 60)] * 8)
    store, _ = ingest(tmp_path / "store", images, **WANTED)
    assert len(met) > 1
    for newest, *counts in met:
        assert len(set(counts)) == 1
        assert newest > counts[0]  # Lance is ahead, and nobody sees it
    assert set(seen(store)) == {8}


def test_no_read_during_an_ingest_is_ahead_of_the_catalog(tmp_path: Path, small_windows: None) -> None:
    images = pictures(tmp_path / "images", [(60, 60)] * 24)
    store, _ = ingest(tmp_path / "store", images, **WANTED, limit=1)
    met, ended = [], threading.Event()

    def keep_reading() -> None:
        while not ended.is_set():
            met.append(seen(store))

    readers = [threading.Thread(target=keep_reading) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for limit in (8, 16, 24):
            ingest(tmp_path / "store", images, **WANTED, limit=limit)
        until = time.monotonic() + 60
        while len(met) < 200 and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert len(met) >= 200
    assert len({counts[0] for counts in met}) > 3  # while it grew
    assert [counts for counts in met if len(set(counts)) != 1] == []


def test_a_reader_keeps_its_versions_through_optimize_and_a_moved_store_is_whole(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", [(60, 60)] * 6)
    store, _ = ingest(tmp_path / "store", images, **WANTED, limit=3)
    with store.connect() as con:
        # Nothing is opened before the others have done their work.
        ingest(tmp_path / "store", images, **WANTED)
        store.optimize()
        store.optimize()
        assert set(con.execute(COUNTS, {"run": RUN}).fetchone() or ()) == {3}
    assert set(seen(store)) == {6}
    assert_clean(store)
    shutil.move(tmp_path / "store", tmp_path / "moved")
    assert set(seen(Store.open(tmp_path / "moved"))) == {6}


def test_what_was_replaced_a_day_ago_is_removed_and_what_was_not_stays(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", [(60, 60)] * 6)
    store, _ = ingest(tmp_path / "store", images, **WANTED, limit=3)
    ingest(tmp_path / "store", images, **WANTED)
    before = sorted((store.lance / pins.FOLDER).glob("*.patch_kv.*"))
    assert len(before) > 2
    yesterday = time.time() - 24 * 3600 - 60
    for path in before[:-1]:  # the last but one was replaced just now
        os.utime(path, (yesterday, yesterday))
    store.optimize()
    left = sorted((store.lance / pins.FOLDER).glob("*.patch_kv.*"))
    assert [path for path in before if path in left] == before[-2:]


def test_without_links_the_tables_themselves_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: Any, **named: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuses)
    store, _ = ingest(tmp_path / "store", pictures(tmp_path / "images", [(60, 60)] * 2), **WANTED)
    assert list((store.lance / pins.FOLDER).glob("*/_versions/*")) == []
    assert set(seen(store)) == {2}
    assert_clean(store)


# ------------------------------------------------------------------------------------------------ drop


def test_whoever_has_a_run_open_reads_on_after_a_drop_and_a_new_run_of_its_name(tmp_path: Path) -> None:
    made = stores.make_store(tmp_path / "store", sites=("value", "key", "input"))
    store, total = made.store, float(made.vectors["run"]["value"].astype(np.float64).sum())
    sql = "select sum(list_sum(value)), count(*) from patch_kv"
    with store.connect() as early, store.connect() as late:
        assert early.execute(sql).fetchone() == pytest.approx((total, 144), rel=1e-3)
        size = store.drop("run")
        assert size > made.vectors["run"]["value"].nbytes
        assert early.execute(sql).fetchone() == pytest.approx((total, 144), rel=1e-3)
        images = pictures(tmp_path / "images", [(60, 60)] * 2)
        ingest(tmp_path / "store", images, **WANTED, run="run")
        store.optimize()
        assert late.execute(sql).fetchone() == pytest.approx((total, 144), rel=1e-3)
    assert vectors.reader(store.lance, "run").sites() == ["value", "input"]
    assert len(vectors.reader(store.lance, "run").image_ids) == 2
    assert_clean(store)


def test_a_drop_that_frees_at_once_is_told_in_one_line_to_who_reads(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", [(60, 60)] * 2)
    store, _ = ingest(tmp_path / "store", images, **WANTED)
    opened = vectors.reader(store.lance, RUN)
    with store.connect() as con:
        store.drop(RUN, now=True)
        assert list(store.lance.glob("**/*.lance")) == []
        with pytest.raises(StoreError, match=r"patch_kv of run .* was it dropped meanwhile") as told:
            opened.site("value", 0, opened.image_ids[0])
        assert "\n" not in str(told.value)
        assert len(str(told.value)) <= 300
        with pytest.raises(StoreError, match=r"is not in the store \(was it dropped\?\)"):
            vectors.reader(store.lance, RUN)
        with pytest.raises(Exception, match="not found"):
            con.execute("from patch_kv").fetchall()


def test_sql_names_a_run_whose_files_are_gone(tmp_path: Path) -> None:
    store = stores.make_store(tmp_path / "store").store
    shutil.rmtree(store.lance / "run.patch_kv.lance")
    shutil.rmtree(store.lance / pins.FOLDER)
    with pytest.warns(LeftOutWarning, match=r"patch_kv of run .run. is left out: .*; kvstore repair run"):
        assert run_sql(store, "select count(*) as n from patch_kv").to_pylist() == [{"n": 0}]
