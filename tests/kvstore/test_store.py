"""A store: opening, publishing among readers and other publishers, holding, dropping, optimizing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

from kvstore.errors import (
    NoSpaceError,
    StoreBusyError,
    StoreError,
    StoreVersionError,
    UnknownNameError,
    UsageError,
)
from kvstore.store import Store, run_name
from tests import stores

CLI = Path(sys.executable).parent / "duckdb"


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """A second process that runs `code`; it talks by lines."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def models(store: Store) -> set[str]:
    """What other processes wrote: the names in table model."""
    with duckdb.connect(":memory:") as con:
        con.execute(f"attach '{store.catalog}' as c (read_only)")
        return {name for (name,) in con.execute("select model_id from c.model").fetchall()}


ADD = "insert into model values (?, 'm', 's', ?, 'f', 'A', 1, 1, 1, 1, 1, 1, 1, 1, 1, '{}')"  # name, revision


# ------------------------------------------------------------------------------------------- opening


def test_opening_what_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(StoreError, match=r"no store at .*none; `kvstore ingest"):
        Store.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_with_other_things_is_not_scribbled_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"not empty \(it has thesis\.tex\)"):
        Store.open(tmp_path, create=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_an_uri_and_a_foreign_catalog_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        Store.open(tmp_path / "file", create=True)
    for url in ("s3://bucket/store", Path("s3://bucket/store"), Path("gs://b"), "file:///tmp/x"):
        with pytest.raises(UsageError, match="is a URL"):
            Store.open(url, create=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "catalog.duckdb").write_text("no database")
    with pytest.raises(StoreError, match="cannot be opened as a catalog"):
        Store.open(tmp_path / "foreign")
    with duckdb.connect(str(tmp_path / "other.duckdb")) as con:
        con.execute("create table t as select 1 as x")
    (tmp_path / "other.duckdb").rename(tmp_path / "foreign" / "catalog.duckdb")
    with pytest.raises(StoreError, match="is not the catalog of a store"):
        Store.open(tmp_path / "foreign")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "foreign"]


@pytest.mark.parametrize(
    "name", ["it's", "a b", "#1", "100%20", "[x]*", 'say "x"', "a\\b", "日本", "a;b", "é\u00a0"]
)
def test_a_store_may_have_an_odd_name(tmp_path, name):
    store = Store.open(tmp_path / name, create=True)
    assert store.runs() == []
    with Store.open(tmp_path / name).connect() as con:
        assert con.execute("select count(*) from patch_kv").fetchone() == (0,)


@pytest.mark.parametrize("name", ["what?", "tab\there", "line\nbreak", "\x1b[31m", "\x7f", "half\udcfc"])
def test_a_name_that_duckdb_or_lance_cannot_take_is_refused_before_anything_is_made(tmp_path, name):
    for create in (True, False):
        with pytest.raises(StoreError, match="cannot be a store's path"):
            Store.open(tmp_path / name / "inner", create=create)
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_points_nowhere_is_told(tmp_path):
    (tmp_path / "s").symlink_to("nowhere")
    with pytest.raises(StoreError, match="s is a link to nowhere, which is not there"):
        Store.open(tmp_path / "s", create=True)
    (tmp_path / "nowhere").mkdir()
    assert Store.open(tmp_path / "s", create=True).runs() == []


def test_a_catalog_that_another_program_has_open_for_writing_is_told_with_its_process(make_store):
    store = make_store().store
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(store.catalog)], **pipes) as other:
        assert other.stdout.readline() == "open\n"
        for open_ in (lambda: Store.open(store.root), store.connect, store.runs):
            with pytest.raises(
                StoreBusyError, match=r"is open for writing in python.* \(process \d+\); close"
            ):
                open_()
        other.communicate("")
    assert len(Store.open(store.root).runs()) == 1


def test_an_empty_time_zone_means_utc(make_store, monkeypatch):
    monkeypatch.setenv("TZ", "")
    store = make_store().store
    assert str(store.runs()[0]["finished_at"].utcoffset()) == "0:00:00"
    with store.connect() as con:
        assert con.execute("select now()::varchar").fetchone()[0].endswith("+00")


def test_a_store_of_a_newer_kvstore_is_refused_with_the_remedy(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    with store.publish() as con:
        con.execute("update store set version = 99, created_by = '7.5'")
    with pytest.raises(StoreVersionError, match=r"format 99, made by kvstore 7\.5.*pip install -U kvstore"):
        Store.open(tmp_path / "s")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "s").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(tmp_path / "s", create=True)


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(tmp_path / "file" / "s", create=True)


def test_a_making_that_was_killed_is_taken_up(tmp_path):
    (tmp_path / "s" / "lance").mkdir(parents=True)
    (tmp_path / "s" / "catalog.duckdb.99.0.tmp").write_bytes(b"half")
    store = Store.open(tmp_path / "s", create=True)
    assert sorted(p.name for p in store.root.iterdir()) == ["catalog.duckdb", "lance", "locks"]


# ---------------------------------------------------------------------------------------- publishing


def test_an_error_in_the_body_changes_nothing_and_leaves_nothing(make_store):
    store = make_store().store
    before = store.catalog.read_bytes()
    with pytest.raises(duckdb.ConversionException), store.publish() as con:
        con.execute("delete from run; select 'x'::integer")
    assert store.catalog.read_bytes() == before
    assert sorted(p.name for p in store.root.iterdir()) == ["catalog.duckdb", "lance", "locks"]


def test_a_python_reader_keeps_its_snapshot_and_hinders_nobody(make_store):
    store = make_store().store
    with store.connect() as reader:
        with store.publish() as con:
            con.execute(ADD, ["new", "r1"])
        assert reader.execute("select count(*) from model").fetchone() == (1,)
        with store.connect() as later:
            assert later.execute("select count(*) from model").fetchone() == (2,)
    assert not list(store.root.glob("*.wal"))


def test_a_duckdb_shell_left_open_keeps_its_snapshot_and_hinders_nobody(make_store):
    store = make_store().store
    shell = subprocess.Popen(
        [CLI, "-csv", "-noheader", "-init", os.devnull],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdin
    assert shell.stdout

    def ask(sql: str) -> str:
        shell.stdin.write(sql + "\n")
        shell.stdin.flush()
        return shell.stdout.readline().strip()

    assert ask(f"attach '{store.catalog}' as c (read_only); select count(*) from c.model;") == "1"
    with store.publish() as con:  # a reader does not hinder the publisher
        con.execute(ADD, ["new", "r1"])
    assert models(store) == {"model", "new"}
    assert ask("select count(*) from c.model;") == "1"  # the publisher does not disturb the reader
    with store.publish() as con:
        con.execute(ADD, ["newer", "r2"])
        assert (
            ask(
                "detach c; attach '"
                + str(store.catalog)
                + "' as c (read_only); select count(*) from c.model;"
            )
            == "2"
        )
    shell.stdin.close()
    shell.stdout.close()
    assert shell.wait() == 0
    assert models(store) == {"model", "new", "newer"}


PUBLISHER = f"""
import sys
from kvstore.store import Store
store = Store.open(sys.argv[1])
for i in range(8):
    with store.publish() as con:
        con.execute({ADD!r}, [f"{{sys.argv[2]}}{{i}}", f"{{sys.argv[2]}}{{i}}"])
"""


def test_two_publishers_at_once_lose_no_update(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    both = [python(PUBLISHER, store.root, name) for name in ("a", "b")]
    assert [process.wait() for process in both] == [0, 0]
    assert models(store) == {f"{name}{i}" for name in "ab" for i in range(8)}
    for process in both:
        process.communicate()


ENDLESS = f"""
import itertools, sys
from kvstore.store import Store
store = Store.open(sys.argv[1])
for i in itertools.count():
    with store.publish() as con:
        con.execute({ADD!r}, [f"x{{i}}", f"x{{i}}"])
        con.execute({ADD!r}, [f"y{{i}}", f"y{{i}}"])
    print(i, flush=True)
"""


def test_kill_9_during_a_publish_leaves_the_old_or_the_new_catalog(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    for delay in (0.0, 0.007, 0.021, 0.033):
        before = models(store)
        process = python(ENDLESS.replace("count()", f"count({len(before)})"), store.root)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()
        process.communicate()
        after = models(store)
        names = {name[1:] for name in after}
        assert {
            name[0] + number for name in ("x", "y") for number in names
        } == after  # never half of a publish
        assert set(told) <= names  # what was published stays
    with store.publish():
        pass
    assert not list(store.root.glob("*.tmp*"))


@pytest.mark.parametrize("failing", ["copyfile", "fsync"])
def test_a_full_disk_leaves_the_catalog_unharmed(make_store, monkeypatch, failing):
    store = make_store().store
    before = store.catalog.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr({"copyfile": "shutil.copyfile", "fsync": "os.fsync"}[failing], full)
    with pytest.raises(NoSpaceError, match="no space left"), store.publish() as con:
        con.execute(ADD, ["new", "r1"])
    assert store.catalog.read_bytes() == before
    assert sorted(p.name for p in store.root.iterdir()) == ["catalog.duckdb", "lance", "locks"]


def test_a_publish_is_refused_where_its_copy_has_no_room(make_store, monkeypatch):
    store = make_store().store
    before = store.catalog.read_bytes()
    room = SimpleNamespace(free=len(before) + (1 << 20))
    monkeypatch.setattr("shutil.disk_usage", lambda path: room)
    with pytest.raises(NoSpaceError, match="no space left"), store.publish():
        pass
    assert store.catalog.read_bytes() == before
    assert sorted(p.name for p in store.root.iterdir()) == ["catalog.duckdb", "lance", "locks"]


def test_a_disk_that_duckdb_finds_full_is_told(make_store):
    store = make_store().store
    with pytest.raises(NoSpaceError), store.publish():
        raise duckdb.IOException('Could not write file "x": No space left on device')


# ------------------------------------------------------------------------------------ runs and locks

HOLDER = """
import sys
from kvstore.store import Store
with Store.open(sys.argv[1]).hold(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_held_run_says_who_holds_it_and_is_free_when_its_process_is_killed(make_store):
    store = make_store(runs=("a", "b")).store
    process = python(HOLDER, store.root, "a")
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(StoreBusyError, match=rf"run a is held by process {process.pid} on .+ since 20"),
        store.hold("a"),
    ):
        pass
    with store.hold("b"):
        pass
    process.kill()
    process.communicate()
    with store.hold("a"):
        pass


def test_a_run_whose_process_died_becomes_interrupted_and_a_living_one_does_not(make_store):
    store = make_store(runs=("dead", "alive", "done")).store
    with store.publish() as con:
        con.execute("update run set state = 'running' where run_id <> 'done'")
    with store.hold("alive"):
        assert store.recover() == ["dead"]
    assert {run["run_id"]: run["state"] for run in store.runs()} == {
        "alive": "running",
        "dead": "interrupted",
        "done": "done",
    }


def test_drop_takes_the_run_and_what_only_it_used(make_store):
    store = make_store(runs=("a", "a.b")).store
    with store.publish() as con:
        con.execute(
            "insert into quarantine (run_id, name, position, reason, detail) values ('a', 'x', 0, 'r', 'd')"
        )
    store.drop("a")
    assert [run["run_id"] for run in store.runs()] == ["a.b"]
    assert sorted(p.name for p in store.lance.glob("a.p*")) == ["a.patch_kv.lance", "a.pooled_kv.lance"]
    assert store.drop("a", now=True) > 0
    assert sorted(p.name for p in store.lance.glob("*.lance")) == [
        "a.b.patch_kv.lance",
        "a.b.pooled_kv.lance",
    ]
    with store.connect() as con:
        assert con.execute("select count(*) from patch_kv").fetchone() == (144,)
        assert con.execute("select count(*) from quarantine").fetchone() == (0,)
        assert con.execute("select count(*) from image").fetchone() == (3,)
    store.drop("a.b", now=True)
    with store.connect() as con:
        for table in ("model", "dataset", "dataset_image", "image", "token_grid", "run"):
            assert con.execute(f"select count(*) from {table}").fetchone() == (0,)
    assert list(store.lance.glob("**/*.lance")) == []


def test_drop_of_an_unknown_and_of_a_held_run(make_store):
    store = make_store(runs=("coco-tiny",)).store
    with pytest.raises(UnknownNameError, match="did you mean 'coco-tiny'"):
        store.drop("coco-tin")
    with store.hold("coco-tiny"), pytest.raises(StoreBusyError):
        store.drop("coco-tiny")
    assert len(store.runs()) == 1


def test_optimize_compacts_indexes_and_removes_tables_of_no_run(make_store):
    import lance

    made = make_store(runs=("a", "held"))
    store = made.store
    path = store.lance / "a.patch_kv.lance"
    table = lance.dataset(str(path)).to_table()
    for half in (table.slice(0, 48), table.slice(48)):
        lance.write_dataset(half, str(path), mode="overwrite" if half.num_rows == 48 else "append")
    stores.name_versions(store, "a", {"patch_kv": lance.dataset(str(path)).version})
    (store.lance / "gone.patch_kv.lance").mkdir()
    (store.lance / "late.patch_kv.lance").mkdir()
    dropped = time.time() - 24 * 3600 - 1
    os.utime(store.lance / "gone.patch_kv.lance", (dropped, dropped))
    with store.hold("held"):
        done = store.optimize()
    assert done.pop("late").startswith("dropped; kept for its readers until ")
    assert done == {"a": "optimized", "held": "busy", "gone": "removed"}
    dataset = lance.dataset(str(path))
    assert len(dataset.get_fragments()) == 1
    assert dataset.to_table() == table
    run = next(run for run in store.runs() if run["run_id"] == "a")
    assert run["versions"]["patch_kv"] == dataset.version
    assert not (store.lance / "gone.patch_kv.lance").exists()


@pytest.mark.parametrize("name", ["", "../x", "A", ".hidden", "a/b", "a b", "-x", "x" * 101])
def test_names_that_are_no_run_names_hold_nothing(make_store, name):
    store = make_store().store
    with pytest.raises(UsageError), store.hold(name):
        pass
    with store.hold(run_name(name)):
        pass
