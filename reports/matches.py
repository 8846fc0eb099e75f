"""Matches.

Semantic correspondence to look at: a keypoint in one image, and where image values find it in another, layer
by layer, by patches or by pixels of upsampled maps, as the run was probed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from kvstore.report import BLUE, GREEN, RED, Block, Box, Gallery, Missing, Query, Ring, Strip, Thumbnail, Tile

LABEL = "observational"
PROTOCOL = (
    "the target patch most similar by cosine to the patch of the source keypoint, or by pixels of feature"
    " maps that are upsampled to the image (Tang et al. 2023); a match is right within 0.10 of the longer"
    " side of the target object's box (PCK@0.10). The best head of a layer is chosen by PCK@0.10 on the"
    " same pairs."
)
CAPTION = (
    "First picture of a row: the source image with the keypoint (green) and the patch that contains it."
    " Then the target image: the truth in a green circle of the radius that counts as a match, and the"
    " {place} found by {input}the best head of each layer shown, blue where it counts, red where it does"
    " not. Off: distance to the truth over the longer side of the object's box. How the rows were chosen:"
    " of each of the {pairs} pairs one keypoint by lot (its hash), those in order of the error that the"
    " best {site}, {where}, makes, and of these the best, the worst, and others at even steps between."
)
#: Probe -> the kind of place that it finds.
PLACES = {"correspondence": "patch", "correspondence-bilinear": "pixel"}
SITES = {"value": "image value", "key": "image key", "encoder": "encoder layer", "input": "input"}


def build(query: Query) -> Iterator[Block]:
    probed = query("probed").filter(pl.col("probe").is_in(list(PLACES)))
    if probed.is_empty():
        yield Missing(
            "No run has been probed for correspondence yet.", "kvstore probe correspondence --run RUN"
        )
        return
    for run, model, probe in probed.select("run_id", "model", "probe").rows():
        rows, place = query("match_gallery", run=run, probe=probe), PLACES[probe]
        strips = [_strip(query, part, place) for _, part in rows.group_by("place", maintain_order=True)]
        shown = [strip for strip in strips if strip]
        if shown:
            title = f"Keypoints and their matches, by {place}"
            yield Gallery(title, shown, _caption(rows, place), group=f"{model} · {run}")
        if len(shown) < len(strips):
            yield _lost(query, len(strips) - len(shown), f"{model} · {run}")


def _lost(query: Query, count: int, who: str) -> Missing:
    why = next(iter(query.absent.values()))
    what = f"{count} of the pairs chosen cannot be shown: {why}. Put the images back, then build."
    return Missing(what, "kvstore report build matches", group=who)


def _caption(rows: pl.DataFrame, place: str) -> str:
    first = rows.row(0, named=True)
    where = _where(first["best_layer"], first["best_head"])
    entering = "the input representation and by " if "input" in rows["site"] else ""
    site = SITES[first["best_site"]]
    return CAPTION.format(place=place, input=entering, pairs=first["pairs"], site=site, where=where)


def _where(layer: int, head: int | None) -> str:
    return f"layer {layer}" + (f" head {head}" if head is not None else "")


def _strip(query: Query, rows: pl.DataFrame, place: str) -> Strip | None:
    """One keypoint's row; None where one of its images cannot be had."""
    first = rows.row(0, named=True)
    source, target = query.thumbnail(first["source"]), query.thumbnail(first["target"])
    if source is None or target is None:
        return None
    name = f"{first['name'].replace('_', ' ')} of {first['category']}"
    tiles = [
        _source(source, name, first),
        *(_target(target, name, row, place) for row in rows.iter_rows(named=True)),
    ]
    best = f"{first['place']} of {first['pairs']} by error"
    return Strip(f"{name[0].upper()}{name[1:]} ({best})", tiles)


def _source(image: Thumbnail, name: str, row: dict[str, Any]) -> Tile:
    patch = Box(row["source_x0"], row["source_y0"], row["source_x1"], row["source_y1"], BLUE)
    point = Ring(row["source_x"], row["source_y"], 0, GREEN)
    return Tile(image, "source", f"Source image, {name}", (patch, point))


def _target(image: Thumbnail, name: str, row: dict[str, Any], place: str) -> Tile:
    colour = BLUE if row["hit"] else RED
    patch, pixel = (
        Box(row["x0"], row["y0"], row["x1"], row["y1"], colour),
        Ring(row["x"], row["y"], 0, colour),
    )
    found = patch if place == "patch" else pixel
    truth = Ring(row["target_x"], row["target_y"], row["reach"], GREEN)
    where = "input" if row["site"] == "input" else _where(row["layer"], row["head"])
    told = f"{where}: {'right' if row['hit'] else 'wrong'}, off by {row['error']:.2f}"
    return Tile(image, told, f"Target image, {name}, {told}", (truth, found))
