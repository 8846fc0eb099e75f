"""What a benchmark returns, and how two sides are timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    bar    what it must be, as text; `met` whether it is
    note   both sides in absolute terms, and the floor where one is known
    """

    name: str
    value: float
    unit: str
    bar: str
    met: bool
    note: str


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Both sides in turn, A B A B ..., after one of each that does not count.

    Returns the median time of A, of B, and the median of the ratios A / B, pair by pair.
    """
    a(), b()
    pairs = [(seconds(a), seconds(b)) for _ in range(rounds)]
    return (
        statistics.median(x for x, _ in pairs),
        statistics.median(y for _, y in pairs),
        statistics.median(x / y for x, y in pairs),
    )
