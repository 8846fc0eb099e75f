"""The DuckDB side: views over Lance tables, comments, pushed filters, the extension."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from kvstore import warehouse
from kvstore.errors import StoreError
from kvstore.store import Store


def test_views_show_every_runs_vectors(make_store):
    made = make_store(runs=("a", "b.1-x"), sites=("value", "key", "input", "encoder"))
    with made.store.connect() as con:
        for run, vectors in made.vectors.items():
            for site in ("key", "value"):
                rows = con.execute(
                    f"select {site} from patch_kv where run_id = $run order by image_id, layer, head, patch",
                    {"run": run},
                ).fetchall()
                assert np.array_equal(np.array(rows)[:, 0], vectors[site].reshape(len(rows), -1))
            for view, site in (("patch_input", "input"), ("patch_encoder", "encoder")):
                rows = con.execute(f"select feature from {view} where run_id = $run", {"run": run}).fetchall()
                assert np.array_equal(np.array(rows)[:, 0], vectors[site].reshape(len(rows), -1))


def test_a_site_that_was_not_stored_is_null(make_store):
    made = make_store(sites=("value",))
    with made.store.connect() as con:
        assert con.execute("select count(key), count(value), count(*) from patch_kv").fetchone() == (
            0,
            144,
            144,
        )
        assert con.execute("select count(key_norm), count(value_norm) from pooled_kv").fetchone() == (0, 12)


def test_a_store_without_runs_has_empty_views_of_the_same_columns(tmp_path, make_store):
    empty = Store.open(tmp_path / "empty", create=True)
    full = make_store().store
    with empty.connect() as one, full.connect() as two:
        for view in warehouse.TABLES:
            described = [con.execute(f"describe {view}").fetchall() for con in (one, two)]
            assert described[0] == described[1]
            assert one.execute(f"select count(*) from {view}").fetchone() == (0,)


def test_a_run_without_a_commit_is_left_out(make_store):
    made = make_store(runs=("a", "b"))
    with made.store.publish() as con:
        con.execute("update run set versions = map([]::varchar[], []::bigint[]) where run_id = 'b'")
    with made.store.connect() as con:
        assert con.execute("select distinct run_id from patch_kv").fetchall() == [("a",)]


FILTERS = [
    "run_id = 'a'",
    "run_id in ('a', 'b') and layer = 1",
    "image_id = 2",
    "image_id in (1, 3)",
    "image_id <> 2 and head = 0",
    "image_id = 2 and layer = 1 and head = 1 and patch = 5",
    "patch between 3 and 7",
    "image_id in (select image_id from image where image_id > 1)",
    "layer = (select max(layer) from patch_kv)",
    "list_contains([1, 3], image_id)",
    "key is null",
    "image_id is not null and patch % 2 = 1",
    "key[1] > 0.5",
]


def test_a_filter_that_is_pushed_into_lance_gives_what_an_unpushed_one_gives(make_store):
    with make_store(runs=("a", "b")).store.connect() as con:
        con.execute("create temp table unpushed as from patch_kv")
        for where in FILTERS:
            count, total = "count(*)", "sum(image_id * 1000 + layer * 100 + head * 10 + patch)"
            pushed, unpushed = (
                con.execute(f"select {count}, {total} from {source} where {where}").fetchone()
                for source in ("patch_kv", "unpushed")
            )
            assert (where, pushed) == (where, unpushed)


def test_every_table_view_column_and_macro_has_a_comment(make_store):
    with make_store().store.connect() as con:
        missing = con.execute(
            "select table_name from duckdb_tables() where database_name = 'kvstore' and comment is null"
            " union all select view_name from duckdb_views()"
            " where database_name = 'kvstore' and not internal and comment is null"
            " union all select table_name || '.' || column_name from duckdb_columns()"
            " where database_name = 'kvstore' and not internal and comment is null"
            " union all select function_name from duckdb_functions()"
            " where database_name = 'kvstore' and not internal and comment is null"
        ).fetchall()
        assert missing == []
        assert con.execute(
            "select count(*) from duckdb_columns() where database_name = 'kvstore'"
        ).fetchone() > (150,)


def harms() -> Iterator[str]:
    """What deletes, adds or changes rows, tried on every table, every view and a run's Lance table."""
    vectors = ("patch_kv", 'kv.main."run.patch_kv"', 'kv."run.patch_kv"', '"run.patch_kv"')
    for name in (*vectors, *warehouse.TABLES, "run", "image", "token_grid", "match", "score", "store"):
        yield f"drop table {name}"
        yield f"drop view {name}"
        yield f"delete from {name}"
        yield f"insert into {name} select * from {name}"
        yield f"update {name} set image_id = 0"
        yield f"truncate {name}"
        yield f"alter table {name} rename to gone"
    yield "create or replace view kvstore.patch_kv as select 1"
    yield "create or replace table kvstore.run as select 1 as run_id"
    yield "copy kvstore.run from '/dev/null'"
    yield "drop schema kvstore.main cascade"


def test_a_reader_can_harm_nothing(make_store):
    made = make_store(sites=("value", "key", "input", "encoder"))
    before = files(made.store.root)
    with made.store.connect() as con:
        for statement in harms():
            with pytest.raises(duckdb.Error):
                con.execute(statement)
        assert con.execute("select count(*) from patch_kv").fetchone() == (144,)
    assert files(made.store.root) == before


def files(root: Path) -> dict[str, bytes]:
    """Every file under a folder and its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_nothing_that_can_be_written_is_attached(make_store):
    with make_store().store.connect() as con:
        attached = con.execute(
            "select database_name, type, readonly from duckdb_databases() where not internal order by all"
        ).fetchall()
    assert attached == [("kvstore", "duckdb", True), ("memory", "duckdb", False)]


def test_the_catalog_names_no_folder(make_store):
    made = make_store()
    moved = Store.open(made.store.root.rename(made.store.root.with_name("moved")))
    with moved.connect() as con:
        assert con.execute("select count(*) from patch_kv").fetchone() == (144,)
        views = con.execute("select string_agg(sql) from duckdb_views() where not internal").fetchone()
    assert views
    assert str(made.store.root.parent) not in views[0]


def test_a_filter_on_one_image_uses_the_zone_map(make_store):
    with make_store().store.connect() as con:
        plan = con.execute(
            "explain select value from patch_kv where run_id = 'run' and image_id = 3 and layer = 1"
        ).fetchall()[0][1]
    assert "image_id_idx" in re.sub(r"[^a-z_]", "", plan)


def test_no_progress_bar_is_drawn_among_a_scripts_output(make_store):
    code = (
        f"from kvstore import Store; con = Store.open({str(make_store(images=1).store.root)!r}).connect()\n"
        "print(con.execute(\"select current_setting('enable_progress_bar')\").fetchone())"
    )  # with -c, as in a notebook, DuckDB would draw one
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(False,)\n"


def test_an_extension_of_another_duckdb_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr("duckdb.__version__", "9.9.9")
    with pytest.raises(
        StoreError, match=r"DuckDB 9\.9\.9 \(installed: for v1.*pip install duckdb-extension-lance==9\.9\.9"
    ):
        warehouse.extension()


def test_a_catalog_that_is_opened_alone_says_how_to_read_the_vectors(make_store):
    store = make_store().store
    with duckdb.connect(str(store.catalog), read_only=True) as bare:
        for text in (
            "from patch_kv",
            "select count(*) from pooled_kv",
            "from run_vectors('run', 'patch_kv')",
        ):
            with pytest.raises(duckdb.CatalogException, match="kvstore shell --store DIR has it"):
                bare.execute(text)
        assert ("how_to_read_vectors",) in bare.execute("show tables").fetchall()
        told = bare.execute("select comment from duckdb_views() where view_name = 'patch_kv'").fetchone()
        assert told[0].endswith("see how_to_read_vectors")
        steps = bare.execute("select command from how_to_read_vectors order by step").fetchall()
    assert steps[1:] == [
        ("kvstore shell --store DIR --print-init > init.sql",),
        ("duckdb -init init.sql",),
    ]
    with store.connect() as con:  # with the extension its own function is the one that is called
        assert con.execute("select count(*) from patch_kv").fetchone() == (3 * 2 * 2 * 12,)
