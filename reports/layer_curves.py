"""Layer curves.

For each probe, the score of every image value (one layer, one KV head) along the language model's layers,
against what enters the model. A curve above the red rule means that the language model holds more for this
task than the input visual representation it was given.
"""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import polars as pl

from kvstore.report import BLUE, GREY, ORANGE, RED, Block, Chart, Missing, Query, Table

LABEL = "observational"
PROTOCOL = (
    "each score is over the items of its probe with a bootstrap 95 % interval over items; the best head of a"
    " layer, and the encoder's best layer, are chosen on the same items they are scored on, so they are upper"
    " envelopes. Correspondence: the centre of the target patch most similar by cosine to the patch of the"
    " source keypoint (the `patch` variant of Tang et al. 2023); PCK at α counts keypoints within α of the"
    " longer side of the target object's box, items are pairs. Keys are compared as the cache holds them,"
    " after the rotary embedding, so a part of their similarity is that of positions."
)
HELD_OUT = (
    "The layer and head with the highest PCK on one half of the pairs, and their PCK on the other half, which"
    " had no part in the choice (its pairs may show the same images), with a bootstrap 95 % interval over"
    " them; pairs: how many are in that other half."
)
BEST = {
    "alpha": "α",
    "chosen_on": "PCK, half that chose",
    "value": "PCK, other half",
    "low": "from",
    "high": "to",
}
CAPTION = (
    "Faint lines: single heads. Strong line with dots: the layer's best head; band: its bootstrap 95 %"
    " interval. Dashed line of the same colour: all heads of the layer concatenated, where scored."
    " Red rule: input visual representation (the projector's output) with its interval{encoder}."
    " n = {n} items. Point at a dot for head, value and interval."
)


def build(query: Query) -> Iterator[Block]:
    scores = query("layer_scores")
    if scores.is_empty():
        yield Missing("No probe has been scored in this store yet.", _next(query))
        return
    for (run,), rows in scores.group_by("run_id", maintain_order=True):
        for (probe, metric), part in rows.group_by("probe", "metric", maintain_order=True):
            yield _panel(str(run), str(probe), str(metric), part)
        best = query("pck_best", run=run).drop("run_id")
        if best.height:
            yield Table(
                "Best layer and head of correspondence, held out", best, HELD_OUT, BEST, group=str(run)
            )


def _next(query: Query) -> str:
    """The command that gives the first score: a probe of a run whose data set has pairs, else an ingest."""
    paired = query("dataset_summary").filter(pl.col("pairs") > 0).select("dataset")
    runs = query("provenance").join(paired, on="dataset", how="semi")["run_id"]
    return f"kvstore probe correspondence --run {runs[0]}" if len(runs) else "kvstore ingest shapes"


def _panel(run: str, probe: str, metric: str, rows: pl.DataFrame) -> Chart:
    low, high = rows.select(low=pl.min("n"), high=pl.max("n")).row(0)
    encoder = rows.filter(pl.col("site") == "encoder").sort("value").tail(1)
    note = (
        f"; grey dashed rule: the vision encoder at its best layer, {encoder.item(0, 'layer')}"
        if encoder.height
        else ""
    )
    kept = rows.filter(pl.col("site") != "encoder").vstack(encoder).drop("run_id", "probe", "metric")
    return Chart(
        f"{run}.{probe}.{metric}",
        f"{probe.capitalize()}, {_shown(metric)}",
        _curves(alt.Chart(kept), _shown(metric)),
        CAPTION.format(encoder=note, n=f"{low:,}" if low == high else f"{low:,} to {high:,}"),
        group=run,
    )


def _shown(metric: str) -> str:
    return metric.replace("pck_image", "PCK per image ").replace("pck", "PCK")


def _curves(base: alt.Chart, metric: str) -> alt.LayerChart:
    """Rules, heads, the best head's interval, then the best head, so that the best lies on top."""
    colour = alt.Color(
        "site:N",
        title=None,
        scale=alt.Scale(domain=["value", "key"], range=[BLUE, ORANGE]),
        legend=alt.Legend(
            orient="top",
            symbolType="stroke",
            symbolOpacity=1,
            symbolStrokeWidth=2.5,
            labelExpr="'image ' + datum.label + 's'",
        ),
    )
    x = alt.X("layer:Q", scale=alt.Scale(nice=False), axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    y = alt.Y("value:Q", title=metric, scale=alt.Scale(zero=False))
    layered = base.transform_filter("datum.site == 'value' || datum.site == 'key'")
    heads = layered.transform_filter("datum.head != null").encode(x=x, y=y, color=colour, detail="head:N")
    whole = layered.transform_filter("datum.head == null").encode(x=x, y=y, color=colour)
    best = layered.transform_filter("datum.head != null && datum.best")
    return alt.layer(
        *_rule(base.transform_filter("datum.site == 'input'"), RED, [1, 0]),
        *_rule(base.transform_filter("datum.site == 'encoder'"), GREY, [6, 4]),
        heads.mark_line(strokeWidth=1, opacity=0.3),
        best.mark_area(opacity=0.18).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        whole.mark_line(strokeDash=[5, 4], strokeWidth=1.5),
        best.mark_line(point={"size": 34}).encode(
            x=x, y=y, color=colour, tooltip=_told("site", "layer", "head")
        ),
    )


def _rule(level: alt.Chart, colour: str, dash: list[int]) -> list[alt.Chart]:
    """A level that has no layer of the language model, with its interval behind it."""
    band = level.mark_rect(color=colour, opacity=0.1).encode(y="low:Q", y2="high:Q")
    line = level.mark_rule(color=colour, strokeWidth=1.8, strokeDash=dash)
    return [band, line.encode(y="value:Q", tooltip=_told("site"))]


def _told(*names: str) -> list[str | alt.Tooltip]:
    figures = [alt.Tooltip(f"{name}:Q", format=".4f") for name in ("value", "low", "high")]
    return [*names, *figures, alt.Tooltip("n:Q", format=",")]
