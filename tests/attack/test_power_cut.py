"""A power cut takes files of the last commits: the same command ends as if it had not been.

All files of both last commits are tried on the tables alone, each lost, empty or cut short in turn; some of
them, and the catalog, by the command. `tests/fuzz/power_cuts.py` does all of it in all ways by the command.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from kvstore import pins, repair, verify
from kvstore.errors import StoreError
from kvstore.prefill import record
from kvstore.report.published import Published
from kvstore.store import Store
from kvstore.vectors import salvage as salvaging
from kvstore.vectors import whole
from kvstore.vectors.salvage import Promised, complaints, salvage
from tests import power_cuts
from tests.ingesting import rows
from tests.power_cuts import IMAGES, KINDS, RUN, TEXTS, World

LAST = [2, 3]  # the images of the last window


@pytest.fixture(scope="module")
def published() -> list[list[Path]]:
    """Of each publish of a catalog while the world was made: what it named that was not on disk."""
    return []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, published: list[list[Path]]) -> Iterator[World]:
    def seen(aside: Path, target: Path) -> None:
        if target.name == "catalog.duckdb":
            found = {aside, *power_cuts.named_files(aside, target.parent / "lance")}
            published.append(sorted(path for path in found if syncs.may_lose(path)))

    with power_cuts.loaded_once():
        with power_cuts.Syncs(seen) as syncs:
            made = World.make(tmp_path_factory.mktemp("world"))
            optimized = power_cuts.copy(made.ended, tmp_path_factory.mktemp("optimized") / "s")
            Store(power_cuts.sync(optimized)).optimize()
        yield made


def test_a_catalog_is_put_in_place_when_all_that_it_names_is_on_disk(
    world: World, published: list[list[Path]]
) -> None:
    assert len(published) > 15
    assert [paths for paths in published if paths] == []


def test_a_report_is_put_in_place_when_all_that_it_names_is_on_disk(tmp_path: Path) -> None:
    lost: list[tuple[Path, list[Path]]] = []

    def seen(aside: Path, target: Path) -> None:
        needs = [aside, *aside.iterdir()] if aside.is_dir() else [aside]
        needs += [*(tmp_path / "reports" / "r").glob("key/*"), *(tmp_path / "reports").glob("*.html")]
        lost.append((target, [path for path in needs if syncs.may_lose(path)]))

    with power_cuts.Syncs(seen) as syncs:
        Published(tmp_path).publish("r", {"key": "key"}, {"a.png": b"a", "b.parquet": b"b"}, b"page")
    places = [target.relative_to(tmp_path / "reports").as_posix() for target, _ in lost]
    assert places == ["r/key", "r.html", "r/build.json"]
    assert [paths for _, paths in lost if paths] == []


def assert_as_if_nothing_had_been(store: Store, world: World) -> None:
    assert power_cuts.differences(store, world.straight) == []
    assert_sound(store)


def assert_sound(store: Store) -> None:
    assert [finding for finding in store.check() if not finding.ok] == []
    found = [part for task in repair.tasks(store) for part in verify.read(task)]
    assert [part for part in found if isinstance(part, verify.Broken) and part.why] == []
    assert found[-1] == 0  # every part has a checksum


def promised(world: World, store: Store) -> Promised:
    (run,) = store.runs()
    with store.tables() as con:
        patches = record.patches(con, RUN)
    return Promised(RUN, run["versions"], world.plans[IMAGES].shape, patches)


# ------------------------------------------------------------------------------------ the tables alone


@pytest.mark.parametrize(("name", "before"), [("store", "before"), ("ended", "store")])
def test_each_file_of_the_last_commit_lost_empty_or_cut_costs_no_more_than_that_commit(
    world: World, tmp_path: Path, name: str, before: str
) -> None:
    source = getattr(world, name)
    said = promised(world, Store(source))
    files = world.last_commit(source, getattr(world, before))
    assert set(files) >= ({*KINDS, *TEXTS} if name == "store" else {"patch_kv", "pooled_kv", "key_moment"})
    whole_rows = {kind: rows(Store(source), RUN, kind) for kind in (*KINDS, *TEXTS)}
    for number, (kind, file) in enumerate(power_cuts.needed(files)):
        how = power_cuts.HOW[number % 3]
        named = pins.manifest(said.versions.get(kind, 1)).rpartition("/")[2]
        if kind in said.versions and file.suffix == ".manifest" and file.name != named:
            continue  # of a version before the one that the catalog names
        lance_dir = power_cuts.copy(source / "lance", tmp_path / f"{number}")
        power_cuts.cut(lance_dir / file.relative_to("lance"), how)
        lost = complaints(lance_dir, said)
        assert set(lost) == {kind} - {"key_moment"}, (file, how)
        if lost:
            kept = salvage(lance_dir, said, lost)
            gone = LAST if name == "store" and kind in KINDS else []
            assert kept.gone == gone, (file, how)
            there = whole_rows if kind != "checksum_text" else {kind: whole_rows[kind] for kind in KINDS}
            assert_cut(lance_dir, there, gone, kind if kind in TEXTS else "")
            assert len(list(lance_dir.glob("*.text_*.lance"))) == len(set(there) & set(TEXTS))
            patches = {image: n for image, n in said.patches.items() if image not in gone}
            assert complaints(lance_dir, Promised(RUN, kept.versions, said.shape, patches)) == {}
        shutil.rmtree(lance_dir)


def assert_cut(lance_dir: Path, before: Mapping[str, pa.Table], gone: list[int], text: str) -> None:
    """The rows of all images but those that are gone, as they were; of a text table the first text."""
    for kind, table in before.items():
        opened = whole.newest(lance_dir / f"{RUN}.{kind}.lance")
        assert opened is not None
        found = opened.to_table()
        if kind == text:
            assert found == table.slice(0, found.num_rows)
            assert set(found["text"].to_pylist()) == {"cat"}
        elif kind in TEXTS:
            assert found == table
        else:
            assert found == table.filter([image not in gone for image in table["image_id"].to_pylist()])


def test_what_was_stored_long_before_the_last_commit_is_not_made_again(world: World, tmp_path: Path) -> None:
    """A disk has taken it, and repair takes out what is broken, no more."""
    store = Store(power_cuts.copy(world.ended, tmp_path / "s"))
    (first,) = [
        file for file in world.last_commit(world.before, tmp_path)["patch_kv"] if "data" in file.parts
    ]
    (store.root / first).unlink()
    hour = store.catalog.stat().st_mtime - 3600
    for file in world.before.glob("lance/*.lance/_versions/*.manifest"):
        os.utime(store.root / file.relative_to(world.before), (hour, hour))
    told = rf"patch_kv of run '{RUN}' is broken: {first.name} is missing.*kvstore repair {RUN}$"
    before = sorted(store.lance.rglob("*"))
    with pytest.raises(StoreError, match=told):
        world.resume(store.root)
    assert sorted(store.lance.rglob("*")) == before
    assert repair.repair(store, RUN).images == [0, 1]
    assert world.resume(store.root).images == 2
    # The order of rows, and so the places of images, are others now.
    assert set(power_cuts.differences(store, world.straight)) <= {f"{kind} in Lance" for kind in KINDS}
    assert_sound(store)


def test_a_version_that_is_gone_is_a_compaction_where_a_newer_one_has_all_rows(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvaging, "RECENT", -1.0)  # nothing may be taken back
    store = Store(power_cuts.copy(world.ended, tmp_path / "s"))
    said = promised(world, store)
    before = store.catalog.read_bytes()
    store.optimize()
    store.catalog.write_bytes(before)  # the catalog that the optimize wrote is lost
    for kind in KINDS:
        manifest = store.lance / f"{RUN}.{kind}.lance" / pins.manifest(said.versions[kind])
        assert pins.versions(manifest.parents[1])[0] > said.versions[kind]
        manifest.unlink()
    kept = salvage(store.lance, said, complaints(store.lance, said))
    assert kept.gone == []
    assert_cut(store.lance, {kind: rows(world.straight, RUN, kind) for kind in (*KINDS, *TEXTS)}, [], "")


# ------------------------------------------------------------------------------------- by the command


def take(world: World, root: Path, wanted: Mapping[str, str], part: str) -> None:
    """Take files of the last commit that are in a folder of this name: table -> how."""
    source, before = (world.store, world.before) if part != "_indices" else (world.ended, world.store)
    for kind, file in power_cuts.needed(world.last_commit(source, before)):
        if kind in wanted and part in file.parts:
            power_cuts.cut(root / file, wanted[kind])


CUTS: dict[str, list[tuple[Mapping[str, str], str]]] = {
    "the manifest of the images' places": [({"patch_span": "lost"}, "_versions")],
    "much": [
        ({"patch_kv": "empty", "pooled_kv": "cut", "text_kv": "empty"}, "_versions"),
        ({"patch_input": "empty", "patch_encoder": "lost", "checksum": "zeros", "text_input": "cut"}, "data"),
    ],
}


@pytest.mark.parametrize("name", CUTS)
def test_the_same_command_makes_again_what_a_power_cut_took(world: World, tmp_path: Path, name: str) -> None:
    root = power_cuts.copy(world.store, tmp_path / "s")
    for wanted, part in CUTS[name]:
        take(world, root, wanted, part)
    outcome = world.resume(root, texts=["cat", "dog"])
    assert (outcome.images, outcome.already) == (2, 2)
    assert outcome.salvaged
    assert outcome.salvaged.gone == LAST
    assert_as_if_nothing_had_been(Store(root), world)


def test_what_the_end_of_an_ingest_made_is_made_again(world: World, tmp_path: Path) -> None:
    root = power_cuts.copy(world.ended, tmp_path / "s")
    take(world, root, {"patch_kv": "lost", "pooled_kv": "cut", "patch_input": "zeros"}, "_indices")
    for file in world.last_commit(world.ended, world.store)["key_moment"]:
        power_cuts.cut(root / file, "empty")
    assert world.resume(root).images == 0
    assert_as_if_nothing_had_been(Store(root), world)


def test_an_older_catalog_with_newer_tables_ends_right(world: World, tmp_path: Path) -> None:
    """The rename of the newest catalog did not reach the disk; what it was renamed from is left over."""
    root = power_cuts.copy(world.store, tmp_path / "s")
    (root / "catalog.duckdb").rename(root / "catalog.duckdb.77.0.tmp")
    shutil.copy2(world.before / "catalog.duckdb", root / "catalog.duckdb")
    (root / "catalog.duckdb.77.0.tmp.wal").write_bytes(b"half")
    assert world.resume(root, texts=["cat", "dog"]).images == 2
    assert not list(root.glob("catalog.duckdb.*"))
    assert_as_if_nothing_had_been(Store(root), world)


@pytest.mark.parametrize("how", ["lost", "empty"])
def test_a_catalog_that_is_lost_is_told_and_the_vectors_stay(world: World, tmp_path: Path, how: str) -> None:
    root = power_cuts.copy(world.ended, tmp_path / "s")
    power_cuts.cut(root / "catalog.duckdb", how)
    before = sorted(root.rglob("*"))
    for create in (True, False):
        with pytest.raises(StoreError, match=r"catalog\.duckdb.*backup"):
            Store.open(root, create=create)
    assert sorted(root.rglob("*")) == before
