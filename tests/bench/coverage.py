"""How often 95 % intervals hold the truth: 1000 made-up data sets of 30 and of 100 units, of each kind.

Through the macros of sql/intervals.sql; what is made up stands in tests/coverage.py. Seeds are fixed.
With 1000 data sets a share of 0.95 has a standard error of 0.007.
"""

from __future__ import annotations

from tests.bench.figure import Figure
from tests.coverage import SCHEMES, coverage

TIMES = 1000
LEAST, MOST = 0.93, 0.97


def measure() -> list[Figure]:
    """Each kind at each size, and beside it what intervals over items would hold, of 200 data sets."""
    return [_figure(name, units) for name in SCHEMES for units in (30, 100)]


def _figure(name: str, units: int) -> Figure:
    held, width = coverage(SCHEMES[name], units, TIMES)
    over_items, narrow = coverage(SCHEMES[name], units, 200, over_items=True)
    return Figure(
        f"coverage, {name}, {units} units",
        held,
        "of truths",
        f"{LEAST} to {MOST}",
        LEAST <= held <= MOST,
        f"mean width {width:.3f}; over items {over_items:.3f}, {narrow:.3f} wide",
    )
