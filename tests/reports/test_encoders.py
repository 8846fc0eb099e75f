"""Report `encoders` and its paired differences, against arithmetic by hand.

Of the images 1 to 12, those that 6, 8, 9, 11 and 12 number have an odd hash: figures are of them, the others
choose. A test below holds that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from kvstore import masks, report
from kvstore.query import run_analysis, run_sql
from kvstore.report import Chart, Missing, Table
from kvstore.report.reading import Query
from kvstore.report.recipe import load, read
from tests.stores import make_store

HELD_OUT = [6, 8, 9, 11, 12]
SEGMENT = "insert into segment values (?, 'foreground', ?, ?, ?, ?, ?::bit, '111111111111')"


def frame(store: Any, name: str, **params: Any) -> pl.DataFrame:
    table = pl.from_arrow(run_analysis(store, name, params))
    assert isinstance(table, pl.DataFrame)
    return table


def blocks(store: Any, name: str) -> list[Any]:
    with store.connect() as con:
        return list(load(read(name)).build(Query(con)))


def bits(count: int) -> str:
    return "1" * count + "0" * (12 - count)


def score(store: Any) -> None:
    """Figures of all probes, as a probe makes them at its end."""
    figures = frame(store, "bootstrap")
    with store.publish() as con:
        con.register("figures", figures.to_arrow())
        con.execute("insert into score by name select * from figures")
        con.unregister("figures")


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """Runs of an MLM (`run`), of an encoder alone, and of another MLM, with an encoder of its own.

    All patches are foreground. In image n the image values take n / 2 patches (of 12), rounded up, the input
    one less and the encoder alone, at its better layer, two more; so differences are the same in each image.
    """
    store = make_store(tmp_path / "store", runs=("run", "alone", "other"), images=12).store
    with store.publish() as con:
        for name, layers in (("alone", 0), ("other", 28)):
            con.execute(
                "insert into model select * replace (? as model_id, ? as name, ? as revision, ? as layers)"
                " from model where model_id = 'model'",
                [name, name, name, layers],
            )
            con.execute("update run set model_id = ? where run_id = ?", [name, name])
        for image in range(1, 13):
            taken = (image + 1) // 2
            for run, site, layer, head, count in (
                ("run", "value", 0, 0, taken),
                ("run", "value", 0, 1, 0),
                ("run", "input", 0, None, taken - 1),
                ("run", "position", 0, None, 1),
                ("alone", "encoder", 3, None, taken + 1),
                ("alone", "encoder", 5, None, taken + 2),
                ("other", "encoder", 0, None, 12),
                ("other", "value", 0, 0, 3),
            ):
                con.execute(SEGMENT, [run, image, site, layer, head, bits(count)])
    return store


def test_the_images_held_out_are_those_with_an_odd_hash(store: Any) -> None:
    sql = "select image_id from image where hash(image_id::bigint) % 2 = 1 order by 1"
    assert run_sql(store, sql)["image_id"].to_pylist() == HELD_OUT


def test_a_difference_is_of_the_best_on_items_held_out(store: Any) -> None:
    gaps = frame(store, "encoder_gaps").filter(run_id="run", metric="iou")
    told = gaps.select("layer", "head", "reference_run", "reference_site", "reference_layer").rows()
    assert told == [(0, 0, "alone", "encoder", 5), (0, 0, "run", "input", 0)]
    value = (3 + 4 + 5 + 6 + 6) / 60  # patches taken of images 6, 8, 9, 11 and 12
    assert gaps["value"].to_list() == pytest.approx([value, value])
    assert gaps["reference"].to_list() == pytest.approx([value + 10 / 60, value - 5 / 60])
    assert gaps["difference"].to_list() == pytest.approx([-1 / 6, 1 / 12])
    assert gaps["n"].to_list() == [5, 5]


def test_both_sides_of_a_difference_share_their_resamples(store: Any) -> None:
    gaps = frame(store, "encoder_gaps").filter(run_id="run")
    wide = frame(store, "best_layer", run="run").filter(site="value")
    assert (wide["high"] - wide["low"]).min() > 0.05
    for end in ("low", "high"):  # the difference is the same in every image, so in every resample
        assert gaps[end].to_list() == pytest.approx(gaps["difference"].to_list())


def test_a_label_that_one_side_alone_predicts_counts(tmp_path: Path) -> None:
    """Image values take 2 pixels of image 8 for a cat that is not there, and miss its dog."""
    store = make_store(tmp_path / "store", images=12).store
    empty = masks.from_array(np.zeros((2, 2), bool))
    rows = {
        "value": [(6, "cat", 4, 4, 4), (8, "cat", 2, 0, 0), (8, "dog", 0, 2, 0)],
        "input": [(6, "cat", 4, 4, 4), (8, "dog", 2, 2, 2)],
    }
    with store.publish() as con:
        for site, found in rows.items():
            for image, label, predicted, truth, shared in [*found, (1, "cat", 4, 4, 4), (1, "dog", 4, 4, 4)]:
                con.execute(
                    "insert into mask (run_id, probe, image_id, label, number, site, layer, head, mask,"
                    " predicted, truth, shared, valid) values ('run', 'semantic-segmentation', ?, ?, 0, ?, 0,"
                    " ?, ?, ?, ?, ?, 12)",
                    [image, label, site, 0 if site == "value" else None, empty, predicted, truth, shared],
                )
    gap = frame(store, "encoder_gaps", probe="semantic-segmentation").row(0, named=True)
    assert gap["value"] == pytest.approx((4 / 6 + 0) / 2)
    assert gap["reference"] == pytest.approx(1)
    assert gap["n"] == 2


def test_bars_and_table_show_each_representation_under_its_name(store: Any) -> None:
    score(store)
    _, gaps, bars, table = blocks(store, "encoders")
    assert isinstance(gaps, Chart)
    assert isinstance(bars, Chart)
    assert isinstance(table, Table)
    main = table.rows.filter(shown="IoU")
    assert main.select("who", "series", "layer").rows() == [
        ("other · other", "image values", 0),
        ("other · other", "the model's vision encoder", 0),
        ("model · run", "image values", 0),
        ("model · run", "input representation", 0),
        ("model · run", "position only", None),
        ("model · run", "chance", None),
        ("alone · alone", "vision encoder alone", 5),
    ]
    assert "IoU of foreground" in gaps.caption


def test_what_is_missing_for_the_comparison_is_said(store: Any) -> None:
    score(store)
    with store.publish() as con:
        con.execute("delete from score where run_id = 'alone'")
    missing = [block for block in blocks(store, "encoders") if isinstance(block, Missing)]
    assert [block.command for block in missing] == ["kvstore ingest set --model siglip-so400m"]


def test_encoders_builds_in_whole(store: Any) -> None:
    score(store)
    (outcome,) = report.build(store, ["encoders"])
    assert (outcome.result, outcome.error) == ("built", "")
