"""A store that somebody sent: its views, macros and links reach no file out of it, by readers or writers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import lance
import pytest

from kvstore import confined, masks, vectors, warehouse
from kvstore.errors import StoreError
from kvstore.store import Store
from tests.attack.test_read_only import KVSTORE, NO_LANDLOCK, SECRET, process
from tests.stores import make_store


@pytest.fixture(scope="module")
def other(tmp_path_factory: Any) -> Path:
    """A store of the one who is attacked, and beside it a secret."""
    root: Path = tmp_path_factory.mktemp("attacked")
    (root / "secret.txt").write_text(SECRET)
    return make_store(root / "other", images=1, layers=(0,), heads=1).store.root


@pytest.fixture
def received(tmp_path: Path) -> Path:
    return make_store(tmp_path / "s", images=1, layers=(0,), heads=1).store.root


def change(store: Path, *statements: str) -> None:
    """What a sender does to the catalog."""
    with duckdb.connect(":memory:", config={"allow_unsigned_extensions": True}) as con:
        con.execute(f"load '{warehouse.extension()}'")
        con.execute(f"set variable kvstore_lance = '{store / 'lance'}'")
        con.execute(f"attach '{store / 'catalog.duckdb'}' as kvstore; use kvstore")
        for statement in statements:
            con.execute(statement)


def everything(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------- views, macros


@pytest.mark.parametrize(
    "trap",
    [
        "create or replace view how_to_read_vectors as select content from read_text('{secret}')",
        "create or replace macro patches(run, image) as table select content from read_text('{secret}')",
        "create or replace view how_to_read_vectors as"
        " select content from query('from read_' || 'text(''{secret}'')')",
    ],
)
def test_no_view_and_no_macro_reads_a_file(received, other, run, trap):
    change(received, trap.format(secret=other.parent / "secret.txt"))
    for text in ("from how_to_read_vectors", "select lower('A')", "from patches('run', 1)"):
        code, out, err = run("sql", text, "--store", received)
        assert SECRET not in out + err
        assert (code, err.count("\n")) in ((2, 1), (0, 0))
    store = Store.open(received)
    with pytest.raises(StoreError, match="reaches for a file out of its store"), store.publish() as con:
        con.execute(f"from read_text('{other.parent / 'secret.txt'}')")
    assert run("runs", "--store", received)[0] == 0


@pytest.mark.parametrize(
    "traps",
    [
        ["create macro lower(x) as (select content from read_text('{secret}'))"],
        ["create macro __lance_scan(path) as table select 1 as a from read_text('{secret}')"],
        [
            "create macro duckdb_views() as table select 'none' as view_name, 'kvstore' as database_name",
            "create table run_ as from run",
            "drop table run cascade",
            "create view run as"
            " select * replace ((select content from read_text('{secret}')) as run_id) from run_",
        ],
        ["create macro duckdb_views() as table select 'none' as view_name from range(100000000000000)"],
    ],
)
def test_no_macro_stands_in_front_of_what_kvstore_itself_calls(received, other, run, traps):
    change(received, *(trap.format(secret=other.parent / "secret.txt") for trap in traps))
    for command in (["sql", "select 1"], ["shell", "-c", "select 1"], ["runs"]):
        code, out, err = run(*command, "--store", received)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert SECRET not in err
        assert "macro with a builtin function's name" in err or "is a view in the catalog" in err


@pytest.mark.parametrize(
    "mask",
    [
        '{"size": [100000, 100000], "counts": "0"}',
        '{"size": [384, 384], "counts": "oooooooooooo"}',
        '{"size": [4, true], "counts": "0"}',
        "[" * 100_000,
        "null",
    ],
)
def test_a_mask_that_is_none_is_told_and_takes_no_memory(mask):
    with pytest.raises(StoreError, match="a mask that is none"):
        masks.to_array(mask)


@NO_LANDLOCK
@pytest.mark.parametrize(
    "program", ["import kvstore.cli; kvstore.cli.main()", "import kvstore.__main__ as k; k.main()"]
)
def test_the_program_is_confined_whichever_way_it_starts(received, other, program):
    (table,) = (other / "lance").glob("*.patch_kv.lance")
    sql = f"select count(*) from query('from __lance' || '_scan(''{table}'')')"
    done = subprocess.run(
        [sys.executable, "-c", program, "sql", sql, "--store", received], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@NO_LANDLOCK
def test_no_view_scans_another_store(received, other):
    """By name, by a name put together, and by an attached folder that a view cannot have."""
    table = other / "lance" / "run.pooled_kv.lance"
    scan = f"select 'run' as run_id, * from query('from __lance' || '_scan(''{table}'')')"
    change(received, f"create or replace view pooled_kv as {scan}")
    before = everything(other)
    done = process(*KVSTORE, "sql", "from pooled_kv", "--store", received)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "SQL reads its store and nothing else" in done.stderr
    done = process(*KVSTORE, "check", "--store", received, "--format", "csv")
    assert done.returncode == 1
    assert "pooled_kv_complete: cannot run: SQL reads its store and nothing else" in done.stderr
    assert everything(other) == before


def test_a_view_in_place_of_a_table_is_refused_by_whoever_opens_the_store(received, run):
    change(
        received,
        "create table kept as from image",
        "drop table image cascade",
        "create view image as from kept",
    )
    for command in (["sql", "from run"], ["runs"], ["check"], ["optimize"], ["drop", "run", "--yes"]):
        code, out, err = run(*command, "--store", received)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "image is a view in the catalog" in err
    change(received, "update store set version = 1")
    assert run("runs", "--store", received)[0] == 2


def test_a_table_in_place_of_a_view_is_told_when_the_catalog_is_changed(received):
    change(received, "drop view patch_kv", "create table patch_kv as select 1 as a")
    wrong = pytest.raises(StoreError, match=r"something else in place of a view: .*patch_kv")
    with wrong, Store.open(received).publish():
        pass


# ------------------------------------------------------------------------------------------------- links

#: What is put in the place of a part of the store: a link to the same part of another.
LINKS = {
    "catalog.duckdb": ["runs"],
    "lance": ["runs"],
    "lance/run.pooled_kv.lance": ["sql", "from run"],
    "lance/run.patch_kv.lance/data": ["drop", "run", "--yes", "--now"],
    "lance/run.patch_kv.lance/_versions": ["drop", "run", "--yes"],
    "lance/run.patch_kv.lance/_transactions": ["drop", "run", "--yes", "--now"],
}


@pytest.mark.parametrize("part", LINKS)
def test_a_link_out_of_the_store_is_refused_before_anything_is_done(received, other, run, part):
    linked = received / part
    shutil.rmtree(linked) if linked.is_dir() else linked.unlink()
    linked.symlink_to(other / part)
    before = everything(other)
    code, out, err = run(*LINKS[part], "--store", received)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{linked} is a link out of the store" in err
    assert everything(other) == before


def test_a_link_among_the_data_of_a_table_is_not_read(received, other):
    (data,) = (received / "lance/run.patch_kv.lance/data").iterdir()
    data.unlink()
    data.symlink_to(next((other / "lance/run.patch_kv.lance/data").iterdir()))
    with pytest.raises(StoreError, match="is a link out of the store"):
        vectors.opened(received / "lance", "run", "patch_kv")


def test_links_within_the_store_and_to_it_are_fine(received, run, tmp_path):
    (received / "mine").symlink_to("lance")
    (tmp_path / "link").symlink_to(received)
    assert run("runs", "--store", tmp_path / "link")[0] == 0


def test_a_lance_table_that_names_data_elsewhere_is_not_read(received, other):
    """Lance's own way of links: a clone has the data files of its origin."""
    table = received / "lance/run.patch_kv.lance"
    shutil.rmtree(table)
    origin = lance.dataset(str(other / "lance/run.patch_kv.lance"))
    origin.shallow_clone(str(table), origin.version)
    with pytest.raises(StoreError, match="data out of its folder"):
        vectors.opened(received / "lance", "run", "patch_kv")


# ------------------------------------------------------------------------------------------ confined threads


@NO_LANDLOCK
def test_a_thread_is_confined_and_the_process_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(confined._Process, "programs", True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a").write_text("a")
    (tmp_path / "b").write_text("b")

    def tried(work: Callable[[], Any]) -> str:
        try:
            return str(work())
        except OSError as error:
            return type(error).__name__

    with confined.thread([tmp_path / "mine"]) as submit:
        found = [
            submit(tried, work).result()
            for work in (
                (tmp_path / "mine/a").read_text,
                (tmp_path / "b").read_text,
                lambda: (tmp_path / "mine/a").write_text("c"),
                lambda: (tmp_path / "mine/a").unlink(),
                lambda: (tmp_path / "new").touch(),
            )
        ]
    assert found == ["a", *["PermissionError"] * 4]
    assert (tmp_path / "b").read_text() == "b"
    (tmp_path / "new").touch()
