"""Figures and their bootstrap intervals, by numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


def check(found: tuple[float, float, float, int], part: Array, whole: Array) -> None:
    """(value, low, high, n) against sum(part) / sum(whole) over items.

    The figure exactly; the interval within the error of 1000 resamples.
    """
    value, low, high, n = found
    assert value == pytest.approx(part.sum() / whole.sum(), abs=1e-12)
    assert n == len(part)
    draws = np.random.default_rng(7).integers(0, n, (20_000, n))
    resampled = part[draws].sum(1) / whole[draws].sum(1)
    # A 2.5 % quantile of 1000 draws has a standard error of 2.7 % / density, about 0.085 sd for a normal.
    tolerance = 4 * 0.085 * resampled.std()
    assert abs(low - np.quantile(resampled, 0.025)) < tolerance
    assert abs(high - np.quantile(resampled, 0.975)) < tolerance
