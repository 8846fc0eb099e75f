"""Input-agnostic keys.

For each layer and KV head, the share of the key's energy that varies from image to image: variance over
images divided by the mean square, at each patch position, then averaged over positions. A share near 0 means
that the key is nearly the same whatever the image shows; near 1, that it is all image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import altair as alt
import polars as pl

from kvstore.report import BLUE, Block, Chart, Missing, Note, Query

LABEL = "observational"
PROTOCOL = (
    "variance = E|k|² - |E k|² over the images of one grid, at one position (keys are stored after the rotary"
    " embedding, so positions and grids are never mixed); a population variance, (n - 1) / n of the unbiased."
)
FLOOR = 1e-6  # the logarithmic scales' lowest share
SHARE = "share of E|k|² that varies over images"


def build(query: Query) -> Iterator[Block]:
    table = query("key_variance")
    if table.is_empty():
        yield Missing("No run has stored keys yet.", "kvstore ingest shapes --sites value,key")
        return
    for (run,), rows in table.group_by("run_id", maintain_order=True):
        yield from _run(query, str(run), rows)


def _run(query: Query, run: str, rows: pl.DataFrame) -> Iterator[Block]:
    main = rows.filter("main_grid").with_columns(drawn=pl.col("share").clip(FLOOR))
    grid, images = f"{main.item(0, 'rows')} x {main.item(0, 'columns')}", _least(main, "images")
    if images < 2:
        what = f"Run {run} has {images} image on its {grid} grid; a variance over images needs 2 at least."
        yield Missing(what, "kvstore ingest shapes --sites value,key", group=run)
        return
    yield Note(f"{images:,} images on a grid of {grid} patches.{_left_out(query, run)}", group=run)
    yield Chart(f"{run}.heads", "Every layer and head", _heat(main), HEAT.format(n=images), group=run)
    yield Chart(f"{run}.layers", "Along the layers", _curve(main), CURVE.format(n=images), group=run)
    places = query("key_positions", run=run).with_columns(drawn=pl.col("share").clip(FLOOR))
    block = places.item(0, "block")
    sized = f"One cell is {block} x {block} patches, averaged." if block > 1 else "One cell is one patch."
    yield Chart(
        f"{run}.positions",
        "Where: the heads that vary least",
        _map(places),
        f"{PLACES} {sized} n = {images:,} images.",
        group=run,
    )


HEAT = (
    "Dark: input-agnostic, the key is nearly constant over images; bright: the key follows the image."
    " Logarithmic colours up to 1; shares under 10⁻⁶ are drawn as 10⁻⁶. n = {n:,} images."
)
CURVE = (
    "Faint lines: single heads; strong line: their mean. Logarithmic axis. The tooltip gives the 10th and"
    " 90th percentile over patch positions. n = {n:,} images."
)
PLACES = (
    "The heads with the smallest share, smallest first, laid out as the image is, row by row from its"
    " top left; the colours span their own range. Single bright or dark cells are positions unlike their"
    " head."
)


def _left_out(query: Query, run: str) -> str:
    """What of a run's images and grids the charts do not show."""
    grids = query("key_grids", run=run)
    uncounted = grids.filter(pl.col("counted") == 0)
    told = f" {grids.height - uncounted.height - 1} other grids, with fewer images, are not drawn."
    if uncounted.height:
        told += f" {uncounted.height} more are in no statistic: the memory for sums was full when they came."
    return told if grids.height > 1 else ""


def _least(rows: pl.DataFrame, column: str) -> Any:
    return rows.select(pl.min(column)).item()


def _decade(rows: pl.DataFrame) -> float:
    """The power of ten below every share, 0.1 at most, so that a narrow range is not blown up."""
    return float(min(0.1, 10.0 ** math.floor(math.log10(_least(rows, "drawn")) + 1e-9)))


def _colour(low: float, high: float) -> alt.Color:
    ticks = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]
    named = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    named = [tick for tick in named if f"{tick:.0e}"[0] == "1"] if len(named) > 7 else named
    legend = alt.Legend(
        format="~g",
        values=named,
        orient="top",
        direction="horizontal",
        titleOrient="left",
        gradientLength=320,
    )
    scale = alt.Scale(type="log", scheme="viridis", domain=[low, high])
    return alt.Color("drawn:Q", title="share", scale=scale, legend=legend)


def _told() -> list[str | alt.Tooltip]:
    names = ("share", "share_p10", "share_p90", "variance", "mean_square")
    return ["layer:O", "head:O", *(alt.Tooltip(f"{name}:Q", format=".3g") for name in names), "images:Q"]


def _heat(rows: pl.DataFrame) -> alt.Chart:
    axis = alt.Axis(labelAngle=0, grid=False)
    return (
        alt.Chart(rows)
        .mark_rect()
        .encode(
            x=alt.X("layer:O", axis=axis),
            y=alt.Y("head:O", title="KV head", axis=axis),
            color=_colour(_decade(rows), 1.0),
            tooltip=_told(),
        )
    )


def _curve(rows: pl.DataFrame) -> alt.LayerChart:
    x = alt.X("layer:Q", scale=alt.Scale(nice=False), axis=alt.Axis(tickMinStep=1, format="d", grid=False))
    y = alt.Y(
        "drawn:Q",
        title=SHARE,
        scale=alt.Scale(type="log", domain=[_decade(rows), 1.0]),
        axis=alt.Axis(format="~g", tickCount=5),
    )
    heads = alt.Chart(rows).mark_line(
        strokeWidth=1, opacity=0.35, color=BLUE, point={"size": 14, "opacity": 0.35}
    )
    mean = (
        alt.Chart(rows)
        .mark_line(color=BLUE, strokeWidth=2.6)
        .encode(x=x, y=alt.Y("mean(drawn):Q", title=SHARE))
    )
    return heads.encode(x=x, y=y, detail="head:N", tooltip=_told()) + mean


def _map(rows: pl.DataFrame) -> alt.FacetChart:
    """One small map per head; cells are whole pixels, so that no seams show."""
    shown = rows.with_columns(
        title=pl.format("layer {}, head {}", "layer", "head"),
        order=pl.struct("head_share", "layer", "head").rank("dense"),
    )
    cells = max(rows["row"].n_unique(), rows["column"].n_unique())
    step, axis = (
        max(1, 200 // cells),
        alt.Axis(grid=False, labels=False, ticks=False, domain=False, title=None),
    )
    base = alt.Chart(shown, width=alt.Step(step), height=alt.Step(step)).mark_rect()
    cell = base.encode(
        x=alt.X("column:O", axis=axis),
        y=alt.Y("row:O", axis=axis),
        color=_colour(_least(rows, "drawn"), max(rows.select(pl.max("drawn")).item(), 2 * FLOOR)),
        tooltip=["row:Q", "column:Q", alt.Tooltip("share:Q", format=".3g"), "images:Q"],
    )
    facet = alt.Facet("title:N", title=None, sort=alt.SortField("order"), header=alt.Header(labelPadding=4))
    return cell.facet(facet=facet, columns=3)
