"""Layer curves.

For each probe, the score of every image value (one layer, one KV head) along the language model's layers,
against what enters the model and against floors. A curve above the red rule means that the language model
holds more for this task than the input visual representation it was given; a curve that is not above the
floors shows nothing that training has put there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

import altair as alt
import polars as pl

from kvstore.report import BLUE, GREEN, GREY, MAX_ROWS, ORANGE, RED, Block, Chart, Missing, Note, Query

LABEL = "observational"
PROTOCOL = (
    "each score is over the items of its probe with a bootstrap 95 % interval over the units that they share"
    " (images, of a pair both; of episodes the query images; of tracking clips). The best head of a"
    " layer, and the encoder's best layer, are chosen on the same items they are scored on, so they are upper"
    " envelopes (held out: report encoders). Correspondence: the centre of the target patch most similar by"
    " cosine to the patch of the source keypoint (the `patch` variant of Tang et al. 2023); PCK at α counts"
    " keypoints within α of the longer side of the target object's box. Bilinear: the same by pixels, both"
    " maps upsampled to their images before, as DIFT does it. Tracking: labels of the first frame and of the"
    " last ones passed on to similar patches (Jabri et al. 2020), scored as DAVIS 2017 does: void pixels are"
    " background, or where the title says so, left out."
    " Few-shot segmentation: a logistic classifier of patches fitted on support images. Co-segmentation:"
    " k-means over the patches of a group's images. Semantic segmentation and referring expressions: dot"
    " product of each patch with the text value of the words, cut by Otsu's threshold. Foreground: each patch"
    " goes to the nearer, by cosine, of the mean foreground and the mean background vector of the other half"
    " of the images. Foreground counts patches, the other probes that predict masks count pixels; macro"
    " figure_items says what a figure, its items and their units are. Keys are compared as the cache holds"
    " them, after the rotary embedding, so a part of their similarity is that of positions."
)
READING = (
    "Faint lines: single heads. Strong line with dots: the layer's best head; band: its bootstrap 95 %"
    " interval.{notes} Point at a mark for head, value, interval, n (items) and units."
)
VALUES, KEYS, INPUT, ENCODER = "image values", "image keys", "input representation", "vision encoder"
WHOLE, OTHERS = "heads concatenated", "other models' values"
TWIN, POSITION, CHANCE = "untrained twin", "position only", "chance"
SERIES = {"value": VALUES, "key": KEYS, "input": INPUT, "encoder": ENCODER, "position": POSITION} | {
    "chance": CHANCE
}
FLOOR, PALE = "#8465c4", "#b3b7be"
#: Colour and dashes of each series, in the order of the legend.
LOOKS: dict[str, tuple[str, list[int]]] = {
    VALUES: (BLUE, [1, 0]),
    KEYS: (ORANGE, [1, 0]),
    INPUT: (RED, [1, 0]),
    ENCODER: (GREEN, [9, 3, 2, 3]),
    TWIN: (GREY, [6, 4]),
    POSITION: (FLOOR, [6, 4]),
    CHANCE: (FLOOR, [2, 3]),
    OTHERS: (PALE, [1, 0]),
}
#: What is said of a series that is drawn.
NOTES = {
    INPUT: "Red rule: input visual representation (the projector's output) with its interval.",
    ENCODER: "Green dash-dotted rule: the vision encoder at its best layer.",
    WHOLE: "Dashed line of a strong line's colour: all heads of the layer concatenated.",
    TWIN: "Grey dashed line: best head of the same model untrained.",
    OTHERS: "Thin grey lines: best head of the other trained models and runs.",
}


def build(query: Query) -> Iterator[Block]:
    curves = query("probe_curves")
    if curves.is_empty():
        yield Missing("No probe has been scored in this store yet.", _next(query))
        return
    twins = query("twins")
    rows = _named(curves, query("figures"), twins)
    rows = pl.concat([rows, _twins(rows, twins)])
    yield Note(READING.format(notes="".join(f" {note}" for note in _notes(rows))))
    several = rows["dataset"].n_unique() > 1
    for (dataset, probe), part in rows.group_by("dataset", "probe", maintain_order=True):
        yield from _panels(str(dataset), str(probe), part, several)


def _next(query: Query) -> str:
    """The command that gives the first score: a probe of a run whose data set has pairs, else an ingest."""
    paired = query("dataset_summary").filter(pl.col("pairs") > 0).select("dataset")
    runs = query("provenance").join(paired, on="dataset", how="semi")["run_id"]
    return f"kvstore probe correspondence --run {runs[0]}" if len(runs) else "kvstore ingest shapes"


def _named(curves: pl.DataFrame, figures: pl.DataFrame, twins: pl.DataFrame) -> pl.DataFrame:
    """Rows with the words that people read, in reading order: trained models first, encoders alone last.

    What `figures` does not name goes by its own name, last.
    """
    return (
        curves.join(figures, on=["probe", "metric"], how="left")
        .with_columns(
            title=pl.col("title").fill_null(pl.col("probe")),
            shown=pl.col("shown").fill_null(pl.col("metric")),
            items=pl.col("items").fill_null("items"),
            drawn=pl.col("drawn").fill_null("units"),
            series=pl.col("site").replace_strict(SERIES),
            who=pl.when(pl.col("model") == pl.col("run_id"))
            .then("model")
            .otherwise(pl.format("{} · {}", "model", "run_id")),
        )
        .sort(
            "place",
            "encoder_alone",
            "untrained",
            ~pl.col("run_id").is_in(twins["run_id"].implode()),
            "run_id",
            nulls_last=True,
            maintain_order=True,
        )
    )


def _twins(rows: pl.DataFrame, twins: pl.DataFrame) -> pl.DataFrame:
    """The best heads of untrained twins (values, else keys), as a series of the runs they are twins of."""
    heads = rows.filter(pl.col("heads").is_not_null())
    valued = heads.filter(pl.col("site") == "value").select("run_id", "probe").unique()
    chosen = pl.concat(
        [
            heads.filter(pl.col("site") == "value"),
            heads.filter(pl.col("site") == "key").join(valued, on=["run_id", "probe"], how="anti"),
        ]
    )
    whose = rows.select("run_id", "who").unique().join(twins.select("run_id", "twin"), on="run_id")
    return (
        chosen.drop("who")
        .join(whose.select("who", twin="run_id", run_id="twin"), on="run_id")
        .with_columns(
            run_id=pl.col("twin"),
            series=pl.lit(TWIN),
            heads=None,
            figures=None,
            concatenated=None,
            untrained=False,
        )
        .select(rows.columns)
        .cast(rows.schema)
    )


def _panels(dataset: str, probe: str, rows: pl.DataFrame, several: bool) -> Iterator[Chart]:
    """The probe's chart; more of them where its runs have more rows than one chart may hold."""
    batches = list(_batches(rows))
    for number, part in zip(count(1), batches, strict=False):
        words = [rows.item(0, "title")] + ([dataset] if several else [])
        words += [f"runs {number} of {len(batches)}"] if len(batches) > 1 else []
        suffix = f".{number}" if len(batches) > 1 else ""
        yield Chart(
            f"{dataset}.{probe}{suffix}".replace("/", "."),
            ", ".join(words),
            _curves(part),
            " ".join(_floors(part)),
        )


def _batches(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Whole runs, as many at a time as one chart may hold, each with a line of words for every figure."""
    sizes = rows.group_by("who", maintain_order=True).agg(n=pl.len() + pl.col("metric").n_unique())
    batch: list[str] = []
    held = 0
    for who, n in sizes.iter_rows():
        if batch and held + n > MAX_ROWS:
            yield rows.filter(pl.col("who").is_in(batch))
            batch, held = [], 0
        batch.append(who)
        held += n
    yield rows.filter(pl.col("who").is_in(batch))


def _notes(rows: pl.DataFrame) -> Iterator[str]:
    """What the caption says of what is drawn beside the single heads."""
    drawn = set(rows["series"])
    drawn |= {WHOLE} if rows["concatenated"].count() else set()
    drawn |= {OTHERS} if _has_others(rows) else set()
    yield from (words for series, words in NOTES.items() if series in drawn)


def _has_others(rows: pl.DataFrame) -> bool:
    """Whether some panel has two runs of trained models or more with image values."""
    valued = rows.filter(pl.col("series") == VALUES, ~pl.col("untrained"))
    runs = valued.group_by("dataset", "probe").agg(pl.col("run_id").n_unique())
    return bool((runs["run_id"] > 1).any())


def _floors(rows: pl.DataFrame) -> Iterator[str]:
    """What the floors of a panel are, where it has them."""
    for series, column, dashes in ((POSITION, "position", "dashed"), (CHANCE, "chance", "dotted")):
        said = (
            rows.filter(pl.col("series") == series).select("shown", said=column).unique(maintain_order=True)
        )
        if said.height:
            yield f"Floor, violet {dashes}: {series}{_floor(said)}."


def _floor(said: pl.DataFrame) -> str:
    """What a floor does, figure by figure where they differ; nothing where nobody says."""
    told = said.drop_nulls("said")
    if told["said"].n_unique() < 2:
        return f" ({told.item(0, 'said')})" if told.height else ""
    return " (" + "; ".join(f"{shown}: {words}" for shown, words in told.iter_rows()) + ")"


def _drawn(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that the chart embeds, and for each run and figure a line of words that names it."""
    kept = ("who", "shown", "series", "layer", "head", "value", "low", "high", "n", "units")
    marks = rows.select(*kept, "heads", "figures", "concatenated", "untrained")
    words = (
        rows.filter(pl.col("series") != TWIN)
        .group_by("who", "shown", "items", "drawn", maintain_order=True)
        .agg(n=_range("n"), units=_range("units"))
        .with_columns(
            told=pl.when(pl.col("items") == pl.col("drawn"))
            .then(pl.format("{} {}", "n", "items"))
            .otherwise(pl.format("{} {} of {} {}", "n", "items", "units", "drawn"))
        )
        .select(
            "who",
            "shown",
            series=pl.lit("words"),
            words=pl.format("{}  –  {}, n = {}", "shown", "who", "told"),
        )
    )
    floats = [pl.col(pl.Float64).round(5), pl.col("figures").list.eval(pl.element().round(5))]
    return pl.concat([marks, words], how="diagonal").with_columns(floats)


def _range(column: str) -> pl.Expr:
    """The numbers of a group in words: the one that it has, or the least and the most."""
    least, most = pl.min(column), pl.max(column)
    return (
        pl.when(least == most)
        .then(pl.format("{}", most))
        .otherwise(pl.format("{} to {}", least, most))
        .fill_null("unknown")
    )


def _curves(rows: pl.DataFrame) -> alt.LayerChart:
    """Rules, others, twin, heads, the best head's interval, then the best head, so that it lies on top."""
    runs, figures = (rows[name].unique(maintain_order=True).to_list() for name in ("who", "shown"))
    run = _choice("run", "Model and run", runs)
    figure = _choice(re.sub(r"\W", "_", f"figure_{rows.item(0, 'probe')}"), "Figure", figures)
    drawn = _drawn(rows)
    base = alt.Chart(drawn).transform_filter(f"datum.shown == {figure.name}")
    chosen = base.transform_filter(f"datum.who == {run.name}")
    others = base.transform_filter(
        f"datum.who != {run.name} && !datum.untrained && datum.series == '{VALUES}'"
    )
    here = [name for name in LOOKS if name in set(drawn["series"])]
    here += [OTHERS] if _has_others(rows) else []
    colour, dash = (
        channel("series:N", title=None, scale=alt.Scale(domain=here, range=looks), legend=LEGEND)
        for channel, looks in (
            (alt.Color, [LOOKS[name][0] for name in here]),
            (alt.StrokeDash, [LOOKS[name][1] for name in here]),
        )
    )
    x = alt.X("layer:Q", scale=alt.Scale(nice=False), axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))
    layered = chosen.transform_filter(alt.FieldOneOfPredicate("series", [VALUES, KEYS]))
    heads = layered.transform_flatten(["heads", "figures"]).transform_filter("datum.heads != null")
    best = layered.transform_filter("datum.head != null")
    whole = layered.transform_calculate(whole="datum.head != null ? datum.concatenated : datum.value")
    twin = chosen.transform_filter(alt.FieldEqualPredicate(TWIN, "series"))
    rules = chosen.transform_filter(alt.FieldOneOfPredicate("series", [INPUT, ENCODER, POSITION, CHANCE]))
    words = chosen.transform_filter("datum.series == 'words'")
    return alt.layer(
        words.mark_text(align="left", baseline="bottom", fontSize=12.5).encode(
            x=alt.value(0), y=alt.value(-6), text="words:N"
        ),
        rules.mark_rect(opacity=0.07).encode(y="low:Q", y2="high:Q", color=colour),
        rules.mark_rule(strokeWidth=1.8).encode(
            y=y, color=colour, strokeDash=dash, tooltip=_told("series", "layer")
        ),
        others.mark_line(strokeWidth=1.1, color=PALE).encode(
            x=x, y=y, detail="who:N", tooltip=_told("who", "layer", "head")
        ),
        twin.mark_line(strokeWidth=1.8).encode(
            x=x, y=y, color=colour, strokeDash=dash, tooltip=_told("series", "layer", "head")
        ),
        heads.mark_line(strokeWidth=1, opacity=0.3).encode(
            x=x, y=alt.Y("figures:Q", title=None), color=colour, detail="heads:N"
        ),
        best.mark_area(opacity=0.18).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        whole.mark_line(strokeDash=[5, 4], strokeWidth=1.5).encode(
            x=x, y=alt.Y("whole:Q", title=None), color=colour
        ),
        best.mark_line(point={"size": 34}).encode(
            x=x, y=y, color=colour, tooltip=_told("series", "layer", "head")
        ),
    ).add_params(run, figure)


LEGEND = alt.Legend(
    orient="top",
    columns=4,
    offset=28,
    symbolType="stroke",
    symbolOpacity=1,
    symbolStrokeWidth=2.5,
    symbolSize=400,
)


def _choice(name: str, words: str, options: list[str]) -> alt.Parameter:
    """What the reader chooses from a list; the first at first, and no list where there is one only."""
    if len(options) < 2:
        return alt.param(name=name, value=options[0])
    return alt.param(name=name, value=options[0], bind=alt.binding_select(options=options, name=f"{words} "))


def _told(*names: str) -> list[str | alt.Tooltip]:
    figures = [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")]
    return [*names, *figures, *(alt.Tooltip(f"{name}:Q", format=",") for name in ("n", "units"))]
