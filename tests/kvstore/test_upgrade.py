"""A store of an older format: it is brought up when it is opened, and nothing in it changes its meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvstore import query
from kvstore.errors import StoreError
from kvstore.store import FORMAT, Store
from tests.stores import Made

Make = Callable[..., Made]


def aged(made: Made) -> None:
    """Take the store back to format 1, with predictions and figures as that kvstore wrote them."""
    with made.store.publish() as con:
        con.execute("insert into match values ('run', 'x', 1, 'eye', 'value', 0, 0, 3, 5, 6, 0.5)")
        con.execute("alter table match drop column probe")
        for column in ("follow_links", "annotations"):
            con.execute(f"alter table dataset drop column {column}")
        for probe in ("tracking", "referring"):
            con.execute(
                "insert into mask (run_id, probe, image_id, label, number, site, layer, mask, predicted,"
                " truth, shared, valid) values ('run', ?, 1, 'one', 1, 'value', 0, '{}', 1, 1, 1, 1)",
                [probe],
            )
            con.execute(
                "insert into score values ('run', ?, 'j', 'value', 0, 0, 0.66, 0.6, 0.7, 9, null)", [probe]
            )
        con.execute("alter table score drop column units")
        con.execute("drop table key_stat")
        con.execute(
            "create table key_stat (run_id varchar, rows integer, columns integer, grid tinyint,"
            " layer smallint, head smallint, patch integer, n integer, mean_square double,"
            " square_mean double, variance double not null,"
            " primary key (run_id, rows, columns, grid, layer, head, patch))"
        )
        con.execute("insert into key_stat values ('run', 3, 4, 0, 0, 0, 7, 3, 4, 1, 3)")
        con.execute("insert into key_stat values ('run', 3, 4, 1, 0, 0, 7, 2, 4, 1, 3)")  # of 1 + 1 images
        con.executemany(
            "insert into token_grid values ('run', ?, 1, 3, 4, 0, 0, 9, 9, 12, ?, 4, 1, 1)",
            [(1, 12), (2, 13)],
        )
        con.execute("drop table load_note")
        con.execute("update store set version = 1")


def all_of(store: Store, sql: str) -> list[tuple[Any, ...]]:
    with store.connect() as con:
        return con.execute(sql).fetchall()


@pytest.fixture
def old(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> Made:
    made = make_store()
    from kvstore import warehouse

    with monkeypatch.context() as before:
        before.setattr(warehouse, "_define", lambda *_: None)  # that kvstore's macros know no column probe
        aged(made)
    return made


def test_tables_that_came_since_are_there_and_empty(old: Made) -> None:
    store = Store.open(old.store.root)
    assert all_of(store, "select count(*) from load_note") == [(0,)]
    assert query.run_analysis(store, "load_notes").num_rows == 1  # what the store holds: images


def test_figures_that_left_void_out_are_called_so(old: Made) -> None:
    store = Store.open(old.store.root)
    assert all_of(store, "select version from store") == [(FORMAT,)]
    for table in ("mask", "score"):
        found = all_of(store, f"select probe from {table} order by all")
        assert found == [("referring",), ("tracking-void-out",)]
    assert all_of(store, "select value from score where probe = 'tracking-void-out'") == [(0.66,)]


def test_matches_are_of_the_patch_variant_and_their_columns_are_told(old: Made) -> None:
    store = Store.open(old.store.root)
    assert all_of(store, "select probe, pair_id, x, y from match") == [("correspondence", 1, 5.0, 6.0)]
    told = all_of(
        store,
        "select column_name from duckdb_columns() where table_name = 'match' and comment is null",
    )
    assert told == []


def test_key_statistics_stay_where_all_their_images_have_the_same_positions(old: Made) -> None:
    store = Store.open(old.store.root)
    found = all_of(store, "select grid, first_position, row_stride, patch, n, variance from key_stat")
    assert found == [(0, 0, 4, 7, 3, 3.0)]


def test_intervals_over_items_go_and_figures_stay(old: Made) -> None:
    store = Store.open(old.store.root)
    found = all_of(store, "select value, low, high, n, units from score")
    assert found == [(0.66, None, None, 9, None)] * 2


def test_a_store_made_while_format_2_was_new_gets_the_column_that_it_lacks(make_store: Make) -> None:
    made = make_store()
    with made.store.publish() as con:
        con.execute("alter table dataset drop column follow_links")
        con.execute("update store set version = 2")
    assert all_of(Store.open(made.store.root), "select follow_links, annotations from dataset") == [
        (False, None)
    ]


def test_it_is_done_once(old: Made) -> None:
    Store.open(old.store.root)
    before = old.store.catalog.stat().st_mtime_ns
    store = Store.open(old.store.root)
    assert store.catalog.stat().st_mtime_ns == before


def test_a_store_that_cannot_be_written_is_told_so(old: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(old.store.root))

    monkeypatch.setattr("kvstore.store.shutil.copyfile", refused)
    with pytest.raises(
        StoreError, match=r"is of an older format and cannot be upgraded: .*Permission denied"
    ) as caught:
        Store.open(old.store.root)
    assert "\n" not in str(caught.value)
