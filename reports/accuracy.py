"""Accuracy of the models' own answers.

How often each model answers right, by kind of question, against always giving the kind's most frequent
answer; and, where checkpoints of one training were asked, how that grew.
"""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import polars as pl

from kvstore.report import BLUE, ORANGE, RED, Block, Chart, Missing, Query, Table

LABEL = "observational"
PROTOCOL = (
    "an answer is right when it equals the truth, letter case and a closing full stop aside; greedy: the text"
    " that the model generates; likelihood: the option with the greatest log-probability, its end included."
    " Intervals: Wilson 95 %, for as many independent answers as the share is worth: questions about one"
    " image are not independent (n counts questions, units images; Korn and Graubard 1998)."
)
ALL = "all kinds"
#: The condition of a model as it is.
PLAIN = "none"
COLUMNS = {
    "n": "questions",
    "units": "images",
    "low": "from",
    "high": "to",
    "majority_share": "right by majority",
}


def build(query: Query) -> Iterator[Block]:
    rows = query("answer_accuracy")
    if rows.is_empty():
        yield Missing("No model has answered questions in this store yet.", "kvstore eval shapes-qa")
        return
    shown = rows.with_columns(pl.col("kind").fill_null(ALL))
    growing = query("accuracy_by_step")
    single = shown.join(growing.filter(pl.col("step").is_not_null()), on="run_id", how="anti")
    chosen = single if single.height else shown
    for (run, condition), part in chosen.group_by("run_id", "condition", maintain_order=True):
        yield _bars(str(run), str(condition), part)
    plain = growing.filter(pl.col("condition") == PLAIN)
    for (dataset, model), part in plain.group_by("dataset", "model", maintain_order=True):
        yield _growth(str(dataset), str(model), part)
    yield Table(
        "Accuracy of every run",
        shown.filter(pl.col("kind") == ALL).drop("kind", "majority"),
        "All kinds of question together. Right by majority: the share that is right when every kind is"
        " answered by its own most frequent answer.",
        {"run_id": "run", **COLUMNS},
    )


def _bars(run: str, condition: str, rows: pl.DataFrame) -> Chart:
    base = alt.Chart(rows.drop("run_id")).encode(
        y=alt.Y("kind:N", title=None, sort=alt.SortField("n"), axis=alt.Axis(labelLimit=160))
    )
    x = alt.X(
        "accuracy:Q",
        title="accuracy",
        stack=None,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%"),
    )
    colour = alt.Color(
        "method:N", title=None, scale=alt.Scale(range=[BLUE, ORANGE]), legend=alt.Legend(orient="top")
    )
    told = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("accuracy", "low", "high", "majority_share")]
    beside = alt.YOffset("method:N")
    chart = alt.layer(
        base.mark_bar(opacity=0.75).encode(
            x=x, color=colour, yOffset=beside, tooltip=["kind", "method", "condition", "n", "units", *told]
        ),
        base.mark_rule(color="#4a4f57").encode(x="low:Q", x2="high:Q", yOffset=beside),
        base.mark_tick(color=RED, thickness=2.5, size=20).encode(x="majority_share:Q"),
    )
    return Chart(
        f"{run}.{condition}.accuracy".replace("/", "."),
        "Right answers by kind of question" + ("" if condition == PLAIN else f", {condition}"),
        chart,
        "Bars: share of right answers, 95 % interval. Red: the kind's most frequent answer, always given.",
        group=run,
    )


def _growth(dataset: str, model: str, rows: pl.DataFrame) -> Chart:
    steps = rows.sort("step", nulls_last=True, maintain_order=True).with_columns(
        at=pl.col("step").cast(pl.String).fill_null("finished")
    )
    x = alt.X("at:N", title="training step", sort=None, axis=alt.Axis(labelAngle=0))
    base = alt.Chart(steps.drop("dataset", "model")).encode(
        x=x,
        detail=["prefix", "view", "pool"],
        color=alt.Color(
            "method:N", title=None, scale=alt.Scale(range=[BLUE, ORANGE]), legend=alt.Legend(orient="top")
        ),
    )
    told = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("accuracy", "low", "high")]
    line = base.mark_line(point={"size": 40}).encode(
        y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        tooltip=["run_id", "at", "prefix", "view", "method", "n", "units", *told],
    )
    return Chart(
        f"{dataset}.{model}.training".replace("/", "."),
        f"Accuracy along the training of {model}",
        base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q") + line,
        f"All kinds of question together, on {dataset}; bars: 95 % intervals. Checkpoints are evenly spaced"
        " here, their steps are not.",
    )
