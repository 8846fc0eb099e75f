"""Each check finds what it is for, and nothing in a sound store."""

from __future__ import annotations

import shutil

import lance
import pytest

from kvstore import check, recipes
from kvstore.check import Finding
from kvstore.errors import LeftOutWarning
from tests import dying, stores


def failing(store) -> dict[str, Finding]:
    return {finding.check: finding for finding in store.check() if not finding.ok}


@pytest.mark.parametrize(
    "sites", [("value", "key"), ("value",), ("key",), ("input",), ("value", "key", "input", "encoder")]
)
def test_a_sound_store_has_no_findings(make_store, sites):
    assert failing(make_store(runs=("a", "b"), sites=sites, layers=(0, 3)).store) == {}


def test_a_store_without_runs_has_no_findings(make_store):
    assert failing(make_store(runs=()).store) == {}


def rewrite(store, table, change):
    """Put `change(rows)` in the place of a Lance table's rows."""
    path = str(store.lance / f"run.{table}.lance")
    made = lance.write_dataset(change(lance.dataset(path).to_table()), path, mode="overwrite")
    stores.name_versions(store, "run", {table: made.version})


def swapped(rows):
    """The first row twice, the second not at all: counts stay right."""
    return rows.take([0, 0, *range(2, len(rows))])


TABLES = ["patch_kv", "pooled_kv", "patch_input", "patch_encoder"]
EVERY = ("value", "key", "input", "encoder")


@pytest.mark.parametrize(
    "change",
    [lambda rows: rows.slice(1), lambda rows: rows.take([0, *range(len(rows))]), swapped],
    ids=["missing", "twice", "swapped"],
)
def test_a_wrong_row_is_found_in_every_table(make_store, change):
    store = make_store(sites=EVERY).store
    for table in TABLES:
        rewrite(store, table, change)
    found = failing(store)
    for table in TABLES:
        assert found[f"{table}_complete"].rows == 1
        assert "image_id=1" in found[f"{table}_complete"].first


def test_vectors_of_an_image_that_the_catalog_does_not_know(make_store):
    store = make_store(sites=EVERY).store
    with store.publish() as con:
        con.execute("delete from token_grid where image_id = 3")
    found = failing(store)
    assert found.keys() == {"stray_vectors", "run_images"}
    assert found["stray_vectors"].rows == 4
    with store.publish() as con:  # an interrupted run may be ahead of the catalog
        con.execute("update run set state = 'interrupted', images = 2")
    assert failing(store) == {}


WRONG = {
    "token_grid_gapless": (
        "update token_grid set first_patch = 1 where image_id = 2",
        "update token_grid set grid = 1 where image_id = 3",
    ),
    "run_images": ("update run set images = 5",),
    "image_identity": ("update image set sha256 = 'abc' where image_id = 1",),
    "no_orphans": (
        "insert into object values ('set', 1, 77, 'cat', 0, 0, 1, 1, 1, false, null)",
        "insert into match values ('lost', 'correspondence', 1, 'eye', 'value', 0, 0, 1, 1, 1, 1)",
        "insert into match values ('run', 'correspondence', 1, 'eye', 'value', 0, 0, 1, 1, 1, 1)",
        "insert into segment values ('run', 'p', 77, 'key', 0, 0, '1', '1')",
        "insert into pair values ('set', 1, 'cat', 1, 77, 0, 0, 1, 1, 0, 0, 1, 1)",
    ),
    "segment_sound": (
        "insert into segment values ('run', 'p', 1, 'key', 0, 0, '01', '000000000000')",  # of 3 x 4 patches
        "insert into segment values ('run', 'q', 1, 'key', 0, 0, '000000000000', '01')",
        "insert into segment select 'run', 'p', 2, 'key', 0, null, bit_mask, bit_mask"
        " from (select '000000000001'::bit as bit_mask), range(2)",
    ),
    "key_stat_sound": (
        # more and fewer images than the run has; a negative variance; a variance of one image
        "insert into key_stat values ('run', 3, 4, 0, 0, 4, 0, 0, 0, 4, 1, 1, 0)",
        "insert into key_stat values ('run', 3, 4, 0, 0, 4, 0, 1, 0, 1, 1, 1, null)",
        "insert into key_stat values ('run', 3, 4, 0, 0, 4, 1, 0, 0, 2, 1, 2, -1)",
        "insert into key_stat values ('run', 3, 4, 0, 0, 4, 1, 1, 0, 1, 1, 1, 0)",
    ),
}


def test_a_wrong_catalog_is_found(make_store):
    store = make_store().store
    with store.publish() as con:
        for statements in WRONG.values():
            for statement in statements:
                con.execute(statement)
    assert {name: f.rows for name, f in failing(store).items()} == {k: len(v) for k, v in WRONG.items()}


def test_means_that_are_not_the_patches_means(make_store):
    made = make_store()
    vectors = {site: array.copy() for site, array in made.vectors["run"].items()}
    vectors["value"][0, 1, 0, :, :] += 1  # patches of image 1, layer 1, head 0 only
    pooled = made.store.lance / "run.pooled_kv.lance"
    old = pooled.rename(made.store.root / "old")
    shutil.rmtree(made.store.lance / "run.patch_kv.lance")
    versions = stores.write_tables(made.store.lance, "run", vectors, made.layers, made.image_ids)
    shutil.rmtree(pooled)
    old.rename(pooled)
    stores.name_versions(made.store, "run", {"patch_kv": versions["patch_kv"]})
    found = failing(made.store)
    assert found.keys() == {"pooled_is_mean"}
    assert "layer=1, head=0" in found["pooled_is_mean"].first


# ------------------------------------------------------------------------------------ what is broken


def test_a_table_that_cannot_be_read_is_told_and_the_other_checks_are_made(make_store):
    store = make_store(sites=EVERY).store
    (data,) = (store.lance / "run.patch_input.lance" / "data").iterdir()
    data.write_bytes(data.read_bytes()[:100])
    found = {finding.check: finding for finding in check.findings_apart(store.catalog, store.lance)}
    assert found.keys() == {"tables of run", *recipes.listing("sql/checks", ".sql")}
    broken = {name: finding.first for name, finding in found.items() if not finding.ok}
    assert broken.keys() == {"tables of run", "patch_input_complete"}
    told = broken["tables of run"]
    assert told.startswith("patch_input of run 'run' cannot be read: ")
    assert told.endswith("; kvstore repair run")
    assert len(told) <= 300
    with pytest.warns(LeftOutWarning):
        assert found == {finding.check: finding for finding in store.check()}


def test_an_abort_ends_one_check_and_not_the_command(make_store, monkeypatch):
    store = make_store(sites=EVERY).store
    monkeypatch.setattr(check, "read", dying.checks)
    found = {finding.check: finding for finding in check.findings_apart(store.catalog, store.lance)}
    assert found.keys() == recipes.listing("sql/checks", ".sql").keys()
    assert [name for name, finding in found.items() if not finding.ok] == [dying.AT]
    assert "ended by SIGABRT" in found[dying.AT].first
