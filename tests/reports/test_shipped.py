"""The shipped reports on small stores, and the arithmetic of their SQL against numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from kvstore import report
from kvstore.query import run_analysis
from kvstore.report import Chart, Missing
from kvstore.report.reading import Query
from kvstore.report.recipe import load, read
from tests.pairs import Pair, add_pairs
from tests.stores import make_store

GRID = (3, 4)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return make_store(tmp_path / "store", images=3, grid=GRID).store


def blocks(store: Any, name: str) -> list[Any]:
    with store.connect() as con:
        return list(load(read(name)).build(Query(con)))


def frame(store: Any, name: str, **params: Any) -> pl.DataFrame:
    table = pl.from_arrow(run_analysis(store, name, params))
    assert isinstance(table, pl.DataFrame)
    return table


def fill_keys(store: Any, keys: np.ndarray[Any, Any], grid: tuple[int, int], run: str = "run") -> None:
    """Moments of keys [images, layers, heads, patches, width], by numpy in float64."""
    square, mean = (keys**2).sum(-1).mean(0), (keys.mean(0) ** 2).sum(-1)
    with store.publish() as con:
        for place in np.ndindex(*square.shape):
            figures = [
                len(keys),
                float(square[place]),
                float(mean[place]),
                float(square[place] - mean[place]),
            ]
            shape = [run, *grid, 0]
            con.execute(
                "insert into key_stat values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [*shape, *place, *figures]
            )


def fill_scores(store: Any, rows: list[tuple[Any, ...]]) -> None:
    """(site, layer, head, value) of one probe and metric."""
    with store.publish() as con:
        for site, layer, head, value in rows:
            values = [
                "run",
                "correspondence",
                "pck@0.10",
                site,
                layer,
                head,
                value,
                value - 0.1,
                value + 0.1,
                40,
            ]
            con.execute("insert into score values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


@pytest.mark.parametrize("name", ["overview", "layer_curves", "accuracy", "keys"])
def test_an_empty_store_says_what_is_missing_and_how_to_fill_it(tmp_path: Path, name: str) -> None:
    from kvstore.store import Store

    store = Store.open(tmp_path / "empty", create=True)
    (missing,) = blocks(store, name)
    assert isinstance(missing, Missing)
    assert missing.command.startswith("kvstore ")
    (outcome,) = report.build(store, [name])
    assert outcome.result == "built"
    assert f"--store {store.root}" in (store.root / "reports" / f"{name}.html").read_text()


def test_the_first_score_is_sought_where_there_are_pairs(tmp_path: Path) -> None:
    made = make_store(tmp_path / "store", images=2)
    assert [block.command for block in blocks(made.store, "layer_curves")] == ["kvstore ingest shapes"]
    add_pairs(made, [Pair(1, 2, {"eye": ((1.0, 1.0), (2.0, 2.0))})])
    (missing,) = blocks(made.store, "layer_curves")
    assert missing.command == "kvstore probe correspondence --run run"


def test_all_build_on_a_filled_store(store: Any) -> None:
    rng = np.random.default_rng(0)
    fill_keys(store, rng.standard_normal((5, 2, 2, 12, 8)), GRID)
    fill_scores(
        store, [("value", 0, 0, 0.2), ("value", 0, 1, 0.3), ("value", 1, 0, 0.5), ("input", 0, None, 0.25)]
    )
    results = {outcome.report: (outcome.result, outcome.error) for outcome in report.build(store)}
    assert results == dict.fromkeys(("accuracy", "keys", "layer_curves", "overview"), ("built", ""))
    index = (store.root / "reports/index.html").read_text()
    for name in ("accuracy", "keys", "layer_curves", "overview"):
        assert f'href="{name}.html"' in index


def test_key_variance_is_the_mean_over_positions_of_the_share(store: Any) -> None:
    keys = np.random.default_rng(1).standard_normal((6, 2, 2, 12, 8)) + 1.5
    fill_keys(store, keys, GRID)
    variance = keys.var(axis=0).sum(-1)  # [layers, heads, patches]
    share = variance / (keys**2).sum(-1).mean(0)
    rows = frame(store, "key_variance").sort("layer", "head")
    assert rows["share"].to_list() == pytest.approx(share.mean(-1).reshape(-1).tolist())
    assert rows["variance"].to_list() == pytest.approx(variance.mean(-1).reshape(-1).tolist())
    assert rows["share_p90"].to_list() == pytest.approx(np.quantile(share, 0.9, axis=-1).reshape(-1).tolist())
    assert set(rows["images"]) == {6}


def test_grids_are_never_mixed(store: Any) -> None:
    rng = np.random.default_rng(2)
    fill_keys(store, rng.standard_normal((4, 1, 1, 12, 8)), (3, 4))
    fill_keys(store, rng.standard_normal((9, 1, 1, 12, 8)) + 3, (4, 3))
    rows = frame(store, "key_variance")
    assert rows.select("rows", "columns", "images", "main_grid").rows() == [(4, 3, 9, True), (3, 4, 4, False)]
    places = frame(store, "key_positions")
    assert set(places.select("rows", "columns").rows()) == {(4, 3)}


def test_positions_are_of_the_heads_that_vary_least(store: Any) -> None:
    keys = np.random.default_rng(3).standard_normal((6, 2, 2, 12, 8))
    keys[:, 1, 0] = 7.0 + 0.01 * keys[:, 1, 0]
    fill_keys(store, keys, GRID)
    rows = frame(store, "key_positions", heads=1)
    assert rows.select("layer", "head").unique().rows() == [(1, 0)]
    share = keys[:, 1, 0].var(axis=0).sum(-1) / (keys[:, 1, 0] ** 2).sum(-1).mean(0)
    ordered = rows.sort("row", "column")
    assert ordered["share"].to_list() == pytest.approx(share.tolist())
    assert ordered.select("row", "column").rows() == [(p // 4, p % 4) for p in range(12)]


def test_positions_are_averaged_over_blocks_to_stay_under_the_limit(store: Any) -> None:
    keys = np.random.default_rng(4).standard_normal((6, 1, 1, 12, 8))
    fill_keys(store, keys, GRID)
    rows = frame(store, "key_positions", heads=1, cells=4).sort("row", "column")
    share = (keys.var(axis=0).sum(-1) / (keys**2).sum(-1).mean(0)).reshape(GRID)
    assert rows["block"].unique().to_list() == [2]
    wanted = [share[r : r + 2, c : c + 2].mean() for r in (0, 2) for c in (0, 2)]
    assert rows["share"].to_list() == pytest.approx(wanted)


def test_keys_of_one_image_are_marked_and_not_drawn(store: Any) -> None:
    fill_keys(store, np.ones((1, 1, 1, 12, 8)), GRID)
    (only,) = blocks(store, "keys")
    assert isinstance(only, Missing)
    assert "1 image" in only.what


def test_constant_keys_have_share_zero_and_still_draw(store: Any) -> None:
    fill_keys(store, np.ones((4, 2, 2, 12, 8)), GRID)
    assert frame(store, "key_variance")["share"].to_list() == [0.0] * 4
    (outcome,) = report.build(store, ["keys"])
    assert (outcome.result, outcome.error) == ("built", "")


def test_the_best_head_is_the_highest_and_concatenated_heads_do_not_compete(store: Any) -> None:
    rows = [("value", 0, 0, 0.2), ("value", 0, 1, 0.3), ("value", 0, None, 0.9), ("value", 1, 0, 0.5)]
    fill_scores(store, [*rows, ("value", 1, 1, 0.5)])
    found = frame(store, "layer_scores").filter(pl.col("best") & pl.col("head").is_not_null())
    assert found.select("layer", "head", "value").rows() == [
        (0, 1, 0.3),
        (1, 0, 0.5),
    ]  # a tie: the lower head


def test_layer_curves_draw_a_chart_per_run_probe_and_metric_with_n(store: Any) -> None:
    fill_scores(store, [("value", 0, 0, 0.2), ("input", 0, None, 0.25), ("encoder", 5, None, 0.4)])
    (chart,) = blocks(store, "layer_curves")
    assert isinstance(chart, Chart)
    assert chart.group == "run"
    assert "n = 40 items" in chart.caption
    assert "best layer, 5" in chart.caption


def test_layer_curves_draw_floors_and_the_untrained_twin(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", runs=("run", "other", "twin")).store
    fill_scores(store, [("value", 0, 0, 0.2), ("value", 0, 1, 0.3), ("position", 0, None, 0.1)])
    fill_scores(store, [("chance", 0, None, 0.05)])
    with store.publish() as con:
        con.execute(
            "insert into model select * replace"
            " ('none' as model_id, 'model-untrained' as name, 'r1' as revision) from model"
        )
        con.execute("update run set model_id = 'none' where run_id = 'twin'")
        for run, shift in (("twin", 0.25), ("other", 0.5)):
            con.execute(
                "insert into score select * replace (? as run_id, value - ? as value) from score"
                " where run_id = 'run'",
                [run, shift],
            )
    assert frame(store, "twins").select("run_id", "twin").rows() == [("other", "twin"), ("run", "twin")]
    chart = next(block for block in blocks(store, "layer_curves") if block.group == "run")
    drawn = chart.chart.data
    assert sorted(drawn.select("series", "layer", "head", "value").rows(), key=str) == [
        ("chance", 0, None, 0.05),
        ("image values", 0, 0, 0.2),
        ("image values", 0, 1, 0.3),
        ("position only", 0, None, 0.1),
        ("untrained twin", 0, 1, pytest.approx(0.05)),
    ]
    for told in ("dashed rule: position only", "dotted rule: chance", "untrained twin (twin, n = 40)"):
        assert told in chart.caption
    (alone,) = (block for block in blocks(store, "layer_curves") if block.group == "twin")
    assert "untrained twin" not in alone.caption


def test_layer_curves_have_a_panel_and_a_table_of_each_probe(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", images=8).store
    bits = [("value", 0, 0, "1100"), ("value", 0, 1, "1110"), ("position", 0, None, "0100")]
    with store.publish() as con:
        for image in range(1, 9):
            con.executemany(
                "insert into segment values ('run', 'foreground', ?, ?, ?, ?, ?, '1110')",
                [(image, *one) for one in bits],
            )
    figures = frame(store, "bootstrap", probe="foreground")
    with store.publish() as con:
        con.register("figures", figures.to_arrow())
        con.execute("insert into score by name select * from figures")
        con.unregister("figures")
    iou, per_image, table = blocks(store, "layer_curves")
    assert (iou.title, per_image.title) == ("Foreground, IoU", "Foreground, IoU per image")
    assert "every patch taken for foreground" in iou.caption
    assert table.title == "Best layer and head of foreground, held out"
    best = table.rows.filter(pl.col("metric") == "iou").select("site", "layer", "head", "value").rows()
    assert best == [
        ("value", 0, 1, 1.0),
        ("chance", None, None, 0.75),
        ("position", None, None, pytest.approx(1 / 3)),
    ]
    (outcome,) = report.build(store, ["layer_curves"])
    assert (outcome.result, outcome.error) == ("built", "")


def test_overview_counts_what_the_store_holds(store: Any) -> None:
    with store.publish() as con:
        for position, name in enumerate(("b.jpg", "a.jpg", "d.jpg", "c.jpg")):
            values = ["run", name, position, "truncated", f"{name} ends early"]
            con.execute(
                "insert into quarantine (run_id, name, position, reason, detail) values (?, ?, ?, ?, ?)",
                values,
            )
    refused = frame(store, "quarantine")
    assert refused.select("images", "first_files").rows() == [(4, "b.jpg, a.jpg, d.jpg")]
    assert frame(store, "runs").select("images", "quarantined").rows() == [(3, 4)]
    assert frame(store, "dataset_summary").select("images", "images_stored").rows() == [(3, 3)]
    (outcome,) = report.build(store, ["overview"])
    assert (outcome.result, outcome.error) == ("built", "")
    assert "b.jpg, a.jpg, d.jpg" in (store.root / "reports/overview.html").read_text()
