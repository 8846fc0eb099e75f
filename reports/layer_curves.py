"""Layer curves.

For each probe, the score of every image value (one layer, one KV head) along the language model's layers,
against what enters the model and against floors. A curve above the red rule means that the language model
holds more for this task than the input visual representation it was given; a curve that is not above the
floors shows nothing that training has put there.
"""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import polars as pl

from kvstore.report import BLUE, GREEN, GREY, ORANGE, RED, Block, Chart, Missing, Query, Table

LABEL = "observational"
PROTOCOL = (
    "each score is over the items of its probe with a bootstrap 95 % interval over items; the best head of a"
    " layer, and the encoder's best layer, are chosen on the same items they are scored on, so they are upper"
    " envelopes. Correspondence: the centre of the target patch most similar by cosine to the patch of the"
    " source keypoint (the `patch` variant of Tang et al. 2023); PCK at α counts keypoints within α of the"
    " longer side of the target object's box, items are pairs. Foreground: each patch goes to the nearer, by"
    " cosine, of the mean foreground and the mean background vector of the other half of the images; IoU of"
    " patches, all intersections over all unions (IoU per image: the mean over images), items are images."
    " Keys are compared as the cache holds them, after the rotary embedding, so a part of their similarity is"
    " that of positions."
)
HELD_OUT = (
    "The layer and head with the highest figure on one half of the items, and their figure on the other half,"
    " which had no part in the choice (its pairs may show the same images), with a bootstrap 95 % interval"
    " over it; n: items of that other half. Floors, on the same half: position looks only at places, chance"
    " at nothing."
)
BEST = {"chosen_on": "half that chose", "value": "other half", "low": "from", "high": "to"}
CAPTION = (
    "Faint lines: single heads. Strong line with dots: the layer's best head; band: its bootstrap 95 %"
    " interval. Dashed line of the same colour: all heads of the layer concatenated, where scored."
    " Red rule: input visual representation (the projector's output) with its interval{notes}."
    " n = {n} items. Point at a dot for head, value and interval."
)
FLOORS = {
    "correspondence": (
        "the target patch at the keypoint's own relative place",
        "a target patch drawn at random, exactly",
    ),
    "foreground": (
        "the same class means of what tells only where a patch is",
        "every patch taken for foreground, the best of all blind guesses",
    ),
}
VALUES, KEYS, INPUT, ENCODER = "image values", "image keys", "input representation", "vision encoder"
TWIN, POSITION, CHANCE = "untrained twin", "position only", "chance"
SERIES = {"value": VALUES, "key": KEYS, "input": INPUT, "encoder": ENCODER, "position": POSITION} | {
    "chance": CHANCE
}
FLOOR = "#8465c4"
#: Colour and dashes of each series, in the order of the legend.
LOOKS: dict[str, tuple[str, list[int]]] = {
    VALUES: (BLUE, [1, 0]),
    KEYS: (ORANGE, [1, 0]),
    INPUT: (RED, [1, 0]),
    ENCODER: (GREEN, [9, 3, 2, 3]),
    TWIN: (GREY, [6, 4]),
    POSITION: (FLOOR, [6, 4]),
    CHANCE: (FLOOR, [2, 3]),
}


def build(query: Query) -> Iterator[Block]:
    scores = query("layer_scores")
    if scores.is_empty():
        yield Missing("No probe has been scored in this store yet.", _next(query))
        return
    twins = dict(query("twins").select("run_id", "twin").iter_rows())
    for (run,), rows in scores.group_by("run_id", maintain_order=True):
        twin = scores.filter(pl.col("run_id") == twins.get(run, ""))
        for (probe, metric), part in rows.group_by("probe", "metric", maintain_order=True):
            same = twin.filter(pl.col("probe") == probe, pl.col("metric") == metric)
            yield _panel(str(run), str(probe), str(metric), part, same)
        best = query("best_layer", run=run).drop("run_id")
        for (probe,), part in best.group_by("probe", maintain_order=True):
            title = f"Best layer and head of {probe}, held out"
            yield Table(title, part.drop("probe"), HELD_OUT, BEST, group=str(run))


def _next(query: Query) -> str:
    """The command that gives the first score: a probe of a run whose data set has pairs, else an ingest."""
    paired = query("dataset_summary").filter(pl.col("pairs") > 0).select("dataset")
    runs = query("provenance").join(paired, on="dataset", how="semi")["run_id"]
    return f"kvstore probe correspondence --run {runs[0]}" if len(runs) else "kvstore ingest shapes"


def _panel(run: str, probe: str, metric: str, rows: pl.DataFrame, twin: pl.DataFrame) -> Chart:
    low, high = rows.select(low=pl.min("n"), high=pl.max("n")).row(0)
    encoder = rows.filter(pl.col("site") == "encoder").sort("value").tail(1)
    kept = rows.filter(pl.col("site") != "encoder").vstack(encoder)
    twin = _best_heads(twin)
    drawn = pl.concat([_named(kept), twin]).drop("run_id", "probe", "metric")
    return Chart(
        f"{run}.{probe}.{metric}",
        f"{probe.capitalize()}, {_shown(metric)}",
        _curves(drawn, _shown(metric)),
        CAPTION.format(
            notes="".join(_notes(probe, set(drawn["series"]), encoder, twin)),
            n=f"{low:,}" if low == high else f"{low:,} to {high:,}",
        ),
        group=run,
    )


def _best_heads(twin: pl.DataFrame) -> pl.DataFrame:
    """The best head of each layer of a twin's image values (keys where it has no values)."""
    heads = twin.filter(pl.col("best"), pl.col("head").is_not_null())
    sites = set(heads["site"])
    return _named(heads.filter(pl.col("site") == ("value" if "value" in sites else "key")), TWIN)


def _named(rows: pl.DataFrame, series: str | None = None) -> pl.DataFrame:
    name = pl.lit(series) if series else pl.col("site").replace_strict(SERIES)
    return rows.with_columns(name.cast(pl.String).alias("series"))


def _notes(probe: str, series: set[str], encoder: pl.DataFrame, twin: pl.DataFrame) -> Iterator[str]:
    """What the caption says of what is drawn beside the image values."""
    if encoder.height:
        yield f"; green dash-dotted rule: the vision encoder at its best layer, {encoder.item(0, 'layer')}"
    position, chance = FLOORS.get(probe, ("what tells only where a patch is", "a blind guess"))
    if POSITION in series:
        yield f". Floors: violet dashed rule: position only ({position})"
    if CHANCE in series:
        yield f"; violet dotted rule: chance ({chance})"
    if twin.height:
        site, run, n = twin.select("site", "run_id", "n").row(0)
        yield f"; grey dashed line: best head of the image {site}s of the untrained twin ({run}, n = {n:,})"


def _shown(metric: str) -> str:
    for plain, shown in (
        ("pck_image", "PCK per image "),
        ("pck", "PCK"),
        ("iou_image", "IoU per image"),
        ("iou", "IoU"),
    ):
        if metric.startswith(plain):
            return metric.replace(plain, shown)
    return metric


def _curves(rows: pl.DataFrame, metric: str) -> alt.LayerChart:
    """Rules, twin, heads, the best head's interval, then the best head, so that the best lies on top."""
    base = alt.Chart(rows)
    here = [name for name in LOOKS if name in set(rows["series"])]
    legend = alt.Legend(
        orient="top", columns=4, symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5, symbolSize=400
    )
    colour = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=here, range=[LOOKS[name][0] for name in here]),
        legend=legend,
    )
    dash = alt.StrokeDash(
        "series:N",
        title=None,
        scale=alt.Scale(domain=here, range=[LOOKS[name][1] for name in here]),
        legend=legend,
    )
    x = alt.X("layer:Q", scale=alt.Scale(nice=False), axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    y = alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False))
    layered = base.transform_filter(alt.FieldOneOfPredicate("series", [VALUES, KEYS]))
    heads = layered.transform_filter("datum.head != null").encode(x=x, y=y, color=colour, detail="head:N")
    whole = layered.transform_filter("datum.head == null").encode(x=x, y=y, color=colour)
    best = layered.transform_filter("datum.head != null && datum.best")
    twin = base.transform_filter(alt.FieldEqualPredicate(TWIN, "series"))
    rules = base.transform_filter(alt.FieldOneOfPredicate("series", [INPUT, ENCODER, POSITION, CHANCE]))
    told = _told("series", "layer", "head")
    return alt.layer(
        rules.mark_rect(opacity=0.07).encode(y="low:Q", y2="high:Q", color=colour),
        rules.mark_rule(strokeWidth=1.8).encode(
            y="value:Q", color=colour, strokeDash=dash, tooltip=_told("series")
        ),
        twin.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=told),
        heads.mark_line(strokeWidth=1, opacity=0.3),
        best.mark_area(opacity=0.18).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        whole.mark_line(strokeDash=[5, 4], strokeWidth=1.5),
        best.mark_line(point={"size": 34}).encode(x=x, y=y, color=colour, tooltip=told),
    )


def _told(*names: str) -> list[str | alt.Tooltip]:
    figures = [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")]
    return [*names, *figures, alt.Tooltip("n:Q", format=",")]
