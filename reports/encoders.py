"""Image values against encoders.

What a language model's image values hold for each probe, beside what enters the model, beside its own vision
encoder, and beside vision encoders that no language model was trained on. Where image values hold less than
an encoder, training or the way through the language model has cost what the task needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import altair as alt
import polars as pl

from kvstore.report import BLUE, GREEN, GREY, ORANGE, RED, Block, Chart, Missing, Note, Query, Table

LABEL = "observational"
PROTOCOL = (
    "the layer and head with the highest figure on one half of the independent units (images, clips), and"
    " their figure on the other half, which had no part in the choice, with a bootstrap 95 % interval over"
    " its units. No image is scored on both halves: pairs of one image of each are left out, and counted."
    " (Images from which a few-shot classifier learns, and groups that are clustered together, may be of"
    " both.) Differences: both sides on the items of the other half that both have, in the same resamples."
    " Macro figure_items says what each figure, its items and their units are."
)
READING = (
    "Each bar is one representation at its best layer (and head), chosen on one half of the units and scored"
    " on the other, with a 95 % interval. Violet ticks are floors on the same half: position only (wide) and"
    " chance (narrow). What has been measured on other items (see n) is not to be compared."
)
GAPS = (
    "The best image value minus each reference, both chosen on one half of the units and compared on the"
    " other, with a paired bootstrap 95 % interval. Left of the line the image values hold less. Main figure"
    " of each probe: {figures}."
)
VALUES, KEYS, INPUT = "image values", "image keys", "input representation"
OWN, ALONE = "the model's vision encoder", "vision encoder alone"
SERIES = {"value": VALUES, "key": KEYS, "input": INPUT, "encoder": OWN, "position": "position only"}
FLOORS = ["position only", "chance"]
#: Of representations in the table.
ORDER = {site: place for place, site in enumerate((*SERIES, "chance"))}
FLOOR, TEAL = "#8465c4", "#1d7f8c"
COLOURS = {VALUES: BLUE, KEYS: ORANGE, INPUT: RED, OWN: GREEN, ALONE: TEAL}
HEADINGS = {
    "shown": "figure",
    "who": "model · run",
    "low": "from",
    "high": "to",
    "chosen_on": "half that chose",
    "left_out": "left out",
}

#: Items scored, units that they share, items left out.
COUNTS = ("n", "units", "left_out")
TOLD = (
    "n: items scored; units: the images or clips that they share, which the bootstrap draws; left out: items"
    " with units on both halves."
)


def build(query: Query) -> Iterator[Block]:
    probed = query("probed")
    if probed.is_empty():
        yield Missing("No probe has been scored in this store yet.", "kvstore ingest shapes")
        return
    subjects = (
        probed.drop("probe")
        .unique(maintain_order=True)
        .with_columns(who=pl.format("{} · {}", "model", "run_id"))
    )
    held_out = pl.concat([query("best_layer", run=run) for run in subjects["run_id"]])
    rows = _named(held_out, subjects, query("figures"))
    yield from _lacks(subjects)
    for (dataset,), part in rows.group_by("dataset", maintain_order=True):
        several = f", {dataset}" if rows["dataset"].n_unique() > 1 else ""
        yield from _gaps(query, str(dataset), subjects, part, several)
        for (probe,), bars in part.group_by("probe", maintain_order=True):
            yield from _probe(f"{dataset}.{probe}", bars, several)


def _lacks(subjects: pl.DataFrame) -> Iterator[Block]:
    """What the comparison wants, data set by data set."""
    yield Note(READING)
    for (dataset,), part in subjects.group_by("dataset", maintain_order=True):
        if not part["encoder_alone"].any():
            name, _, split = str(dataset).partition("/")
            asked = f"{name} --split {split}" if split else name
            model = "tiny-encoder" if name == "shapes" else "siglip-so400m"
            yield Missing(
                f"No vision encoder alone has been probed over {dataset} yet: ingest one, then probe it.",
                f"kvstore ingest {asked} --model {model}",
            )


def _named(rows: pl.DataFrame, subjects: pl.DataFrame, figures: pl.DataFrame) -> pl.DataFrame:
    """Rows with the words that people read, in the order to read them."""
    return (
        subjects.join(rows, on="run_id", maintain_order="left_right")
        .join(figures, on=["probe", "metric"], how="left", maintain_order="left")
        .with_columns(
            title=pl.col("title").fill_null(pl.col("probe")),
            shown=pl.col("shown").fill_null(pl.col("metric")),
            items=pl.col("items").fill_null("items"),
            drawn=pl.col("drawn").fill_null("units"),
            main=pl.col("main").fill_null(value=False),
            series=pl.when(pl.col("encoder_alone") & (pl.col("site") == "encoder"))
            .then(pl.lit(ALONE))
            .otherwise(pl.col("site").replace(SERIES)),
        )
        .sort(
            "place",
            "probe",
            "metric",
            "untrained",
            "encoder_alone",
            "run_id",
            pl.col("site").replace_strict(ORDER, default=len(ORDER)),
            nulls_last=True,
        )
    )


def _probe(name: str, rows: pl.DataFrame, several: str) -> Iterator[Block]:
    """The bars and the table of one probe over one data set."""
    title = f"{rows.item(0, 'title')}{several}"
    caption = f"Point at a bar for layer, head, value, interval, n and units. {_counted(rows)}"
    yield Chart(name.replace("/", "."), title, _bars(rows), caption)
    told = ("shown", "who", "series", "layer", "head", "chosen_on", "value", "low", "high", *COUNTS)
    yield Table(f"{title}: figures", rows.select(told), TOLD, {**HEADINGS, "series": "representation"})


def _counted(rows: pl.DataFrame) -> str:
    """How many items the probe's first figure is of, and how many were left out."""
    first = rows.filter(pl.col("shown") == rows.item(0, "shown"))
    n, units, left_out = (_range(first[name]) for name in COUNTS)
    items, drawn = first.select(pl.col("items", "drawn")).row(0)
    told = f"Scored: {n} {items}" + (f" of {units} {drawn}" if items != drawn else "")
    return told + (f"; left out, with {drawn} on both halves: {left_out}." if left_out != "0" else ".")


def _range(numbers: pl.Series) -> str:
    """The one number, or the least and the most."""
    found = sorted(set(numbers.to_list()))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _bars(rows: pl.DataFrame) -> alt.LayerChart:
    shown = rows["shown"].unique(maintain_order=True).to_list()
    figure = _choice(re.sub(r"\W", "_", f"figure_{rows.item(0, 'probe')}"), "Figure", shown)
    drawn = rows.select("who", "shown", "series", "layer", "head", "value", "low", "high", *COUNTS)
    base = alt.Chart(drawn.with_columns(pl.col(pl.Float64).round(5))).transform_filter(
        f"datum.shown == {figure.name}"
    )
    y = alt.Y(
        "who:N",
        title=None,
        sort=rows["who"].unique(maintain_order=True).to_list(),
        axis=alt.Axis(labelLimit=260, labelOverlap=False),
    )
    x = alt.X("value:Q", title=None, stack=None, axis=alt.Axis(tickCount=8))
    beside = alt.YOffset("series:N", sort=list(COLOURS))
    told = _told("who", "series", "layer", "head", "shown")
    bars = base.transform_filter(alt.FieldOneOfPredicate("series", list(COLOURS)))
    return (
        alt.layer(
            bars.mark_bar(opacity=0.75).encode(y=y, x=x, yOffset=beside, color=_colour(drawn), tooltip=told),
            bars.mark_rule(color=GREY, strokeWidth=1.5).encode(y=y, x="low:Q", x2="high:Q", yOffset=beside),
            *(
                base.transform_filter(alt.FieldEqualPredicate(floor, "series"))
                .mark_tick(color=FLOOR, thickness=2, size=size)
                .encode(y=y, x=x, tooltip=_told("who", "series", "shown"))
                for floor, size in zip(FLOORS, (56, 28), strict=True)
            ),
        )
        .properties(height=alt.Step(15))
        .add_params(figure)
    )


def _colour(rows: pl.DataFrame, title: str | None = None) -> alt.Color:
    here = [name for name in COLOURS if name in set(rows["series"])]
    return alt.Color(
        "series:N",
        title=title,
        scale=alt.Scale(domain=here, range=[COLOURS[name] for name in here]),
        legend=alt.Legend(orient="top", columns=3, offset=28),
    )


def _gaps(
    query: Query, dataset: str, subjects: pl.DataFrame, rows: pl.DataFrame, several: str
) -> Iterator[Block]:
    """The differences of all probes over one data set, in their main figures."""
    mains = rows.filter("main").select("probe", "metric", "title", "shown").unique(maintain_order=True)
    people = subjects.select("run_id", "who", "untrained", "encoder_alone")
    others = people.select(reference_run="run_id", beside="who", alone="encoder_alone")
    gaps = (
        mains.join(query("encoder_gaps", dataset=dataset), on=["probe", "metric"], maintain_order="left")
        .join(people, on="run_id", maintain_order="left")
        .join(others, on="reference_run", maintain_order="left")
        .sort("untrained", maintain_order=True)
        .with_columns(
            series=pl.when("alone").then(pl.lit(ALONE)).otherwise(pl.col("reference_site").replace(SERIES))
        )
        .with_columns(against=pl.when("alone").then(pl.col("beside")).otherwise(pl.col("series")))
    )
    if gaps.height:
        mains = mains.filter(pl.col("probe").is_in(gaps["probe"].implode()))
        figures = ", ".join(
            f"{shown} of {title.lower()}" for title, shown in mains.select("title", "shown").rows()
        )
        title = f"Image values minus encoders{several}"
        yield Chart(f"{dataset}.gaps".replace("/", "."), title, _points(gaps), GAPS.format(figures=figures))


def _points(gaps: pl.DataFrame) -> alt.LayerChart:
    run = _choice("run", "Model and run", gaps["who"].unique(maintain_order=True).to_list())
    kept = ("who", "title", "series", "against", "layer", "head", "reference_layer", "value", "reference")
    drawn = gaps.select(*kept, "difference", "low", "high", *COUNTS).with_columns(pl.col(pl.Float64).round(5))
    base = alt.Chart(drawn).transform_filter(f"datum.who == {run.name}")
    y = alt.Y(
        "title:N",
        title=None,
        sort=gaps["title"].unique(maintain_order=True).to_list(),
        axis=alt.Axis(labelLimit=260, labelOverlap=False, grid=True),
    )
    beside = alt.YOffset("against:N")
    ends = (alt.Tooltip(f"{name}:Q", format=".4f") for name in ("difference", "low", "high"))
    told = [*kept, *ends, *COUNTS]
    words = base.transform_aggregate(n="count()", groupby=["who"]).mark_text(
        align="left", baseline="bottom", fontSize=12.5
    )
    return (
        alt.layer(
            words.encode(x=alt.value(0), y=alt.value(-6), text="who:N"),
            alt.Chart(drawn.head(1)).mark_rule(color="#8a8f98", strokeDash=[4, 3]).encode(x=alt.datum(0)),
            base.mark_rule(strokeWidth=1.8).encode(
                y=y, yOffset=beside, x="low:Q", x2="high:Q", color=_colour(drawn)
            ),
            base.mark_point(filled=True, size=60, opacity=1).encode(
                y=y,
                yOffset=beside,
                x=alt.X("difference:Q", title="image values minus reference"),
                color=_colour(drawn),
                tooltip=told,
            ),
        )
        .properties(height=alt.Step(16))
        .add_params(run)
    )


def _choice(name: str, words: str, options: list[str]) -> alt.Parameter:
    """What the reader chooses from a list; the first at first, and no list where there is one only."""
    if len(options) < 2:
        return alt.param(name=name, value=options[0])
    return alt.param(name=name, value=options[0], bind=alt.binding_select(options=options, name=f"{words} "))


def _told(*names: str) -> list[str | alt.Tooltip]:
    figures = [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")]
    return [*names, *figures, *(alt.Tooltip(f"{name}:Q", format=",") for name in COUNTS)]
