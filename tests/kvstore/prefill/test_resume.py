"""Killed, interrupted, held and simultaneous ingests, in processes of their own with real signals."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from kvstore import shell, vectors
from kvstore.errors import StoreBusyError
from kvstore.prefill import plan, record, writing
from kvstore.store import Store
from tests import slow_ingest
from tests.ingesting import assert_clean, ingest, pictures, query, rows

IMAGES, WANTED = 12, {"layers": "0", "sites": ("value", "key", "input")}
KINDS = ("patch_kv", "pooled_kv", "patch_input", "patch_span")
RUN = "folder-tiny-onevision"
#: The image at which a process that is held waits: some are stored by then, and some are not.
HELD = 8
#: Seconds after which a process is given up, however busy the machine is.
PATIENCE = 300


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("images"), [(60, 60)] * IMAGES)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WINDOW_IMAGES", slow_ingest.WINDOW)
    monkeypatch.setattr(writing, "INTERVAL", 0.0)
    monkeypatch.setattr(writing, "PATIENCE", 0.0)


@pytest.fixture(scope="module")
def straight(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same images without any interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "WINDOW_IMAGES", slow_ingest.WINDOW)
        return ingest(tmp_path_factory.mktemp("straight"), images, **WANTED)[0]


STAT = "select * exclude (run_id) from key_stat order by all"


def assert_same(store: Store, straight: Store, run: str = RUN) -> None:
    """Every row of vectors and grids as in the uninterrupted run, in the same order; equal moments."""
    for kind in KINDS:
        assert rows(store, run, kind) == rows(straight, RUN, kind), kind
    grids = "select * exclude (run_id) from token_grid order by all"
    assert query(store, grids) == query(straight, grids)
    np.testing.assert_allclose(np.array(query(store, STAT)), np.array(query(straight, STAT)), rtol=1e-6)
    assert query(store, "select state, images, rows from run")[0] == (
        "done", IMAGES, IMAGES * 14 * 14 * (1 * 2 + 1)
    )  # fmt: skip
    assert_clean(store)


# ---------------------------------------------------------------------------------------- processes


@dataclass
class Child:
    """A process of its own and what it says."""

    process: Any
    said: Connection

    def hears(self) -> Any:
        assert self.said.poll(PATIENCE), "the process says nothing"
        return self.said.recv()

    def goes_on(self) -> None:
        self.said.send("go on")

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(PATIENCE)


Start = Callable[..., Child]


@pytest.fixture
def start() -> Any:
    """`start(function, ...)`: run it in a new process, forked from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.slow_ingest"])
    children = []

    def begin(function: Callable[..., None], *arguments: Any) -> Child:
        here, there = context.Pipe()
        process = context.Process(target=function, args=(there, *arguments), daemon=True)
        process.start()
        there.close()
        children.append(process)
        child = Child(process, here)
        assert child.hears() == "begins"
        return child

    yield begin
    for process in children:
        if process.is_alive():
            process.kill()
        process.join()


def wait_for_images(store: Store, least: int) -> int:
    """Wait until the catalog knows so many images of the run; how many it knows then."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        stored = sum(run["images"] for run in store.runs()) if store.catalog.exists() else 0
        if stored >= least:
            return stored
        time.sleep(0.01)
    raise AssertionError("nothing is stored")


# --------------------------------------------------------------------------------------------- kill -9


def test_ten_kills_at_random_moments_lose_and_double_nothing(
    images: Path, straight: Store, start: Start, tmp_path: Path, small_windows: None
) -> None:
    seed = int(os.environ.get("KVSTORE_TEST_SEED") or time.time())
    print(f"KVSTORE_TEST_SEED={seed}")
    chance, stores, kills, progress = random.Random(seed), [tmp_path / "0"], 0, []
    child, begun = start(slow_ingest.run, 0.1, tmp_path / "whole", images, WANTED), time.monotonic()
    assert child.hears().images == IMAGES
    whole = time.monotonic() - begun
    while kills < 10:
        child = start(slow_ingest.run, 0.1, stores[-1], images, WANTED)
        if kills % 2:  # from the middle of the work on, else at any moment
            wait_for_images(Store(stores[-1]), min(IMAGES, max(progress, default=0) + 2))
        time.sleep(chance.uniform(0.0, 0.5 if kills % 2 else whole))
        if child.said.poll():  # it ended before: the next kills are for a new store
            stores.append(tmp_path / str(len(stores)))
            progress.clear()
            continue
        child.kill()
        kills += 1
        if (stores[-1] / "catalog.duckdb").exists():
            store = Store.open(stores[-1])
            assert_clean(store)
            progress.append(sum(run["images"] for run in store.runs()))
    print("images stored at each kill:", progress)
    for root in stores:
        store, _ = ingest(root, images, **WANTED)
        assert_same(store, straight)


def test_a_kill_amid_optimize_harms_nothing(
    images: Path, straight: Store, start: Start, tmp_path: Path, small_windows: None
) -> None:
    store, _ = ingest(tmp_path, images, **WANTED, limit=10)
    for wait in (0.0, 0.03, 0.1):
        child = start(slow_ingest.optimize, tmp_path)
        time.sleep(wait)
        child.kill()
        assert_clean(store)
    ingest(tmp_path, images, **WANTED)
    assert_same(store, straight)


def test_versions_that_optimize_removed_before_it_was_killed_are_not_missed(
    images: Path, straight: Store, tmp_path: Path, small_windows: None
) -> None:
    """The catalog still names versions that are gone: compaction changed no row, so the newest stand."""
    store, outcome = ingest(tmp_path, images, **WANTED, limit=10)
    vectors.optimize(store.lance, outcome.run_id, KINDS)
    for kind in KINDS:
        table = lance.dataset(str(store.lance / f"{RUN}.{kind}.lance"))
        table.cleanup_old_versions(timedelta(0))
        assert len(table.versions()) == 1
    ingest(tmp_path, images, **WANTED)
    assert_same(store, straight)


@pytest.mark.parametrize("optimized", [False, True])
def test_vectors_that_the_catalog_never_heard_of_are_taken_back(
    images: Path,
    straight: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_windows: None,
    optimized: bool,
) -> None:
    """Died between Lance's commit and the catalog's; in between perhaps somebody optimizes the store."""
    commit, calls = record.commit, []

    def dies(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("died")
        commit(*arguments)

    monkeypatch.setattr(record, "commit", dies)
    with pytest.raises(RuntimeError, match="died"):
        ingest(tmp_path, images, **WANTED)
    monkeypatch.setattr(record, "commit", commit)
    store = Store.open(tmp_path)
    told = query(store, "select images from run")[0][0]
    assert rows(store, RUN, "patch_span").num_rows > told > 0
    if optimized:
        store.optimize()
        assert rows(store, RUN, "patch_span").num_rows == told
        assert rows(store, RUN, "patch_input").num_rows == told * 14 * 14
    ingest(tmp_path, images, **WANTED)
    assert_same(store, straight)


def test_a_resume_removes_the_files_of_writers_that_were_killed(
    images: Path, start: Start, tmp_path: Path, small_windows: None
) -> None:
    child = start(slow_ingest.run, 0.05, tmp_path, images, WANTED)
    store = Store(tmp_path)
    wait_for_images(store, 2)
    child.kill()
    data = store.lance / f"{RUN}.patch_kv.lance" / "data"
    (data / "left-behind.lance").write_bytes(b"x" * 1000)
    ingest(tmp_path, images, **WANTED)
    assert not (data / "left-behind.lance").exists()
    assert_clean(store)


def test_a_smaller_limit_after_a_kill_keeps_all_moments(
    images: Path, straight: Store, start: Start, tmp_path: Path, small_windows: None
) -> None:
    """Sums that the killed session took with it are made again from all stored keys."""
    child = start(slow_ingest.run, 0.1, tmp_path, images, WANTED)
    store = Store(tmp_path)
    wait_for_images(store, 4)
    child.kill()
    ingest(tmp_path, images, **WANTED, limit=1)
    stored = query(store, "select images from run")[0][0]
    assert query(store, "select distinct n from key_stat") == [(stored,)]
    ingest(tmp_path, images, **WANTED)
    assert_same(store, straight)


def test_ctrl_c_leaves_an_interrupted_run_that_the_same_command_ends(
    images: Path, straight: Store, start: Start, tmp_path: Path, small_windows: None
) -> None:
    child = start(slow_ingest.run, 0.0, tmp_path, images, WANTED, HELD)
    store = Store(tmp_path)
    wait_for_images(store, 2)
    os.kill(child.process.pid, signal.SIGINT)
    child.goes_on()  # the threads that decode; the one that prefills has the signal first
    child.process.join(PATIENCE)
    assert child.process.exitcode == 1
    (stored,) = query(store, "select images from run where state = 'interrupted'")[0]
    assert 2 <= stored < IMAGES
    assert_clean(store)
    _, outcome = ingest(tmp_path, images, **WANTED)
    assert outcome.already == stored
    assert_same(store, straight)


# ------------------------------------------------------------------------------------ two at once


def test_two_runs_at_once_both_finish_with_the_same_image_ids(
    images: Path, straight: Store, start: Start, tmp_path: Path
) -> None:
    """They would take the same name, too: the second to come takes the next one."""
    first = start(slow_ingest.run, 0.02, tmp_path, images, WANTED)
    second = start(slow_ingest.run, 0.02, tmp_path, images, WANTED | {"layers": "1"})
    ended = [child.hears() for child in (first, second)]
    assert {outcome.run_id for outcome in ended} == {RUN, f"{RUN}-2"}
    assert [outcome.images for outcome in ended] == [IMAGES, IMAGES]
    store = Store.open(tmp_path)
    for run in store.runs():
        assert rows(store, run["run_id"], "patch_input") == rows(straight, RUN, "patch_input")
    (same,) = (o.run_id for o in ended[:1])
    assert rows(store, same, "patch_kv") == rows(straight, RUN, "patch_kv")
    assert query(store, "select count(*) from image") == [(IMAGES,)]
    assert_clean(store)


def test_six_runs_at_once_of_one_name_all_finish(images: Path, start: Start, tmp_path: Path) -> None:
    """`tests/fuzz/twelve_ingests.py` does it with the command itself, and with twelve."""
    started = [
        start(slow_ingest.run, 0.0, tmp_path, images, WANTED | {"prefix": f"{n}", "limit": 2})
        for n in range(6)
    ]
    ended = [child.hears() for child in started]
    name = f"{RUN}-prefix"
    assert sorted(outcome.run_id for outcome in ended) == [name, *(f"{name}-{n}" for n in range(2, 7))]
    store = Store.open(tmp_path)
    assert [(run["state"], run["images"]) for run in store.runs()] == [("done", 2)] * 6
    assert_clean(store)


def test_the_same_run_twice_says_who_holds_it(
    images: Path, straight: Store, start: Start, tmp_path: Path, small_windows: None
) -> None:
    child = start(slow_ingest.run, 0.0, tmp_path, images, WANTED, HELD)
    store = Store(tmp_path)
    wait_for_images(store, 2)
    with pytest.raises(StoreBusyError, match=rf"run {RUN} is held by process {child.process.pid} "):
        ingest(tmp_path, images, **WANTED)
    assert store.optimize() == {RUN: "busy"}
    child.goes_on()
    assert child.hears().images == IMAGES
    assert_same(store, straight)


# ----------------------------------------------------------------------------------------- readers


def test_readers_left_open_keep_their_snapshot_and_hinder_nobody(images: Path, tmp_path: Path) -> None:
    store, outcome = ingest(tmp_path, images, **WANTED, limit=2)
    ask = "select count(*) from token_grid; select count(*) from patch_kv where image_id = 1;"
    expected = ["2", str(2 * 14 * 14)]
    command = [str(shell.binary()), "-csv", "-noheader", "-init", os.devnull]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    reader = vectors.Reader(store.lance, outcome.run_id)
    before = reader.site("key", 0, 1).copy()

    def answers(sql: str) -> list[str]:
        assert program.stdin and program.stdout  # noqa: PT018
        program.stdin.write(sql + "\n")
        program.stdin.flush()
        return [program.stdout.readline().strip() for _ in range(2)]

    with store.connect() as con:
        assert answers(shell.init_sql(store) + "\n" + ask) == expected
        ingest(tmp_path, images, **WANTED)
        store.optimize()
        assert answers(ask) == expected
        found = [con.execute(part).fetchall()[0][0] for part in ask.split(";")[:2]]
        assert list(map(str, found)) == expected
    assert np.array_equal(reader.site("key", 0, 1), before)
    assert query(store, "select count(*) from token_grid") == [(IMAGES,)]
    assert program.stdin
    program.stdin.close()
    assert program.wait(60) == 0
    assert program.stdout
    program.stdout.close()
