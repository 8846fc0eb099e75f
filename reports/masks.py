"""Masks.

What the probes that segment predict from image values, layer by layer, beside the image and the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from kvstore import masks
from kvstore.contracts import Grid
from kvstore.pixels import Cells
from kvstore.report import BLUE, GREEN, GREY, Block, Gallery, Missing, Query, Shade, Strip, Thumbnail, Tile

LABEL = "observational"
PROTOCOL = (
    "IoU of one prediction: pixels (of foreground: patches) that are both over those that are either, void"
    " pixels left out (of tracking, void is background). The best"
    " head of a layer is chosen by the probe's main figure on the same items."
)
CAPTION = (
    "Image; truth (outlined in green, the rest darkened; grey: void pixels); prediction (in"
    " blue) by {input}the best head of each layer shown, with its IoU. Which predictions: {among} in order"
    " of the IoU that the best {site}, {where}, gives them, and of that order those in the middle of {items}"
    " equal parts."
)
SITES = {"value": "image value", "key": "image key", "encoder": "encoder layer", "input": "input"}
#: The probes that predict no masks: report matches.
ELSEWHERE = ("correspondence", "correspondence-bilinear")
#: Layers shown: with image, truth and input they fill a line.
LAYERS = 5


def build(query: Query) -> Iterator[Block]:
    named = query("figures").filter("main").select("place", "probe", "metric", "title")
    probed = query("probed").join(named, on="probe", maintain_order="left")
    chosen = probed.filter(~pl.col("probe").is_in(ELSEWHERE))
    if chosen.is_empty():
        yield Missing("No probe has predicted masks yet.", "kvstore probe foreground --run RUN")
        return
    for (run, model), probes in chosen.group_by("run_id", "model", maintain_order=True):
        for probe, metric, title in probes.sort("place").select("probe", "metric", "title").rows():
            yield from _gallery(query, str(run), f"{model} · {run}", probe, metric, title)


def _gallery(query: Query, run: str, who: str, probe: str, metric: str, title: str) -> Iterator[Block]:
    """One probe's predictions, and what is said of those whose image cannot be had."""
    rows = query("mask_gallery", run=run, probe=probe, metric=metric, layers=LAYERS)
    strips = [_strip(query, probe, part) for _, part in rows.group_by("place", maintain_order=True)]
    shown = [strip for strip in strips if strip]
    if shown:
        yield Gallery(title, shown, _caption(rows, len(strips)), group=who)
    if len(shown) < len(strips):
        why = next(iter(query.absent.values()))
        what = f"{title}: {len(strips) - len(shown)} of the images chosen cannot be shown: {why}."
        yield Missing(f"{what} Put the images back, then build.", "kvstore report build masks", group=who)


def _caption(rows: pl.DataFrame, items: int) -> str:
    first = rows.row(0, named=True)
    where = _where(first["best_layer"], first["best_head"])
    site = SITES[first["best_site"]]
    entering = "the input representation and by " if "input" in rows["site"] else ""
    return CAPTION.format(input=entering, among=f"{first['among']:,}", site=site, where=where, items=items)


def _where(layer: int, head: int | None) -> str:
    return f"layer {layer}" + (f" head {head}" if head is not None else "")


def _strip(query: Query, probe: str, rows: pl.DataFrame) -> Strip | None:
    """One prediction's row: image, truth, then layer by layer; None where the image cannot be had."""
    first = rows.row(0, named=True)
    image = query.thumbnail(first["sha256"])
    if image is None:
        return None
    label = _label(probe, first)
    void = [Shade(masks.union(first["void"]), GREY)] if first["void"] else []
    truth = [Shade(masks.union(first["truth"]), GREEN, spot=True)] if first["truth"] else []
    tiles = [
        Tile(image, "image", f"Image, {label}"),
        Tile(image, "truth", f"Truth, {label}", (*truth, *void)),
        *(_predicted(image, label, row) for row in rows.iter_rows(named=True)),
    ]
    return Strip(f"{label} ({first['place']:,} of {first['among']:,}, from the worst)", tiles)


def _label(probe: str, row: dict[str, Any]) -> str:
    """What the prediction is of, in words."""
    frame = f", object {row['object_id']}, frame {row['number']}"
    more = {"tracking": frame, "tracking-void-out": frame}
    more |= {"fewshot-segmentation": f", episode {row['number']}"}
    return f"{row['label']}{more.get(probe, '')}"


def _predicted(image: Thumbnail, label: str, row: dict[str, Any]) -> Tile:
    where = "input" if row["site"] == "input" else _where(row["layer"], row["head"])
    told = f"{where}: {row['iou']:.2f}" if row["iou"] is not None else f"{where}: nothing"
    return Tile(image, told, f"Prediction of {label} by {told}", (Shade(_mask(image, row), BLUE, spot=True),))


def _mask(image: Thumbnail, row: dict[str, Any]) -> str:
    """The predicted pixels; those of the predicted patches where patches were predicted."""
    if row["bits"] is None:
        return str(row["predicted"])
    grid = Grid(row["rows"], row["columns"], (row["x0"], row["y0"], row["x1"], row["y1"]))
    bits = np.array([bit == "1" for bit in row["bits"]])
    return masks.from_array(Cells(image.width, image.height, grid).spread(bits))
