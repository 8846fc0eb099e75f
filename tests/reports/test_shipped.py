"""The shipped reports on small stores, and the arithmetic of their SQL against numpy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from kvstore import recipes, report
from kvstore.query import run_analysis
from kvstore.report import Missing
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
            shape = [run, *grid, 0, 0, grid[1]]
            con.execute(
                "insert into key_stat values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [*shape, *place, *figures],
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
                25,
            ]
            con.execute("insert into score values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


SHIPPED = ("accuracy", "encoders", "keys", "layer_curves", "masks", "matches", "overview")


@pytest.mark.parametrize("name", SHIPPED)
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
    assert results == dict.fromkeys(SHIPPED, ("built", ""))
    index = (store.root / "reports/index.html").read_text()
    for name in SHIPPED:
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
    found = frame(store, "probe_curves").select("layer", "head", "value", "heads", "figures", "concatenated")
    assert found.rows() == [
        (0, 1, 0.3, [0, 1], [0.2, 0.3], 0.9),
        (1, 0, 0.5, [0, 1], [0.5, 0.5], None),  # a tie: the lower head
    ]


def test_of_the_encoder_only_the_best_layer_is_drawn(store: Any) -> None:
    fill_scores(store, [("encoder", layer, None, value) for layer, value in ((3, 0.1), (5, 0.4), (7, 0.4))])
    assert frame(store, "probe_curves").select("layer", "value").rows() == [(5, 0.4)]


def test_layer_curves_draw_a_panel_of_each_probe_in_the_studys_order(store: Any) -> None:
    fill_scores(store, [("value", 0, 0, 0.2), ("input", 0, None, 0.25), ("encoder", 5, None, 0.4)])
    with store.publish() as con:
        for probe, metric in (("foreground", "iou"), ("mine", "m"), ("correspondence", "pck@0.05")):
            con.execute(
                "insert into score select * replace (? as probe, ? as metric) from score"
                " where metric = 'pck@0.10'",
                [probe, metric],
            )
    note, *charts = blocks(store, "layer_curves")
    assert "Red rule" in note.text
    assert "untrained" not in note.text
    assert [chart.title for chart in charts] == ["Semantic correspondence", "Foreground", "mine"]
    words = charts[0].chart.data.filter(pl.col("series") == "words")["words"].to_list()
    assert words == [
        f"{metric}  –  model · run, n = 40 pairs of 25 images" for metric in ("PCK@0.10", "PCK@0.05")
    ]


def choices(chart: Any) -> dict[str, list[str]]:
    """What a chart's reader can choose, by the words beside it."""
    params = chart.chart.to_dict()["params"]
    return {one["bind"]["name"].strip(): one["bind"]["options"] for one in params if "bind" in one}


def twin_store(folder: Path) -> Any:
    """A store of three runs with scores: `run` and `other` of one model, `twin` of its untrained twin."""
    store = make_store(folder, runs=("run", "other", "twin")).store
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
    return store


def test_layer_curves_draw_floors_and_the_untrained_twin_of_each_run(tmp_path: Path) -> None:
    store = twin_store(tmp_path / "store")
    assert frame(store, "twins").select("run_id", "twin").rows() == [("other", "twin"), ("run", "twin")]
    note, chart = blocks(store, "layer_curves")
    mine = chart.chart.data.filter(pl.col("who") == "model · run").select(
        "series", "head", "value", "figures"
    )
    assert mine.rows() == [
        ("chance", None, 0.05, None),
        ("position only", None, 0.1, None),
        ("image values", 1, 0.3, [0.2, 0.3]),
        ("untrained twin", 1, 0.05, None),
        ("words", None, None, None),
    ]
    assert "Grey dashed line" in note.text
    for told in ("violet dashed: position only (the target", "violet dotted: chance (a target patch drawn"):
        assert told in chart.caption


def test_layer_curves_offer_every_run_the_untrained_last(tmp_path: Path) -> None:
    _, chart = blocks(twin_store(tmp_path / "store"), "layer_curves")
    runs = ["model · other", "model · run", "model-untrained · twin"]
    assert choices(chart) == {"Model and run": runs}
    rows = chart.chart.data.filter(pl.col("who") == runs[2])
    assert "untrained twin" not in set(rows["series"])


def test_an_encoder_alone_comes_after_all_models(tmp_path: Path) -> None:
    store = twin_store(tmp_path / "store")
    with store.publish() as con:
        con.execute(
            "insert into model select * replace ('a' as model_id, 'a' as name, 'a' as revision, 0 as layers)"
            " from model where model_id = 'model'"
        )
        con.execute("update run set model_id = 'a' where run_id = 'other'")
        con.execute(
            "update score set site = 'encoder', head = null where run_id = 'other' and site = 'value'"
        )
    note, chart = blocks(store, "layer_curves")
    assert choices(chart) == {"Model and run": ["model · run", "model-untrained · twin", "a · other"]}
    assert "other trained models" not in note.text


def test_one_run_of_one_figure_leaves_nothing_to_choose(store: Any) -> None:
    fill_scores(store, [("value", 0, 0, 0.2)])
    _, chart = blocks(store, "layer_curves")
    assert choices(chart) == {}


def test_more_runs_than_a_chart_may_hold_get_more_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_code = (recipes.SHIPPED / "reports/layer_curves.py").read_text()
    recipe = read("layer_curves")
    small = dataclasses.replace(recipe, source=report_code.replace("MAX_ROWS:", "9:").encode())
    with twin_store(tmp_path / "store").connect() as con:
        _, *charts = load(small).build(Query(con))
    assert [chart.title for chart in charts] == [
        "Semantic correspondence, runs 1 of 2",
        "Semantic correspondence, runs 2 of 2",
    ]
    drawn = [set(chart.chart.data["who"]) for chart in charts]
    assert drawn == [{"model · other"}, {"model · run", "model-untrained · twin"}]
    assert len({chart.name for chart in charts}) == 2


def test_the_real_sizes_of_seven_billion_parameters_fit_into_one_chart(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", runs=("a", "b", "c")).store
    with store.publish() as con:
        con.execute(
            "insert into score select run, 'correspondence', metric, site, layer, head, layer / 28, 0, 1,"
            " 9, 9"
            " from (values ('a'), ('b'), ('c')) runs(run), (values ('key'), ('value')) sites(site),"
            " (values ('pck@0.05'), ('pck@0.10'), ('pck@0.15'), ('pck_image@0.10')) metrics(metric),"
            " range(28) layers(layer), range(4) heads(head)"
        )
    _, chart = blocks(store, "layer_curves")
    assert chart.chart.data.height == 3 * 4 * (2 * 28 + 1)
    assert sum(len(figures) for figures in chart.chart.data["figures"].drop_nulls()) == 3 * 4 * 2 * 112


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
