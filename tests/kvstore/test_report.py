"""Building reports: keys, failures, the rows' limit, escaping, and what a page may reach."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from kvstore import masks, recipes, report
from kvstore.errors import NoSpaceError, UnknownNameError
from kvstore.report import gallery
from kvstore.report.published import Published
from kvstore.report.reading import settled
from tests.stores import make_store

HOSTILE = "</script><img src=x onerror=alert(1)>"
CURVE = '''"""A curve.

What it shows.
"""

import altair as alt

from kvstore.report import Chart, Table

LABEL = "observational"


def build(query):
    rows = query("points", least=LEAST)
    lines = alt.Chart(rows).mark_line().encode(x="layer:Q", y="value:Q")
    yield Chart("curve", "Curve", lines, "Higher is better.")
    yield Table("Names", query("names"))
'''
POINTS = """-- points: one row per score
select layer, value, n from score where $least is null or value >= $least order by layer
"""
NAMES = "-- names: one row per image\nselect name, dataset_id from dataset_image order by name\n"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes with one report, `curve`, and nothing of the shipped ones."""
    folder = tmp_path / "recipes"
    for sub in ("reports", "sql/analyses"):
        (folder / sub).mkdir(parents=True)
    (folder / "reports/curve.py").write_text(CURVE.replace("LEAST", "0.0"))
    (folder / "sql/analyses/points.sql").write_text(POINTS)
    (folder / "sql/analyses/names.sql").write_text(NAMES)
    shipped = recipes.SHIPPED / "sql/analyses/provenance.sql"
    (folder / "sql/analyses/provenance.sql").write_text(shipped.read_text())
    monkeypatch.setattr(recipes, "__path__", [str(folder)])
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = make_store(tmp_path / "store", images=2).store
    score(made, 0.25)
    return made


def score(store: Any, value: float, layer: int = 0) -> None:
    with store.publish() as con:
        con.execute(
            "insert into score values ('run', 'correspondence', 'pck@0.10', 'value', $layer, 0, $value,"
            " $value - 0.1, $value + 0.1, 40, 25)",
            {"layer": layer, "value": value},
        )


def built(store: Any, *names: str) -> dict[str, str]:
    return {outcome.report: outcome.result for outcome in report.build(store, names)}


def stamps(store: Any) -> dict[str, int]:
    """When each file under reports/ was written, the index left out."""
    root = store.root / "reports"
    files = (p for p in root.rglob("*") if p.is_file() and p.name != "index.html")
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in files}


def test_a_build_leaves_page_picture_rows_and_index(store: Any, recipe: Path) -> None:
    assert built(store) == {"curve": "built"}
    root = store.root / "reports"
    key = json.loads((root / "curve/build.json").read_text())["key"]
    assert (root / "curve" / key / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows = pl.read_parquet(root / "curve" / key / "points.least-0.0.parquet")
    assert rows.rows() == [(0, 0.25, 40)]
    page = (root / "curve.html").read_text()
    for shown in ("A curve", "What it shows.", "Higher is better.", "r0", "Observational"):
        assert shown in page
    assert len(reached(page).links) == 4  # the picture, and the rows of three analyses
    for link in reached(page).links:
        assert (root / link).is_file()
    assert 'href="curve.html"' in (root / "index.html").read_text()


def test_unchanged_inputs_rebuild_nothing(store: Any, recipe: Path) -> None:
    built(store)
    before = stamps(store)
    assert built(store) == {"curve": "unchanged"}
    assert stamps(store) == before


def test_a_change_elsewhere_in_the_catalog_rebuilds_nothing(store: Any, recipe: Path) -> None:
    built(store)
    with store.publish() as con:
        con.execute("insert into caption values ('set', 1, 0, 'a cat')")
    assert built(store) == {"curve": "unchanged"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("sql/analyses/points.sql", "order by layer", "order by layer desc"),
        ("reports/curve.py", "Higher is better", "Lower is worse"),
    ],
)
def test_changed_sql_or_code_rebuilds(store: Any, recipe: Path, file: str, old: str, new: str) -> None:
    built(store)
    path = recipe / file
    path.write_text(path.read_text().replace(old, new))
    assert [state.state for state in report.status(store)] == ["stale"]
    assert built(store) == {"curve": "built"}
    assert len([p for p in (store.root / "reports/curve").iterdir() if p.is_dir()]) == 1


def test_changed_rows_rebuild_and_show(store: Any, recipe: Path) -> None:
    built(store)
    score(store, 0.75, layer=1)
    assert [state.state for state in report.status(store)] == ["stale"]
    assert built(store) == {"curve": "built"}
    assert '"value":0.75' in (store.root / "reports/curve.html").read_text()
    assert [state.state for state in report.status(store)] == ["fresh"]


def test_a_report_over_vectors_goes_stale_with_their_version(store: Any, recipe: Path) -> None:
    text = "-- points: one row per run\nselect 0 as layer, count(*) as value, $least as n from patch_kv\n"
    (recipe / "sql/analyses/points.sql").write_text(text)
    built(store)
    assert built(store) == {"curve": "unchanged"}
    with store.publish() as con:
        con.execute("update run set versions = map {'patch_kv': 99, 'pooled_kv': 99}")
    assert [state.state for state in report.status(store)] == ["stale"]


def test_a_report_over_vectors_goes_stale_with_what_a_macro_reads(store: Any, recipe: Path) -> None:
    text = (
        "-- points: one row per run\nselect 0 as layer, count(*) as value, $least as n from patch_kv"
        " where exists (from Pair_Hits(null, [0.1]))\n"
    )
    (recipe / "sql/analyses/points.sql").write_text(text)
    built(store)
    assert built(store) == {"curve": "unchanged"}
    with store.publish() as con:
        con.execute(
            "insert into match values ('run', 'correspondence', 1, 'eye', 'value', 0, 0, 0, 1, 1, 0.5)"
        )
    assert [state.state for state in report.status(store)] == ["stale"]


def test_a_failure_keeps_the_last_good_build_and_stops_no_other(store: Any, recipe: Path) -> None:
    built(store)
    page = (store.root / "reports/curve.html").read_bytes()
    (recipe / "reports/another.py").write_text(CURVE.replace("LEAST", "0.0").replace("A curve", "Another"))
    (recipe / "reports/curve.py").write_text(CURVE.replace("LEAST", "1 / 0"))
    outcomes = {outcome.report: outcome for outcome in report.build(store)}
    assert outcomes["another"].result == "built"
    assert outcomes["curve"].result == "failed"
    assert "'curve' (line 14): ZeroDivisionError" in outcomes["curve"].error
    assert (store.root / "reports/curve.html").read_bytes() == page
    states = {state.report: state for state in report.status(store)}
    assert (states["another"].state, states["curve"].state) == ("fresh", "failed")
    assert states["curve"].built_at is not None
    index = (store.root / "reports/index.html").read_text()
    assert 'href="another.html"' in index
    assert "the last attempt failed" in index


def test_code_put_back_is_fresh_again_without_a_build(store: Any, recipe: Path) -> None:
    built(store)
    good = (recipe / "reports/curve.py").read_text()
    (recipe / "reports/curve.py").write_text("def build(:")
    assert built(store) == {"curve": "failed"}
    (recipe / "reports/curve.py").write_text(good)
    assert built(store) == {"curve": "unchanged"}
    assert Published(store.root).failure("curve") is None


@pytest.mark.parametrize("place", ["write_bytes", "fsync 1", "fsync 2"])
def test_a_full_disk_keeps_the_last_build_leaves_nothing_and_ends_the_command(
    store: Any, recipe: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The picture's folder, the page or the record of the build cannot be written."""
    built(store)
    before, files = stamps(store), {path for path in store.root.rglob("*") if path.is_file()}
    path = recipe / "reports/curve.py"
    path.write_text(path.read_text().replace("Higher is better", "Lower is worse"))
    name, _, last = place.partition(" ")
    owner, whole, calls = (os if last else Path), getattr(os if last else Path, name), []

    def full(*arguments: Any) -> Any:
        calls.append(name)
        if len(calls) >= int(last or 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(NoSpaceError, match="no space left on the disk of"):
            built(store)
    assert calls
    assert stamps(store) == before
    assert {path for path in store.root.rglob("*") if path.is_file()} == files
    assert built(store) == {"curve": "built"}


@pytest.mark.parametrize("rows", [5000, 5001])
def test_no_chart_embeds_more_than_5000_rows(store: Any, recipe: Path, rows: int) -> None:
    text = f"-- points: one row per number\nselect range as layer, $least as value from range({rows})\n"
    (recipe / "sql/analyses/points.sql").write_text(text)
    (outcome,) = report.build(store)
    assert outcome.result == ("built" if rows == 5000 else "failed")
    if rows > 5000:
        assert "aggregate in SQL" in outcome.error
        assert "5001" in outcome.error


def test_a_chart_that_reads_an_address_is_refused(store: Any, recipe: Path) -> None:
    remote = CURVE.replace("LEAST", "0.0").replace(
        "alt.Chart(rows)", "alt.Chart('https://example.org/a.csv')"
    )
    (recipe / "reports/curve.py").write_text(remote)
    (outcome,) = report.build(store)
    assert "reads an address" in outcome.error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('LABEL = "observational"', "no docstring"),
        ('"""T."""\nLABEL = "x"\ndef build(query): yield', "LABEL = 'x'"),
        ('"""T."""\nLABEL = "observational"', "no function build"),
        ('"""T."""\nLABEL = "observational"\ndef build(query): yield 3', "gives a int"),
        (
            '"""T."""\nLABEL = "observational"\ndef build(query): yield from query("pointz")',
            "did you mean 'points'",
        ),
    ],
)
def test_a_malformed_report_says_what_to_mend(store: Any, recipe: Path, text: str, told: str) -> None:
    (recipe / "reports/curve.py").write_text(text)
    (outcome,) = report.build(store)
    assert outcome.result == "failed"
    assert told in outcome.error


def test_an_unknown_report_names_the_nearest(store: Any, recipe: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'curve'"):
        list(report.build(store, ["curves"]))


class Reached(HTMLParser):
    """Collects tags, links, and every address that a browser would fetch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.fetched += [v for k in ("src", "srcset", "data", "poster") if (v := given.get(k))]
        self.fetched += [given["href"] or ""] if tag == "link" else []
        self.links += [given["href"] or ""] if tag == "a" else []


def reached(page: str) -> Reached:
    parser = Reached()
    parser.feed(page)
    return parser


def test_names_from_the_store_are_text_wherever_they_stand(store: Any, recipe: Path) -> None:
    with store.publish() as con:
        con.execute("insert into dataset_image values ('set', $name, 1, 7)", {"name": HOSTILE + ".jpg"})
        con.execute("update dataset set dataset_id = $name", {"name": HOSTILE})
        con.execute("update run set dataset_id = $name", {"name": HOSTILE})
        con.execute("update score set probe = $name", {"name": HOSTILE})
    (recipe / "sql/analyses/points.sql").write_text(
        POINTS.replace("layer, value, n", "layer, value, probe as n")
    )
    (recipe / "reports/curve.py").write_text(CURVE.replace("LEAST", "0.0").replace("Higher", HOSTILE))
    assert built(store) == {"curve": "built"}
    page = (store.root / "reports/curve.html").read_text()
    parser = reached(page)
    assert "img" not in parser.tags
    assert HOSTILE not in page
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    assert HOSTILE in str([json.loads(block) for block in blocks])


def test_a_page_fetches_nothing_and_allows_only_its_own_scripts(store: Any, recipe: Path) -> None:
    built(store)
    for file in ("curve.html", "index.html"):
        page = (store.root / "reports" / file).read_text()
        assert [a for a in reached(page).fetched if not a.startswith("data:")] == []
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
        assert policy is not None
        assert "default-src &#x27;none&#x27;" in policy[1]
        assert "unsafe-inline&#x27;; script-src" in policy[1]
        assert "unsafe-eval" not in policy[1]
        css = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
        assert "url(" not in css
        assert "@import" not in css


def test_two_groups_get_a_choice(store: Any, recipe: Path) -> None:
    text = (recipe / "reports/curve.py").read_text()
    (recipe / "reports/curve.py").write_text(
        text.replace('query("names"))', 'query("names"), group="a <b>")')
    )
    built(store)
    assert '<select id="group"' not in (store.root / "reports/curve.html").read_text()
    (recipe / "reports/curve.py").write_text(
        text.replace(
            'query("names"))', 'query("names"), group="a <b>")\n    yield Table("T", rows, group="c")'
        )
    )
    built(store)
    page = (store.root / "reports/curve.html").read_text()
    assert "<option>a &lt;b&gt;</option><option>c</option>" in page


def test_a_picture_of_an_unchanged_chart_is_kept(
    store: Any, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(store)
    text = (recipe / "reports/curve.py").read_text()
    (recipe / "reports/curve.py").write_text(text.replace("What it shows.", "What it shows, said better."))
    drawn: list[str] = []
    monkeypatch.setattr(
        "kvstore.report.charts.picture", lambda spec, chart: drawn.append(chart.name) or b"new"
    )
    assert built(store) == {"curve": "built"}
    assert drawn == []
    (picture,) = (store.root / "reports/curve").glob("*/curve.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_schedule_quotes_paths_for_cron_and_systemd(tmp_path: Path) -> None:
    text = report.schedule(tmp_path / "100% my store")
    cron = next(line for line in text.splitlines() if line.startswith("17 3 * * * "))
    assert cron.endswith(f"'{tmp_path}/100\\% my store'")
    assert f'"{tmp_path}/100%% my store"' in text
    assert Path(cron.split()[5]).is_absolute()


def thumbnail(width: int = 40, height: int = 30) -> report.Thumbnail:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, "JPEG")
    return report.Thumbnail("ab" * 32, width, height, buffer.getvalue())


def test_words_of_a_gallery_are_text() -> None:
    tile = report.Tile(thumbnail(), HOSTILE, HOSTILE + '"', (report.Box(1, 2, 3, 4, HOSTILE + '"'),))
    shown = report.Gallery(HOSTILE, [report.Strip(HOSTILE, [tile])], HOSTILE)
    page = gallery.images([shown]) + gallery.figure(shown)
    assert HOSTILE not in page
    assert reached(page).tags.count("script") == reached(page).tags.count("img") == 0
    assert '<rect x="1.0" y="2.0" width="2.0" height="2.0"' in page


@pytest.mark.parametrize(("spot", "inside", "outside"), [(True, 0, 165), (False, 150, 0)])
def test_a_shade_is_clear_dark_or_coloured_and_outlined(spot: bool, inside: int, outside: int) -> None:
    pixels = np.zeros((30, 40), bool)
    pixels[10:30, 10:20] = True
    shade = report.Shade(masks.from_array(pixels), "#ff0000", spot)
    tile = report.Tile(thumbnail(), "t", "t", (shade,))
    figure = gallery.figure(report.Gallery("g", [report.Strip("s", [tile])], ""))
    (png,) = re.findall(r'href="data:image/png;base64,([^"]+)"', figure)
    drawn = np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))
    assert drawn.shape == (30, 40, 4)
    assert drawn[20, 10].tolist() == [255, 0, 0, 255]  # the outline
    assert drawn[20, 15, 3] == inside
    assert drawn[29, 15, 3] == inside  # the image's edge is no outline
    assert drawn[20, 9, 3] == drawn[0, 0, 3] == outside


def test_a_large_shade_is_no_larger_than_a_thumbnail() -> None:
    shade = report.Shade(masks.from_array(np.ones((600, 960), bool)), "#ff0000", spot=True)
    tile = report.Tile(thumbnail(960, 600), "t", "t", (shade,))
    figure = gallery.figure(report.Gallery("g", [report.Strip("s", [tile])], ""))
    (png,) = re.findall(r'href="data:image/png;base64,([^"]+)"', figure)
    assert Image.open(io.BytesIO(base64.b64decode(png))).size == (240, 150)
    assert 'viewBox="0 0 960 600"' in figure


def test_the_last_bits_of_a_sum_rebuild_nothing_but_a_billionth_does() -> None:
    sums = [(0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3)]
    assert sums[0] != sums[1]
    assert settled(sums[0]) == settled(sums[1])
    assert settled((1, [sums[0], None, "a"])) == settled((1, [sums[1], None, "a"]))
    assert settled(0.3 - (0.1 + 0.2)) == settled(0.0) == settled(-0.0)
    assert settled(0.6) != settled(0.6 * (1 + 1e-9))
    assert settled(3e-7) != settled(3.001e-7)
