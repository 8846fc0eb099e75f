"""Figures and their bootstrap intervals by numpy: units drawn with replacement, not weighed by Poisson."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]
Found = tuple[float, float, float, int, int]


def check(found: Found, part: Array, whole: Array, units: Array | None = None) -> None:
    """(value, low, high, n, units) against sum(part) / sum(whole) over items.

    units   of each item, [items] or, where an item has two, [items, 2]; every item its own when left out
    The figure exactly; the interval within the error of 1000 resamples.
    """
    value, low, high, n, number = found
    of = np.arange(len(part)) if units is None else units
    count = len(np.unique(of))
    assert value == pytest.approx(part.sum() / whole.sum(), abs=1e-12)
    assert (n, number) == (len(part), count)
    expected, tolerance = interval(part, whole, of)
    assert abs(low - expected[0]) < tolerance
    assert abs(high - expected[1]) < tolerance


def interval(part: Array, whole: Array, units: Array) -> tuple[Array, float]:
    """The ends, and how far 1000 resamples of another kind may be off."""
    names, places = np.unique(units, return_inverse=True)
    places, count = places.reshape(units.shape), len(names)
    draws = np.random.default_rng(7).integers(0, count, (10_000, count))
    times = np.stack([np.bincount(draw, minlength=count) for draw in draws])
    weights = times[:, places] if places.ndim == 1 else times[:, places[:, 0]] * times[:, places[:, 1]]
    filled = weights @ whole > 0
    resampled = (weights[filled] @ part) / (weights[filled] @ whole)
    tail = expanded_tail(count)
    z = -NormalDist().inv_cdf(tail)
    # The standard error of a normal variable's quantile of 1000 draws. Poisson's spread is wider by 1 / 2n.
    error = sqrt(tail * (1 - tail) / 1000) / NormalDist().pdf(z)
    ends, spread = np.quantile(resampled, [tail, 1 - tail]), resampled.std()
    if places.ndim == 2:
        value, wanted = part.sum() / whole.sum(), sqrt(dyadic_variance(part, whole, places))
        ends, spread = value + wanted / spread * (ends - value), wanted
    return ends, (4 * error + z / count) * spread


def expanded_tail(units: int) -> float:
    """Hesterberg 2015: the normal tail beyond Student's 97.5 % quantile times sqrt(n / (n - 1))."""
    freedom = units - 1
    t, step = np.linspace(0, 200, 2_000_001, retstep=True)
    density = (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    whole = density.cumsum() * step
    quantile = t[np.searchsorted(whole, 0.95 * whole[-1])]
    return NormalDist().cdf(-quantile * sqrt(units / freedom))


def dyadic_variance(part: Array, whole: Array, places: Array) -> float:
    """The sum over pairs of items that share a unit of the products of what they pull, one by one.

    An item's pull is put up for what its unit takes away with it when left out, as the jackknife has it.
    """
    value, total = part.sum() / whole.sum(), whole.sum()
    pull = (part - value * whole) / total
    lost = np.array([pull[(places == u).any(1)].sum() for u in range(places.max() + 1)])
    share = np.array([whole[(places == u).any(1)].sum() for u in range(places.max() + 1)]) / total
    ordered = np.sort(places, 1)
    same = (ordered[:, None] == ordered[None]).all(2) & (ordered[:, 0] != ordered[:, 1])[:, None]
    twice = (pull[:, None] * pull[None])[same].sum()
    alike = (ordered[:, None] == ordered[None]).all(2)
    return float(
        max(((lost / (1 - share)) ** 2).sum() - twice, (pull[:, None] * pull[None])[alike].sum() / 2)
    )
