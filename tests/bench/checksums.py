"""What checksums cost an ingest: processor seconds spent on them, of all that the ingest takes.

The floor is reading the vectors once from memory; XXH3 takes about 7 GB/s of one core.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from kvstore.prefill import ingest
from kvstore.prefill.options import Options
from kvstore.store import Store
from kvstore.vectors import checksums
from tests.bench.figure import Figure
from tests.bench.pictures import jpeg_folder

IMAGES = 120


def measure() -> list[Figure]:
    """120 JPEGs, keys and values of all layers; the ingest's own time, without the survey."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    spent, size, plain = 0.0, 0, checksums.checksum

    def timed(rows: Any) -> int:
        nonlocal spent, size
        start = time.thread_time()
        made = plain(rows)
        spent += time.thread_time() - start
        size += rows.nbytes
        return made

    checksums.checksum = timed
    try:
        jpeg_folder(folder / "images", IMAGES)
        options = Options("folder", "tiny-onevision", root=folder / "images", sites=("value", "key"))
        plan = ingest.plan(options)
        meter = ingest.Meter()
        seen = ingest.look(plan, meter)
        start = time.process_time()
        ingest.ingest(Store.open(folder / "store", create=True), plan, seen, meter)
        whole = time.process_time() - start
    finally:
        checksums.checksum = plain
        shutil.rmtree(folder)
    share = 100 * spent / whole
    note = f"{spent:.3f} of {whole:.1f} s of processor time; {size / spent / 1e9:.1f} GB/s"
    return [Figure("checksums / ingest", share, "%", "at most 3", share <= 3, note)]
