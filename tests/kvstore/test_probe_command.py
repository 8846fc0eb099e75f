from __future__ import annotations

import csv
import io
from collections.abc import Callable

import numpy as np
import pytest

from kvstore.cli import main
from kvstore.query import run_analysis
from tests.pairs import Pair, add_pairs
from tests.stores import Made

Make = Callable[..., Made]


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(args)
    return int(exit_.value.code or 0)


def planted(make_store: Make) -> Made:
    """12 pairs whose truth is where head 1 of layer 1 leads, by numpy: it alone finds them all."""
    made = make_store(images=2, sites=("value",), width=32)
    centres = [(5.0 + 10 * (patch % 4), 5.0 + 10 * (patch // 4)) for patch in range(12)]
    vectors = made.vectors["run"]["value"][:, 1, 1].astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    best = (unit[0] @ unit[1].T).argmax(1)
    pairs = [Pair(1, 2, {"p": (centres[patch], centres[best[patch]])}) for patch in range(12)]
    add_pairs(made, pairs)
    return made


def test_the_best_layer_and_head_are_printed_and_stored(
    make_store: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = planted(make_store)
    assert run("probe", "correspondence", "--store", str(made.store.root), "--format", "csv") == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    metrics = [f"{figure}@{alpha}" for figure in ("pck", "pck_image") for alpha in ("0.05", "0.10", "0.15")]
    assert [(row["metric"], row["site"]) for row in rows] == [
        (metric, site) for metric in metrics for site in ("value", "chance", "position")
    ]
    # Both images are on the half that chooses.
    assert {
        (row["layer"], row["head"], row["chosen_on"], row["n"]) for row in rows if row["site"] == "value"
    } == {("1", "1", "1.0", "0")}
    assert {(row["layer"], row["head"]) for row in rows if row["site"] != "value"} == {("", "")}
    assert "12 items, 2 layers made" in printed.err
    curve = run_analysis(made.store, "layer_curve").to_pylist()
    top = [
        (row["layer"], row["head"], row["value"], row["heads"])
        for row in curve
        if row["metric"] == "pck@0.10" and row["site"] == "value"
    ]
    assert top[1] == (1, 1, 1.0, 2)
    assert len(curve) == 6 * (2 + 2)  # metrics x (layers, and two floors)


def test_layers_and_sites_narrow_the_work(make_store: Make) -> None:
    made = planted(make_store)
    store = str(made.store.root)
    assert run("probe", "correspondence", "--layers", "1", "--heads", "both", "--store", store) == 0
    with made.store.connect() as con:
        found = con.execute(
            "select distinct layer, head from match where site = 'value' order by all"
        ).fetchall()
    assert found == [(1, 0), (1, 1), (1, None)]


def test_curve_of_a_layer_shows_its_best_head_and_the_heads_together(make_store: Make) -> None:
    made = make_store()
    with made.store.publish() as con:
        con.executemany(
            "insert into score values ('run', 'p', 'm', ?, ?, ?, ?, 0, 1, 9, 5)",
            [
                ("value", 0, 0, 0.3),
                ("value", 0, 1, 0.5),
                ("value", 0, None, 0.9),
                ("value", 1, 0, 0.4),
                ("value", 1, 1, 0.4),
                ("input", 0, None, 0.2),
            ],
        )
    rows = run_analysis(made.store, "layer_curve", {"run": "run"}).to_pylist()
    columns = ("site", "layer", "head", "value", "heads", "concatenated")
    assert [tuple(row[c] for c in columns) for row in rows] == [
        ("input", 0, None, 0.2, 0, 0.2),
        ("value", 0, 1, 0.5, 2, 0.9),
        ("value", 1, 0, 0.4, 2, None),
    ]
    assert run_analysis(made.store, "layer_curve", {"run": "other"}).num_rows == 0


@pytest.mark.parametrize("name", ["layer_curve", "pck", "pck_category", "best_layer", "bootstrap"])
def test_an_analysis_of_a_store_without_matches_is_a_header(
    make_store: Make, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    made = make_store(images=1)
    assert run("sql", name, "--format", "csv", "--store", str(made.store.root)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("run_id,")


def test_mistakes_are_one_line_with_the_nearest_name(
    make_store: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = planted(make_store)
    for args, told in (
        (["corespondence"], "did you mean 'correspondence'"),
        (["correspondence", "--run", "rnu"], "did you mean 'run'"),
        (["correspondence", "--site", "values"], "did you mean 'value'"),
        (["correspondence", "--layers", "0-3"], "no layer 2"),
        (["correspondence", "--heads", "al"], "choice of --heads"),
    ):
        assert run("probe", *args, "--store", str(made.store.root)) == 2
        err = capsys.readouterr().err
        assert told in err
        assert len(err.splitlines()) == 1
