"""The DuckDB side: views over Lance tables, comments, pushed filters, the extension."""

from __future__ import annotations

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


def test_the_catalog_cannot_be_written_through_a_reader(make_store):
    with make_store().store.connect() as con, pytest.raises(Exception, match="read-only"):
        con.execute("delete from run")


def test_an_extension_of_another_duckdb_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr("duckdb.__version__", "9.9.9")
    with pytest.raises(
        StoreError, match=r"DuckDB 9\.9\.9 \(installed: for v1.*pip install duckdb-extension-lance==9\.9\.9"
    ):
        warehouse.extension()
