"""How often the 95 % intervals of sql/intervals.sql hold the truth, on made-up data whose truth is known.

A keypoint, an expression, a pixel is right when a normal variable of variance 1 is below a threshold; the
variable is a sum of what its units, its item and itself give. So any share of right ones, however weighed,
has the normal distribution's value at the threshold as its truth, and items of one unit go together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import erf, sqrt
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from kvstore import recipes

Array = np.ndarray[Any, Any]
Rng = np.random.Generator


@dataclass(frozen=True)
class Layout:
    """Items: of each its units [items, 1 or 2], its class, and how many points it has."""

    units: Array
    classes: Array
    points: Array


@dataclass(frozen=True)
class Scheme:
    """A kind of figure: what lays out a data set of so many units, and the variance that units give."""

    lay: Callable[[Rng, int], Layout]
    shared: float


#: Thresholds of classes; the figures are the means over the classes of a scheme.
THRESHOLDS = np.array([0.5, -0.6, 0.1, 0.9, -0.2])


def expressions(rng: Rng, count: int) -> Layout:
    """Images with 1 to 7 expressions each, which are right or wrong."""
    image = np.repeat(np.arange(count), rng.integers(1, 8, count))
    return Layout(image[:, None], np.zeros_like(image), np.ones_like(image))


def episodes(rng: Rng, count: int) -> Layout:
    """1000 episodes of 5 categories in turn; some images are drawn many times as query, some hardly ever."""
    odds = rng.gamma(4, 1, count)
    image = np.empty(1000, int)
    for category in range(5):
        mine = np.arange(category, count, 5)
        image[category::5] = rng.choice(mine, 200, p=odds[mine] / odds[mine].sum())
    return Layout(image[:, None], np.arange(1000) % 5, rng.integers(4, 40, count)[image])


def classes(rng: Rng, count: int) -> Layout:
    """Images that show 1 to 3 of 5 classes, each in a number of pixels of its own."""
    shown = [rng.choice(5, rng.integers(1, 4), replace=False) for _ in range(count)]
    image = np.repeat(np.arange(count), [len(one) for one in shown])
    points = np.ceil(np.exp(rng.normal(2, 0.7, len(image)))).astype(int)
    return Layout(image[:, None], np.concatenate(shown), points)


def pairs(per_image: int) -> Callable[[Rng, int], Layout]:
    """Pairs of images with 3 to 10 keypoints; an image is in so many of them on average."""

    def lay(rng: Rng, count: int) -> Layout:
        n = count * per_image // 2
        source = rng.integers(0, count, n)
        target = (source + rng.integers(1, count, n)) % count
        units = np.sort(np.stack([source, target], 1), 1)
        return Layout(units, np.zeros(n, int), rng.integers(3, 11, n))

    return lay


SCHEMES = {
    "expressions by image": Scheme(expressions, 0.4),
    "episodes by query image": Scheme(episodes, 0.6),
    "mean IoU of classes": Scheme(classes, 0.4),
    "pairs that share nothing": Scheme(pairs(6), 0.0),
    "pairs that share some": Scheme(pairs(6), 0.2),
    "pairs that share much": Scheme(pairs(14), 0.5),
}


def truth(layout: Layout) -> float:
    """The figure of all data sets of a kind: the mean over classes of the normal distribution's values."""
    thresholds = THRESHOLDS[np.unique(layout.classes)]
    return float(np.mean([(1 + erf(z / sqrt(2))) / 2 for z in thresholds]))


def answer(rng: Rng, layout: Layout, shared: float) -> Array:
    """How many of each item's points are right; half of the variance that its units leave is the item's."""
    effects = rng.normal(0, sqrt(shared / layout.units.shape[1]), layout.units.max() + 1)
    own = sqrt((1 - shared) / 2)
    item = effects[layout.units].sum(1) + rng.normal(0, own, len(layout.points))
    point = np.repeat(item - THRESHOLDS[layout.classes], layout.points)
    right = point + rng.normal(0, own, len(point)) < 0
    return np.add.reduceat(right, np.cumsum([0, *layout.points[:-1]])).astype(float)


def bare() -> duckdb.DuckDBPyConnection:
    """A connection with the macros of intervals alone."""
    con = duckdb.connect()
    con.execute((recipes.SHIPPED / "sql" / "intervals.sql").read_text(encoding="utf-8"))
    return con


def put(con: duckdb.DuckDBPyConnection, layout: Layout, parts: list[Array]) -> None:
    """Table `items`: a figure for each array of parts, the wholes being the layout's points."""
    times, n = len(parts), len(layout.points)
    flat = pa.array(np.tile(layout.units.reshape(-1), times), pa.int64())
    table = pa.table(
        {
            "figure": np.repeat(np.arange(times), n),
            "sign": np.ones(times * n, int),
            "class": np.tile(layout.classes, times),
            "item": np.tile(np.arange(n), times),
            "units": pa.FixedSizeListArray.from_arrays(flat, layout.units.shape[1]),
            "part": np.concatenate(parts),
            "whole": np.tile(layout.points.astype(float), times),
        }
    )
    con.register("made", table)
    con.execute("create or replace table items as select * replace (units::bigint[] as units) from made")
    con.unregister("made")


def coverage(
    scheme: Scheme, count: int, times: int, *, seed: int = 0, over_items: bool = False
) -> tuple[float, float]:
    """The share of data sets whose interval holds the truth, and the intervals' mean width.

    over_items   take every item for a unit of its own, which is wrong
    """
    rng = np.random.default_rng([seed, count])
    layout = scheme.lay(rng, count)
    with bare() as con:
        parts = [answer(rng, layout, scheme.shared) for _ in range(times)]
        put(
            con,
            replace(layout, units=np.arange(len(layout.points))[:, None]) if over_items else layout,
            parts,
        )
        ends = con.execute("select low, high from intervals('items')").fetchnumpy()
    low, high = np.asarray(ends["low"]), np.asarray(ends["high"])
    if len(low) != times:
        raise AssertionError(f"{len(low)} intervals of {times}")
    true = truth(layout)
    return float(np.mean((low <= true) & (true <= high))), float(np.mean(high - low))
