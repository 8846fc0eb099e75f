"""One run of a store is broken: it is named and left out, and the other runs work."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore import check, optimizing, recipes, shell, vectors
from kvstore.errors import LeftOutWarning, NoSpaceError, StoreError
from kvstore.query import run_analysis, run_sql
from kvstore.store import Store
from tests import dying, stores

COUNT = "select run_id, count(*) as n from patch_kv group by run_id order by run_id"
#: Rows of patch_kv: images x layers x heads x patches.
ROWS = 3 * 2 * 2 * 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same images."""
    return stores.make_store(tmp_path_factory.mktemp("whole") / "store", runs=("a", "b")).store.root


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Store:
    """A copy to break, with links as in the original: a pin's manifest is the table's."""
    subprocess.run(["cp", "-a", whole, tmp_path / "store"], check=True)
    return Store.open(tmp_path / "store")


def _lost(file: Path) -> None:
    file.unlink()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for at in range(len(data) // 3, len(data) // 3 + 16):
        data[at] ^= 0x5A
    file.write_bytes(data)


def _flipped_near_the_end(file: Path) -> None:
    """In the metadata of a data file, over which DuckDB may abort; its size stays."""
    data = bytearray(file.read_bytes())
    data[-500] ^= 0x5A
    file.write_bytes(data)


PIN = "at/a.patch_kv.*.lance/_versions/*.manifest"
DATA = "a.patch_kv.lance/data/*"
INDEX = "a.patch_kv.lance/_indices/*/*"
BROKEN = [
    pytest.param(pattern, harm, id=f"{name}-{harm.__name__[1:]}")
    for name, pattern, harms in (
        ("manifest", PIN, (_empty, _cut, _flipped)),
        ("data", DATA, (_lost, _empty, _cut, _flipped_near_the_end)),
        ("index", INDEX, (_lost, _empty, _cut, _flipped)),
    )
    for harm in harms
]
Harm = Callable[[Path], None]


def spoil(store: Store, pattern: str, harm: Harm) -> None:
    (file,) = store.lance.glob(pattern)
    harm(file)


def counts(store: Store) -> dict[str, int]:
    return {row["run_id"]: row["n"] for row in run_sql(store, COUNT).to_pylist()}


@pytest.mark.parametrize(("pattern", "harm"), BROKEN)
def test_views_show_the_other_runs_and_the_broken_one_is_named(
    store: Store, pattern: str, harm: Harm
) -> None:
    spoil(store, pattern, harm)
    with pytest.warns(LeftOutWarning) as told:
        assert counts(store) == {"b": ROWS}
    (line,) = {str(warning.message) for warning in told}
    assert line.startswith("patch_kv of run 'a' is left out: ")
    assert line.endswith("; kvstore repair a")
    assert len(line) <= 300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_sql(store, "select count(*) from patch_kv where run_id = 'b' and image_id = 2")
        run_sql(store, "from pooled_kv limit 1")
        run_analysis(store, "best_layer", {"run": "b"})  # a part of it has the name left_out
    with pytest.warns(LeftOutWarning):  # also by a macro, whose conditions are false without rows
        run_sql(store, "from patch_neighbours('a', 1, 0, 0, 2, 'value', 5)")
    with pytest.raises(StoreError, match=r"patch_kv of run 'a' cannot be read: .*; kvstore repair a"):
        store.optimize_run("a")
    assert store.optimize_run("b") == "optimized"
    store.drop("a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counts(store) == {"b": ROWS}


def test_an_older_version_does_not_stand_for_one_that_is_lost(store: Store) -> None:
    """It may have fewer rows."""
    newest = min((store.lance / "a.patch_kv.lance" / "_versions").glob("*.manifest"))
    (pin,) = store.lance.glob("at/a.patch_kv.*.lance")
    newest.unlink()
    shutil.rmtree(pin)
    with pytest.warns(LeftOutWarning, match=r"patch_kv of run 'a' is left out: .* is not there; kvstore"):
        assert counts(store) == {"b": ROWS}
    with pytest.raises(StoreError, match=r"patch_kv of run 'a' cannot be read: .* is not there; kvstore"):
        vectors.opened(store.lance, "a", "patch_kv", store.runs()[0]["versions"])


@pytest.mark.parametrize("harm", [_lost, _empty, _flipped])
def test_a_broken_transaction_file_harms_no_reader(store: Store, harm: Harm) -> None:
    for file in (store.lance / "a.patch_kv.lance" / "_transactions").iterdir():
        harm(file)
    assert counts(store) == {"a": ROWS, "b": ROWS}
    assert store.optimize_run("a") == "optimized"


def test_a_pin_that_is_gone_is_made_anew_and_the_table_is_read_meanwhile(store: Store) -> None:
    (pin,) = store.lance.glob("at/a.patch_kv.*.lance")
    shutil.rmtree(pin)
    assert counts(store) == {"a": ROWS, "b": ROWS}
    with store.publish():
        pass
    assert pin.is_dir()


def test_a_pin_without_its_links_is_mended_by_the_next_publish(store: Store) -> None:
    (link,) = store.lance.glob("at/a.patch_kv.*.lance/data")
    link.unlink()
    with pytest.warns(LeftOutWarning):
        assert counts(store) == {"b": ROWS}
    with store.publish():
        pass
    assert counts(store) == {"a": ROWS, "b": ROWS}


def test_a_pin_is_better_than_a_tables_manifest_that_is_broken(store: Store) -> None:
    newest = min((store.lance / "a.patch_kv.lance" / "_versions").glob("*.manifest"))
    data = newest.read_bytes()
    newest.unlink()  # else the pin's is the same file
    newest.write_bytes(data[:50])
    with store.publish():
        pass
    assert counts(store) == {"a": ROWS, "b": ROWS}


def test_a_table_without_a_seal_is_opened_to_see(store: Store) -> None:
    """As in a store of an older kvstore."""
    for seal in store.lance.glob("at/*/seal.json"):
        seal.unlink()
    spoil(store, PIN, _cut)
    with pytest.warns(LeftOutWarning, match="patch_kv of run 'a' is left out"):
        assert counts(store) == {"b": ROWS}


def test_a_seal_that_names_files_elsewhere_is_none(store: Store, tmp_path: Path) -> None:
    (seal,) = store.lance.glob("at/a.patch_kv.*.lance/seal.json")
    for name in ("/dev/zero", "../../../../../../../dev/zero", "data/../../../x"):
        seal.write_text(json.dumps({"sums": {name: "0"}, "sizes": {}}))
        assert counts(store) == {"a": ROWS, "b": ROWS}


def test_check_lists_every_broken_run_and_makes_its_checks(store: Store) -> None:
    spoil(store, PIN, _flipped)
    spoil(store, DATA.replace("a.patch_kv", "b.pooled_kv"), _lost)
    found = {one.check: one for one in check.findings_apart(store.catalog, store.lance)}
    assert found.keys() == {"tables of a", "tables of b", *recipes.listing("sql/checks", ".sql")}
    assert not found["tables of a"].ok
    assert found["tables of b"].first.startswith("pooled_kv of run 'b' cannot be read: ")


def test_the_shells_views_leave_it_out(store: Store, tmp_path: Path) -> None:
    spoil(store, PIN, _flipped)
    init = tmp_path / "init.sql"
    init.write_text(shell.init_sql(store))
    command = [str(shell.binary()), "-init", str(init), "-csv", "-noheader", "-c", COUNT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"b,{ROWS}\n"


def test_optimize_names_it_and_does_the_others(store: Store) -> None:
    spoil(store, DATA, _lost)
    done = optimizing.optimize(store)
    assert done["b"] == "optimized"
    assert done["a"].startswith(f"{optimizing.FAILED}patch_kv of run 'a' cannot be read: ")


def test_an_abort_in_optimize_ends_one_run_and_not_the_command(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.runs()
    monkeypatch.setattr(optimizing, "work", dying.runs)
    done = optimizing.optimize(store)
    assert done["a"].startswith(f"{optimizing.FAILED}the process at work on it ended by SIGABRT")
    assert done["b"] == "optimized"
    monkeypatch.undo()
    assert optimizing.optimize(store) == {"a": "optimized", "b": "optimized"}
    assert [run["run_id"] for run in store.runs()] == [run["run_id"] for run in before]
    assert counts(store) == {"a": ROWS, "b": ROWS}


def test_a_full_disk_in_optimize_is_told_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizing, "work", dying.full)
    with pytest.raises(NoSpaceError, match="no space left"):
        optimizing.optimize(store)
