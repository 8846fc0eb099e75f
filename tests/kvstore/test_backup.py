"""Backups: the rows of one snapshot, whole or not at all, whatever happens to the store or the process."""

from __future__ import annotations

import errno
import filecmp
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore import apart, backup, cli, pins, repair, verify
from kvstore.errors import NoSpaceError, StoreBusyError, StoreError, UsageError
from kvstore.prefill import plan, record, writing
from kvstore.store import Store
from tests import slow_ingest
from tests.ingesting import assert_clean, ingest, pictures, query, rows

IMAGES, WANTED = 8, {"layers": "0", "sites": ("value", "key", "input")}
RUN = "folder-tiny-onevision"
KINDS = ("patch_kv", "pooled_kv", "patch_input", "patch_span", "checksum")


@pytest.fixture(scope="module")
def images(tmp_path_factory: Any) -> Path:
    return pictures(tmp_path_factory.mktemp("images"), [(60, 60)] * IMAGES)


@pytest.fixture(scope="module")
def store(images: Path, tmp_path_factory: Any) -> Store:
    """A run in two parts, of several fragments and versions."""
    root = tmp_path_factory.mktemp("backup") / "s"
    ingest(root, images, **WANTED, limit=3)
    made, _ = ingest(root, images, **WANTED)
    return made


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums are verified in this process: to start another takes seconds."""
    monkeypatch.setattr(apart, "messages", lambda work, *args: work(*args))


def catalog(store: Store) -> dict[str, list[Any]]:
    """All rows of all tables of the catalog."""
    with store.tables() as con:
        names = con.execute(
            "select table_name from duckdb_tables() where not temporary order by 1"
        ).fetchall()
        return {
            name: con.execute(f'select t::varchar from "{name}" as t order by 1').fetchall()
            for (name,) in names
        }


def assert_same(one: Store, other: Store) -> None:
    """Every row of the catalog and of all Lance tables, both ways, and through the views."""
    assert catalog(one) == catalog(other)
    for kind in KINDS:
        assert rows(one, RUN, kind) == rows(other, RUN, kind), kind
    sql = "select count(*), sum(hash(t)) from {} as t"
    for view in ("patch_kv", "pooled_kv", "patch_input"):
        assert query(one, sql.format(view)) == query(other, sql.format(view))


def sound(store: Store) -> int:
    """How many images a store has; all checks of it pass, the deep ones, too."""
    assert_clean(store)
    (task,) = repair.tasks(store)
    verdict = verify.verify(task)
    assert (verdict.broken, verdict.unsummed) == ((), 0)
    assert len(task.patches) == query(store, "select count(distinct image_id) from patch_kv")[0][0]
    return len(task.patches)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_backup_has_every_row_and_shares_nothing(store: Store, tmp_path: Path) -> None:
    backup.backup(store, tmp_path / "b")
    copy = Store.open(tmp_path / "b")
    assert_same(store, copy)
    assert sound(copy) == IMAGES
    assert names(tmp_path) == ["b"]
    assert names(copy.root) == ["catalog.duckdb", "lance"]
    theirs = {path.stat().st_ino for path in store.root.rglob("*") if path.is_file()}
    files = [path for path in copy.root.rglob("*") if path.is_file()]
    assert not {path.stat().st_ino for path in files} & theirs
    inside = [path.resolve().is_relative_to(copy.root.resolve()) for path in copy.root.rglob("*")]
    assert all(inside)
    assert len([path for path in files if path.parent.name == "_versions" and "at" not in path.parts]) == 5
    assert len(list((copy.lance / pins.FOLDER).glob("*/seal.json"))) == 5


def test_it_is_a_store_in_which_an_ingest_goes_on_and_from_which_another_is_restored(
    images: Path, store: Store, tmp_path: Path
) -> None:
    begun, _ = ingest(tmp_path / "begun", images, **WANTED, limit=3)
    backup.backup(begun, tmp_path / "b")
    copy, outcome = ingest(tmp_path / "b", images, **WANTED)
    assert (outcome.images, outcome.already) == (IMAGES - 3, 3)
    copy.optimize()
    assert sound(copy) == IMAGES
    assert rows(copy, RUN, "patch_kv") == rows(store, RUN, "patch_kv")
    assert sound(begun) == 3
    shutil.rmtree(begun.root)
    backup.backup(copy, begun.root)
    assert_same(copy, Store.open(begun.root))


def test_between_lances_commit_and_the_catalogs_it_has_what_the_catalog_names(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "WINDOW_IMAGES", 2)
    monkeypatch.setattr(writing, "INTERVAL", 0.0)
    monkeypatch.setattr(writing, "PATIENCE", 0.0)
    commit, met = record.commit, []

    def copies_first(*arguments: Any) -> None:
        original = Store(tmp_path / "s")
        known = original.runs()[0]["images"]
        if known and len(met) < 2:
            copy = tmp_path / f"b{len(met)}"
            backup.backup(original, copy)
            met.append((known, sound(Store.open(copy)), len(rows(original, RUN, "patch_span"))))
        commit(*arguments)

    monkeypatch.setattr(record, "commit", copies_first)
    ingest(tmp_path / "s", images, **WANTED)
    assert met
    for known, there, newest in met:
        assert there == known < newest  # Lance is ahead, and the backup is not


def test_backups_while_another_process_ingests_are_whole(images: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.slow_ingest"])
    said, there = context.Pipe()
    process = context.Process(
        target=slow_ingest.run, args=(there, 0.5, tmp_path / "s", images, WANTED), daemon=True
    )
    process.start()
    try:
        assert said.recv() == "begins"
        original, found, until = Store(tmp_path / "s"), [], time.monotonic() + 120
        while process.is_alive() and not said.poll() and len(found) < 3 and time.monotonic() < until:
            if original.catalog.exists() and original.runs() and original.runs()[0]["images"]:
                copy = tmp_path / f"b{len(found)}"
                backup.backup(original, copy)
                found.append(copy)
        assert said.poll(120)
    finally:
        process.kill()
        process.join()
    assert found
    counts = [sound(Store.open(copy)) for copy in found]
    assert counts == sorted(counts)
    for copy in found[:1]:
        grown, _ = ingest(copy, images, **WANTED)
        for kind in KINDS[:-1]:  # the order of checksums is that of the windows in which they were made
            assert rows(grown, RUN, kind) == rows(original, RUN, kind), kind


# --------------------------------------------------------------------------------- ended before its end


@pytest.mark.parametrize("at", [1, 2, 9])
def test_ended_anywhere_it_looks_like_no_store_and_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """In the middle of the `at`-th file: half of it is written."""
    whole, copied = backup._copy, []

    def ends(source: Path, target: Path, tell: Any) -> None:
        if len(copied) == at:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(f"{target.name}.part").write_bytes(source.read_bytes()[:100])
            raise KeyboardInterrupt
        copied.append(target)
        whole(source, target, tell)

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_copy", ends)
        with pytest.raises(KeyboardInterrupt):
            backup.backup(store, tmp_path / "b")
    assert names(tmp_path) == [".b.backup"]
    with pytest.raises(StoreError, match="no store at"):
        Store.open(tmp_path / ".b.backup")
    again: list[Path] = []

    def counts(source: Path, target: Path, tell: Any) -> None:
        again.append(target)
        whole(source, target, tell)

    monkeypatch.setattr(backup, "_copy", counts)
    backup.backup(store, tmp_path / "b")
    kept = {path for path in copied if path.parent.name == "data"}
    assert not kept & set(again)
    assert names(tmp_path) == ["b"]
    assert list((tmp_path / "b").rglob("*.part")) == []
    assert_same(store, Store.open(tmp_path / "b"))


SLOWLY = """
import time
from kvstore import backup, cli

copy = backup._copy

def slowly(*arguments):
    print("copies", flush=True)
    time.sleep(0.3)
    copy(*arguments)

backup._copy = slowly
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_process_that_is_killed_leaves_no_store_and_the_next_one_goes_on(
    store: Store, tmp_path: Path, number: int, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "backup", str(store.root), str(tmp_path / "b")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for _ in range(4):
        assert process.stdout.readline() == "copies\n"
    with pytest.raises(StoreBusyError, match=r"the backup .* is held by process"):
        backup.backup(store, tmp_path / "b")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, "")
    assert names(tmp_path) == [".b.backup"]
    assert not (tmp_path / ".b.backup/catalog.duckdb").exists()
    backup.backup(store, tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert_same(store, Store.open(tmp_path / "b"))


# -------------------------------------------------------------------------------------------- faults


def data_file(store: Store, kind: str) -> Path:
    return max(
        (store.lance / f"{RUN}.{kind}.lance/data").iterdir(),
        key=lambda path: (path.stat().st_size, path.name),
    )


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 255]))


def test_a_flipped_byte_of_the_store_is_told_with_its_image(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(store.root, tmp_path / "s", symlinks=True)
    flip(data_file(Store(tmp_path / "s"), "patch_kv"))
    (due,) = verify.verify(*repair.tasks(Store(tmp_path / "s"))).broken
    with pytest.raises(SystemExit) as caught:
        cli.main(["backup", str(tmp_path / "s"), str(tmp_path / "b")])
    said = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1
    where = f"run {RUN}: image {due.image_id} in patch_kv: its rows differ from those that were stored"
    assert said[0] == f"{where}; kvstore repair {RUN}"
    assert said[1].startswith(f"{tmp_path / 'b'}: 1 runs, {IMAGES} images, ")
    assert len(said) == 2
    assert filecmp.cmp(*(data_file(Store(tmp_path / name), "patch_kv") for name in "sb"), shallow=False)


@pytest.mark.parametrize("kind", ["patch_kv", "checksum", "patch_span"])
def test_a_copy_that_differs_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = backup._copy

    def badly(source: Path, target: Path, tell: Any) -> None:
        whole(source, target, tell)
        if source == data_file(store, kind):
            flip(target)

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_copy", badly)
        with pytest.raises(StoreError, match="is not what was copied: is its disk sound"):
            backup.backup(store, tmp_path / "b")
    assert names(tmp_path) == [".b.backup"]
    backup.backup(store, tmp_path / "b")
    assert_same(store, Store.open(tmp_path / "b"))


def test_a_broken_manifest_is_told_in_a_line(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "s", symlinks=True)
    broken = Store(tmp_path / "s")
    for path in (
        *broken.lance.glob(f"{RUN}.patch_kv.lance/_versions/*"),
        *broken.lance.glob("at/*patch_kv*/_versions/*"),
    ):
        path.write_bytes(b"")
    with pytest.raises(StoreError, match=f"manifest is not what was stored.*kvstore repair {RUN}") as told:
        backup.backup(broken, tmp_path / "b")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "b").exists()


def test_a_run_that_is_dropped_meanwhile_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(store.root, tmp_path / "s", symlinks=True)
    original, files = Store(tmp_path / "s"), backup._files

    def then_drops(*arguments: Any) -> Any:
        found = list(files(*arguments))
        original.drop(RUN, now=True)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_files", then_drops)
        with pytest.raises(StoreError, match="went away while it was copied"):
            backup.backup(original, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    backup.backup(original, tmp_path / "b")
    assert Store.open(tmp_path / "b").runs() == []


@pytest.mark.parametrize("what", ["folder", "file", "link", "inside", "the store"])
def test_a_destination_that_is_there_or_in_the_store_is_refused(
    store: Store, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = {"inside": store.root / "b", "the store": store.root}.get(what, tmp_path / "b")
    if what == "folder":
        target.mkdir()
    elif what == "file":
        target.write_text("mine")
    elif what == "link":
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SystemExit) as caught:
        cli.main(["backup", str(store.root), str(target)])
    said = capsys.readouterr().err
    assert (caught.value.code, said.count("\n")) == (2, 1)
    assert ("lies in the store" if what == "inside" else "is there already") in said
    assert list(tmp_path.rglob(".*")) == []
    with pytest.raises(UsageError):
        backup.backup(store, target)


def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(NoSpaceError, match=r"the backup takes 0\.0\d\d GB more, and .* has 0\.000 GB free"):
        backup.backup(store, tmp_path / "b")
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(old: Any, new: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backup, "_chunk", full)
    with pytest.raises(NoSpaceError, match="no space left on the disk of"):
        backup.backup(store, tmp_path / "b")
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, 0])
def test_where_the_system_copies_no_ranges_bytes_are_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def cannot(*arguments: Any) -> int:
        if number:
            raise OSError(number, "no")
        return 0

    monkeypatch.setattr(os, "copy_file_range", cannot, raising=False)
    monkeypatch.setattr(backup, "CHUNK", 7)
    (tmp_path / "a").write_bytes(bytes(range(256)))
    told: list[int] = []
    backup._copy(tmp_path / "a", tmp_path / "b", told.append)
    assert (tmp_path / "b").read_bytes() == bytes(range(256))
    assert sum(told) == 256
