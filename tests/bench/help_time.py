"""``kvstore --help``, as a whole process."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.figure import Figure, seconds

ROUNDS = 9


def measure() -> list[Figure]:
    """Median of nine."""
    command = [str(Path(sys.executable).with_name("kvstore")), "--help"]
    times = [seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(ROUNDS)]
    value = statistics.median(times)
    return [Figure("kvstore --help", value, "s", "under 0.3", value < 0.3, f"slowest {max(times):.2f} s")]
