"""Text values for the small stores of tests, put in without a model, and what comparing with them means."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from kvstore.masks import from_array
from tests.pairs import write_spans
from tests.stores import Made, write_tables

Array = np.ndarray[Any, Any]
# The stores' images are 4 columns x 3 rows of patches of 10 pixels.
HEIGHT, WIDTH, CELL = 30, 40, 10


def write_texts(made: Made, texts: Sequence[str], vectors: Mapping[str, Array]) -> None:
    """Tables of texts: key and value [texts, layers, heads, width], input [texts, width]."""
    write_spans(made)
    kv = {site: vectors[site] for site in ("key", "value") if site in vectors}
    if kv:
        axes = [range(size) for size in next(iter(kv.values())).shape[:3]]
        places = [point.reshape(-1) for point in np.meshgrid(*axes, indexing="ij")]
        _write(
            made,
            "text_kv",
            {
                "text": pa.array([texts[place] for place in places[0]]),
                "layer": pa.array(np.array(made.layers)[places[1]], pa.int16()),
                "head": pa.array(places[2], pa.int16()),
            }
            | {site: _flat(array) for site, array in kv.items()},
        )
    if "input" in vectors:
        _write(made, "text_input", {"text": pa.array(texts), "feature": _flat(vectors["input"])})


def replace_values(made: Made, values: Array) -> None:
    """Put these values in the place of the run's."""
    for table in ("patch_kv", "pooled_kv"):
        shutil.rmtree(made.store.lance / f"run.{table}.lance")
    write_tables(made.store.lance, "run", {"value": values}, made.layers, made.image_ids)


def random_texts(made: Made, texts: Sequence[str], seed: int = 7) -> dict[str, Array]:
    """Vectors of texts at random, as wide as the store's images have them, written into it."""
    rng = np.random.default_rng(seed)
    found = {}
    for site, images in made.vectors["run"].items():
        if site != "encoder":
            shape = (len(texts), *([] if site == "input" else images.shape[1:3]), images.shape[-1])
            found[site] = rng.standard_normal(shape).astype(np.float16)
    write_texts(made, texts, found)
    return found


def scores(made: Made, texts: Mapping[str, Array]) -> dict[tuple[str, int, int | None], Array]:
    """(site, layer, head) -> dot products [images, texts, patches], by numpy; heads together included."""
    images = made.vectors["run"]
    found: dict[tuple[str, int, int | None], Array] = {}
    for site, words in texts.items():
        a, b = images[site].astype(np.float64), words.astype(np.float64)
        if site == "input":
            found[site, 0, None] = np.einsum("ipc,tc->itp", a, b)
            continue
        dots = np.einsum("ilhpc,tlhc->lhitp", a, b)
        for at, layer in enumerate(made.layers):
            found |= {(site, layer, head): dots[at, head] for head in range(dots.shape[1])}
            found[site, layer, None] = dots[at].sum(0)
    return found


def otsu(values: Array) -> Array:
    """Values above the cut that parts them with the largest variance between the parts, cut by cut."""
    best, bits = 0.0, np.zeros(len(values), bool)
    for cut in sorted(set(values.tolist()))[1:]:
        above = values >= cut
        weight = above.mean() * (1 - above.mean())
        between = weight * (values[above].mean() - values[~above].mean()) ** 2
        if between > best:
            best, bits = between, above
    return bits


def cells(bits: Array) -> Array:
    """Pixels [height, width] of patches [12]."""
    return np.kron(np.asarray(bits).reshape(3, 4), np.ones((CELL, CELL), int))


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Array:
    """Pixels of a box of the stores' images."""
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def add_object(
    made: Made, number: int, image: int, category: str, pixels: Array, crowd: bool = False
) -> None:
    """One object with its mask and the box around it."""
    ys, xs = (np.flatnonzero(pixels.any(axis)).tolist() for axis in (1, 0))
    with made.store.publish() as con:
        con.execute(
            "insert into object values ('set', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(number, image, category, xs[0], ys[0], xs[-1] + 1, ys[-1] + 1, int(pixels.sum())),
                *(crowd, from_array(pixels)),
            ],
        )


def add_void(made: Made, image: int, pixels: Array) -> None:
    """Pixels that do not count."""
    with made.store.publish() as con:
        con.execute("insert into void values ('set', ?, ?)", [image, from_array(pixels)])


def figures(made: Made) -> dict[tuple[Any, ...], tuple[float, float, float, int]]:
    """(metric, site, layer, head) -> value, low, high, n."""
    with made.store.connect() as con:
        rows = con.execute("select metric, site, layer, head, value, low, high, n from score").fetchall()
    return {row[:4]: row[4:] for row in rows}


def rows(made: Made) -> list[tuple[Any, ...]]:
    """All of table `mask`."""
    with made.store.connect() as con:
        return con.execute("select * from mask order by all").fetchall()


def _write(made: Made, kind: str, columns: dict[str, Any]) -> None:
    lance.write_dataset(pa.table(columns), str(made.store.lance / f"run.{kind}.lance"))


def _flat(array: Array) -> Any:
    flat = pa.array(np.ascontiguousarray(array, np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[-1])
