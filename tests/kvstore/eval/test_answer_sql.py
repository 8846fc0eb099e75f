"""Figures of answers against arithmetic done by hand, and checks that find what is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kvstore.query import run_analysis
from kvstore.store import Store
from tests.stores import Made

Make = Callable[..., Made]


def fill(
    store: Store, rows: Sequence[tuple[str, str, str]], method: str = "greedy", condition: str = "none"
) -> None:
    """A question per (kind, truth, answer), about an image of its own, answered by `method`."""
    with store.publish() as con:
        con.execute("insert or ignore into condition values (?, 'told here', null)", [condition])
        for number, (kind, truth, answer) in enumerate(rows):
            con.execute(
                "insert or ignore into question values ('set', ?, ?, 'What?', ?, ['yes', 'no'])",
                [number, kind, truth],
            )
            con.execute("insert or ignore into question_image values ('set', ?, 0, ?)", [number, number + 1])
            con.execute(
                "insert into answer values ('run', ?, ?, ?, ?, null)", [number, condition, method, answer]
            )


def accuracy(store: Store, **params: Any) -> list[dict[str, Any]]:
    return run_analysis(store, "answer_accuracy", params).to_pylist()  # type: ignore[no-any-return]


def test_accuracy_interval_and_majority_by_kind_and_for_all(make_store: Make) -> None:
    made = make_store()
    rows = [("yes-no", "yes", "Yes.")] * 5 + [("yes-no", "no", "yes")] * 3  # 5 of 8; majority yes, 5 of 8
    rows += [
        ("color", "red", " red "),
        ("color", "blue", "red"),
        ("color", "red", "blue fish"),
    ]  # 1 of 3; red, 2
    fill(made.store, rows)
    color, yes_no, both = accuracy(made.store, run="run")
    assert [row["kind"] for row in (color, yes_no, both)] == ["color", "yes-no", None]
    assert [row["n"] for row in (color, yes_no, both)] == [3, 8, 11]
    assert [row["accuracy"] for row in (color, yes_no, both)] == pytest.approx([1 / 3, 5 / 8, 6 / 11])
    assert [row["majority"] for row in (color, yes_no, both)] == ["red", "yes", None]
    assert [row["majority_share"] for row in (color, yes_no, both)] == pytest.approx([2 / 3, 5 / 8, 7 / 11])
    # Wilson, 5 of 8, by hand: (0.625 + 0.2401 +- 1.96 * sqrt(0.02930 + 0.01501)) / 1.4802
    assert (yes_no["low"], yes_no["high"]) == pytest.approx((0.3057, 0.8632), abs=5e-4)


def test_wilsons_interval_at_the_ends(make_store: Make) -> None:
    """Brown, Cai and DasGupta 2001: with no hit in n the upper end is z^2 / (n + z^2)."""
    made = make_store()
    fill(made.store, [("a", "yes", "no")] * 10 + [("b", "yes", "yes")] * 10)
    none, all_, _ = accuracy(made.store)
    assert (none["low"], none["high"]) == pytest.approx((0, 3.84146 / 13.84146))
    assert (all_["low"], all_["high"]) == pytest.approx((10 / 13.84146, 1))


def test_questions_about_one_image_count_for_less(make_store: Make) -> None:
    """Of 4 images 2 questions each, alike: 6 of 8 right.

    Variance over images: 4 x (3/4 x 1/4) / 9, of 8 independent answers 8 x (3/4 x 1/4) / 49, so the design
    effect is 49 / 18. With t of 7 and of 3 degrees of freedom the share is worth 8 x 18 / 49 x
    (2.3646 / 3.1824)^2 = 1.6225 answers.
    """
    made = make_store()
    fill(made.store, [("a", "yes", "yes")] * 6 + [("a", "yes", "no")] * 2)
    with made.store.publish() as con:
        con.execute("update question_image set image_id = 1 + question_id // 2")
    (kind, _) = accuracy(made.store)
    assert (kind["n"], kind["units"], kind["accuracy"]) == (8, 4, 0.75)
    n, z2 = 1.6225, 3.84146
    middle = (0.75 * n + z2 / 2) / (n + z2)
    half = 1.95996 * (0.75 * 0.25 * n + z2 / 4) ** 0.5 / (n + z2)
    assert (kind["low"], kind["high"]) == pytest.approx((middle - half, middle + half), abs=2e-3)


def test_where_all_are_right_a_share_is_worth_its_images(make_store: Make) -> None:
    made = make_store()
    fill(made.store, [("a", "yes", "yes")] * 20)
    with made.store.publish() as con:
        con.execute("update question_image set image_id = 1 + question_id // 2")
    (kind, _) = accuracy(made.store)
    assert (kind["low"], kind["high"]) == pytest.approx((10 / 13.84146, 1))


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("Yes", "yes", True),
        (" yes. ", "yes", True),
        ("yes", "Yes.", True),
        ("yes..", "yes", False),
        ("yes, it is", "yes", False),
        ("", "yes", False),
        ("top left", "left", False),
        ("Grün", "grün", True),
    ],
)
def test_what_is_right(make_store: Make, answer: str, truth: str, expected: bool) -> None:
    made = make_store(images=1)
    with made.store.connect() as con:
        found = con.execute("select is_right($a, $t)", {"a": answer, "t": truth}).fetchone()
    assert found == (expected,)


def test_runs_and_methods_are_apart(make_store: Make) -> None:
    made = make_store()
    fill(made.store, [("a", "yes", "yes")])
    fill(made.store, [("a", "yes", "no")], "likelihood")
    rows = accuracy(made.store)
    assert [(row["method"], row["kind"], row["accuracy"]) for row in rows] == [
        ("greedy", "a", 1.0),
        ("greedy", None, 1.0),
        ("likelihood", "a", 0.0),
        ("likelihood", None, 0.0),
    ]
    assert accuracy(made.store, run="other") == []


def test_answers_shows_what_was_asked(make_store: Make) -> None:
    made = make_store()
    fill(made.store, [("a", "yes", "Yes")])
    with made.store.publish() as con:
        con.execute("insert into question_image values ('set', 0, 1, 3)")
        con.execute("insert into dataset_image values ('set', '0-the same.png', 3, 9)")
    (row,) = run_analysis(made.store, "answers", {"run": "run"}).to_pylist()
    expected = (
        "run",
        0,
        "none",
        "greedy",
        "a",
        ["1.png", "0-the same.png"],
        "What?",
        ["yes", "no"],
        "yes",
        "Yes",
        True,
    )
    assert tuple(row.values())[:11] == expected


PLANTED = {
    "no_run": "update answer set run_id = 'gone'",
    "no_question": "delete from question",
    "no_condition": "delete from condition",
    "no_image": "delete from token_grid where image_id = 1",
    "no_sense": "update answer set method = 'likelihood', option_likelihoods = [-2.0, -1.0]",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_check_finds_an_answer_that_cannot_be(make_store: Make, fault: str) -> None:
    made = make_store()
    fill(made.store, [("a", "yes", "yes")])

    def check() -> str:
        return next(found.first for found in made.store.check() if found.check == "answers_sound")

    assert check() == ""
    with made.store.publish() as con:
        con.execute(PLANTED[fault])
    assert f"{fault}=True" in check()


def test_accuracy_along_a_training_takes_checkpoints_in_order_and_the_finished_model_last(
    make_store: Make,
) -> None:
    """Checkpoints of x answer 1 and 2 of 4, x itself all; y, which has no checkpoints, is left out.

    So are runs of x whose prefix, view or pooling no checkpoint's run has.
    """
    made = make_store()
    fill(made.store, [("yes-no", "yes", "yes")] * 4)
    right = {"x-step-00010": 2, "x-step-00002": 1, "x": 4, "y": 3}
    with made.store.publish() as con:
        for name, hits in right.items():
            con.execute(
                "insert into model by name"
                " (select * replace ($m as model_id, $m as name, $m as revision) from model limit 1)",
                {"m": name},
            )
            con.execute(
                "insert into run by name (select * replace ($m as run_id, $m as model_id, $m as fingerprint)"
                " from run where run_id = 'run')",
                {"m": name},
            )
            con.execute(
                "insert into answer select $m, question_id, condition, method,"
                " if(question_id < $hits, 'yes', 'no'), null from answer where run_id = 'run'",
                {"m": name, "hits": hits},
            )
        for other in ("'Look: ' as prefix", "'all' as view", "2 as pool"):
            con.execute(
                f"insert into run by name (select * replace ($o as run_id, $o as fingerprint, {other})"
                " from run where run_id = 'x')",
                {"o": other},
            )
            con.execute(
                "insert into answer by name (select * replace ($o as run_id) from answer where run_id = 'x')",
                {"o": other},
            )
    rows = run_analysis(made.store, "accuracy_by_step", {}).to_pylist()
    assert [(row["run_id"], row["model"], row["step"]) for row in rows] == [
        ("x-step-00002", "x", 2),
        ("x-step-00010", "x", 10),
        ("x", "x", None),
    ]
    assert [(row["n"], row["accuracy"]) for row in rows] == [(4, 0.25), (4, 0.5), (4, 1.0)]
    assert {(row["prefix"], row["view"], row["pool"]) for row in rows} == {("", "base", 1)}


def test_the_accuracy_report_shows_kinds_condition_by_condition(make_store: Make) -> None:
    from kvstore.report import Chart, Table
    from kvstore.report.reading import Query
    from kvstore.report.recipe import load, read

    made = make_store()
    fill(made.store, [("yes-no", "yes", "yes"), ("color", "red", "blue")])
    fill(made.store, [("yes-no", "yes", "yes"), ("color", "red", "blue")], "likelihood")
    fill(made.store, [("yes-no", "yes", "no"), ("color", "red", "blue")], condition="no object")
    with made.store.connect() as con:
        blocked, plain, table = load(read("accuracy")).build(Query(con))
    assert isinstance(blocked, Chart)
    assert isinstance(plain, Chart)
    assert isinstance(table, Table)
    assert [(chart.name, chart.title) for chart in (blocked, plain)] == [
        ("run.no object.accuracy", "Right answers by kind of question, no object"),
        ("run.none.accuracy", "Right answers by kind of question"),
    ]
    x = plain.chart.to_dict()["layer"][0]["encoding"]["x"]
    assert (x["field"], x["stack"]) == ("accuracy", None)
    assert blocked.chart.data.select("method", "kind", "accuracy").rows() == [
        ("greedy", "color", 0.0),
        ("greedy", "yes-no", 0.0),
        ("greedy", "all kinds", 0.0),
    ]
    assert table.rows.select("condition", "method", "n", "accuracy").rows() == [
        ("no object", "greedy", 2, 0.0),
        ("none", "greedy", 2, 0.5),
        ("none", "likelihood", 2, 0.5),
    ]
