"""What is published of reports: records and files that are cut, strange or left over, and links."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvstore import cli, interrupts, recipes, report
from kvstore.errors import StoreError
from kvstore.report import building
from kvstore.report.published import Published
from tests.stores import make_store

REPORT = '''"""Nothing yet."""

from kvstore.report import Missing, Table

LABEL = "observational"


def build(query):
    yield Table("Names", query("names"))
    yield Missing("Nothing is there.", "kvstore ingest shapes")
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Any:
    """A store, and a folder of recipes with one small report, `small`."""
    root = tmp_path_factory.mktemp("published")
    for sub in ("reports", "sql/analyses"):
        (root / "mine" / sub).mkdir(parents=True)
    (root / "mine/reports/small.py").write_text(REPORT)
    (root / "mine/sql/analyses/names.sql").write_text(
        "-- names: one row an image\nselect name from dataset_image\n"
    )
    shipped = recipes.SHIPPED / "sql/analyses/provenance.sql"
    (root / "mine/sql/analyses/provenance.sql").write_text(shipped.read_text())
    return make_store(root / "store", images=2).store, root / "mine"


@pytest.fixture
def store(made: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The store, its report built."""
    monkeypatch.setattr(recipes, "__path__", [str(made[1])])
    built(made[0])
    return made[0]


def built(store: Any) -> list[str]:
    return [outcome.result for outcome in report.build(store)]


def state(store: Any) -> str:
    (found,) = report.status(store)
    return found.state


def record_of(store: Any) -> Path:
    path: Path = store.root / "reports/small/build.json"
    return path


STRANGE: list[Any] = [None, [], {}, "x", 7, -1.5, True, "../../x", ["x"], {"x": 1}]


def test_a_record_that_lacks_a_field_or_has_a_strange_one_is_a_stale_report(store: Any) -> None:
    whole = json.loads(record_of(store).read_bytes())
    read = ("key", "built_at", "calls", "missing", "thumbnail", "pictures", "files", "page")
    assert set(read) < set(whole)
    published = Published(store.root)
    for field in read:
        for value in STRANGE:
            same = value == whole[field] or (field, value) in [("pictures", {}), ("missing", ["x"])]
            record_of(store).write_text(json.dumps(whole | {field: value}))
            found = published.build("small")
            assert (found is None) or same or field in ("calls", "missing", "files"), (field, value)
        record_of(store).write_text(json.dumps({key: whole[key] for key in whole if key != field}))
        assert published.build("small") is None or field == "thumbnail"
    for call in (
        None,
        {},
        {"absent": 3},
        {"analysis": "names"},
        {"analysis": "names", "params": {"analysis": 1}},
    ):
        record_of(store).write_text(json.dumps(whole | {"calls": [call]}))
        assert state(store) == "stale", call
    assert built(store) == ["built"]
    assert state(store) == "fresh"


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b'"text"', b"7", b"\xff\xfe", b"{", b"[" * 100_000, b'{"report": "small"}'],
)
def test_a_record_that_is_none_is_a_stale_report(store: Any, content: bytes, capsys: Any) -> None:
    """Told by `report status`, and built again; the same of the record of a failure."""
    record_of(store).write_bytes(content)
    (record_of(store).with_name("failure.json")).write_bytes(content)
    assert state(store) == "stale"
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", "status", "--json", "--store", str(store.root)])
    assert caught.value.code == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["state"], told["built_at"], told["error"]) == ("stale", None, None)
    assert built(store) == ["built"]
    assert state(store) == "fresh"


@pytest.mark.parametrize("harm", ["cut", "empty", "gone"])
def test_a_build_whose_files_are_not_whole_does_not_count_as_unchanged(store: Any, harm: str) -> None:
    key = json.loads(record_of(store).read_bytes())["key"]
    files = [store.root / "reports/small.html", *(store.root / "reports/small" / key).iterdir()]
    assert {path.suffix for path in files} == {".html", ".parquet"}
    for path in files:
        whole = path.read_bytes()
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes(whole[: len(whole) // 2] if harm == "cut" else b"")
        assert state(store) == "stale", path
        assert built(store) == ["built"]
        assert path.read_bytes() or path.name == "small.html"  # the time of the build stands in the page
    assert built(store) == ["unchanged"]


def test_what_killed_builders_left_aside_is_swept_and_nothing_else(store: Any) -> None:
    root = store.root / "reports"
    left = [".index.html.1.tmp", ".small.html.22.tmp", "small/.build.json.3.tmp", "small/.failure.json.3.tmp"]
    for name in left:
        (root / name).write_text("x")
    (root / "gone").mkdir()  # of a report that is no recipe any more
    (root / "gone/.build.json.9.tmp").write_text("x")
    (root / "small/.abc.4.tmp").mkdir()
    (root / "small/.abc.4.tmp/page.html").write_text("x")
    (root / "mine.tmp").write_text("mine")
    (root / ".mine").write_text("mine")
    assert built(store) == ["unchanged"]
    assert list(root.rglob(".*.tmp")) == []
    assert (root / "mine.tmp").read_text() == (root / ".mine").read_text() == "mine"


def test_reports_are_written_through_no_link(store: Any, tmp_path: Path) -> None:
    """As in a store that somebody sent, whose links lead to folders of ours."""
    mine = tmp_path / "mine"
    (mine / "old").mkdir(parents=True)
    (mine / "old/letter").write_text("mine")
    (mine / ".a.1.tmp").write_text("mine")
    for place in (store.root / "reports/small", store.root / "reports"):
        aside = place.rename(tmp_path / "aside")
        place.symlink_to(mine)
        with pytest.raises(StoreError, match="is a link, and reports are written through none"):
            built(store)
        place.unlink()
        aside.rename(place)
    assert sorted(path.name for path in mine.rglob("*")) == [".a.1.tmp", "letter", "old"]
    assert built(store) == ["unchanged"]


def test_a_signal_is_no_failure_of_the_report_in_whose_query_it_came(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB makes an exception of its own of it."""

    def interrupted(*arguments: Any) -> None:
        monkeypatch.setattr(interrupts._State, "received", 2)
        raise RuntimeError("Query interrupted")

    record_of(store).unlink()
    monkeypatch.setattr(building, "_content", interrupted)
    with pytest.raises(interrupts.Interrupted):
        built(store)
    monkeypatch.undo()
    assert not record_of(store).with_name("failure.json").exists()
