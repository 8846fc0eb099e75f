"""A probe's masks as files, in the layout that its benchmark's official evaluation reads.

What is written is one image value's predictions: those of one site, layer and head.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore import masks
from kvstore.errors import UsageError
from kvstore.export import vacant, written_whole
from kvstore.names import lines, place
from kvstore.query import run_analysis

if TYPE_CHECKING:
    import duckdb

    from kvstore.store import Store

_ROWS = """
select m.*, m.mask::varchar as rle, i.width, i.height, d.name
from mask m
join run r using (run_id)
join image i using (image_id)
join (select dataset_id, image_id, min(name) as name from dataset_image group by all) d
    on d.dataset_id = r.dataset_id and d.image_id = m.image_id
where m.run_id = $run and m.probe = $probe and m.site = $site and m.layer = $layer
    and m.head is not distinct from $head
order by d.name, m.number, m.object_id, m.label
"""
_NUMBERS = """
select number, name from category join run using (dataset_id) where run_id = $run order by number
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whose predictions are written."""

    run_id: str
    probe: str
    site: str
    layer: int
    head: int | None

    @property
    def params(self) -> dict[str, Any]:
        """As parameters of SQL."""
        return {
            "run": self.run_id,
            "probe": self.probe,
            "site": self.site,
            "layer": self.layer,
            "head": self.head,
        }


def best(store: Store, run_id: str, probe: str, site: str | None = None) -> Chosen:
    """The layer and head of a site (first the image values) that the probe's first figure found best."""
    rows = run_analysis(store, "best_layer", {"run": run_id, "probe": probe}).to_pylist()
    for wanted in (site,) if site else ("value", "key", "input", "encoder"):
        for row in rows:
            if row["site"] == wanted:
                return Chosen(run_id, probe, wanted, row["layer"], row["head"])
    raise UsageError(
        f"probe '{probe}' of run '{run_id}' has no predictions{f' of site {site}' if site else ''}"
    )


def check(probe: str, folder: Path) -> None:
    """Raises `UsageError` for a probe that predicts no masks of pixels, or a folder that is not empty."""
    if probe not in LAYOUTS:
        raise UsageError(f"probe '{probe}' has no masks to export; those that have: {', '.join(LAYOUTS)}")
    vacant(folder)


def write(store: Store, chosen: Chosen, folder: Path) -> int:
    """Write the masks into `folder`, new or empty, whole or not at all; how many files there are."""
    check(chosen.probe, folder)
    with store.tables() as con, written_whole(folder) as aside:
        LAYOUTS[chosen.probe](con, chosen, aside)
        return sum(path.is_file() for path in aside.rglob("*"))


def _rows(con: duckdb.DuckDBPyConnection, chosen: Chosen) -> Iterator[dict[str, Any]]:
    result = con.execute(_ROWS, chosen.params)
    names = [column[0] for column in result.description or ()]
    while some := result.fetchmany(64):
        yield from (dict(zip(names, row, strict=True)) for row in some)


def _tracking(con: duckdb.DuckDBPyConnection, chosen: Chosen, folder: Path) -> None:
    """DAVIS 2017's results: ``<clip>/<frame>.png`` with object numbers as colours of its palette."""
    tracking = importlib.import_module("kvstore.probes.tracking")
    tracking.submission(con, chosen.run_id, chosen.probe, (chosen.site, chosen.layer, chosen.head), folder)


def _by_label(con: duckdb.DuckDBPyConnection, chosen: Chosen, folder: Path) -> None:
    """MSRC's ground truth: ``<group>/GroundTruth/<image>.png``, white on black."""
    for row in _rows(con, chosen):
        stem = PurePosixPath(row["name"]).stem
        _save(place(folder, row["label"], "GroundTruth", f"{stem}.png"), 255 * _pixels(row))


def _by_episode(con: duckdb.DuckDBPyConnection, chosen: Chosen, folder: Path) -> None:
    """``<category>/<episode>.png``, white on black, and which image it is of; no official layout is known."""
    queries = {}
    for row in _rows(con, chosen):
        path = place(folder, row["label"], f"{row['number']:04d}.png")
        queries[path.relative_to(folder).as_posix()] = row["name"]
        _save(path, 255 * _pixels(row))
    (folder / "queries.json").write_text(json.dumps(queries, indent=1) + "\n", encoding="utf-8")


def _by_class(con: duckdb.DuckDBPyConnection, chosen: Chosen, folder: Path) -> None:
    """ImageNet-S's: ``<wnid>/<image>.png`` with class R + 256 G, 0 for other; the classes in classes.txt."""
    numbers = {name: number for number, name in con.execute(_NUMBERS, {"run": chosen.run_id}).fetchall()}
    labels = con.execute(
        "select distinct label from mask where run_id = $run and probe = $probe and label <> 'other'"
        " order by label",
        {"run": chosen.run_id, "probe": chosen.probe},
    ).fetchall()
    numbers = numbers or {label: number for number, (label,) in enumerate(labels, 1)}
    for name, codes in _class_maps(_rows(con, chosen), numbers):
        image = PurePosixPath(name)
        coded = np.stack([codes % 256, codes // 256, np.zeros_like(codes)], -1)
        _save(place(folder, image.parent.name or "images", f"{image.stem}.png"), coded)
    listed = lines(f"{number} {name}" for name, number in numbers.items())
    (folder / "classes.txt").write_text(listed, encoding="utf-8")


def _class_maps(
    rows: Iterator[dict[str, Any]], numbers: Mapping[str, int]
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Each image's name and the class of each pixel."""
    name, codes = "", np.zeros((0, 0), np.int64)
    for row in rows:
        if row["name"] != name:
            if name:
                yield name, codes
            name, codes = row["name"], np.zeros((row["height"], row["width"]), np.int64)
        if row["label"] in numbers:
            codes[_pixels(row)] = numbers[row["label"]]
    if name:
        yield name, codes


def _by_expression(con: duckdb.DuckDBPyConnection, chosen: Chosen, folder: Path) -> None:
    """One list: each expression's image, object, words, mask as COCO RLE and box [x, y, width, height]."""
    found = []
    for row in _rows(con, chosen):
        box = [0.0] * 4 if row["x0"] is None else [row[k] for k in ("x0", "y0", "x1", "y1")]
        found.append(
            {
                "image": row["name"],
                "object_id": row["object_id"],
                "number": row["number"],
                "sent": row["label"],
                "segmentation": json.loads(row["rle"]),
                "box": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            }
        )
    (folder / "predictions.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


#: How each probe's masks are written.
LAYOUTS: dict[str, Callable[[Any, Chosen, Path], None]] = {
    "tracking": _tracking,
    "tracking-void-out": _tracking,
    "fewshot-segmentation": _by_episode,
    "cosegmentation": _by_label,
    "semantic-segmentation": _by_class,
    "referring": _by_expression,
}


def _pixels(row: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return masks.to_array(row["rle"])


def _save(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
    path.write_bytes(data.getvalue())
