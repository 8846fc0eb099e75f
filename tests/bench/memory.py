"""Peak memory of ingesting 400 images less that of 40, each in a process of its own.

Sampled while images are prefilled and written. Before and after that, opening the store lets DuckDB check the
`lance` extension, which for a moment takes more than all the rest, whatever the number of images.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from kvstore.prefill import ingest
from kvstore.prefill.options import Options
from kvstore.store import Store
from tests.bench.figure import Figure
from tests.bench.pictures import jpeg_folder

FEW, MANY = 40, 400


def measure() -> list[Figure]:
    """Peak resident memory."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    try:
        jpeg_folder(folder / "images", MANY)
        few, many = (_peak(folder, limit) for limit in (FEW, MANY))
    finally:
        shutil.rmtree(folder)
    note = f"{many:.0f} against {few:.0f} MB"
    difference = many - few
    return [Figure("peak memory, 400 less 40 images", difference, "MB", "under 150", difference < 150, note)]


def _peak(folder: Path, limit: int) -> float:
    program = [sys.executable, "-m", "tests.bench.memory", str(folder), str(limit)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _ingest(folder: Path, limit: int) -> None:
    import psutil

    process, samples, working = psutil.Process(), [0], True
    meter = ingest.Meter()

    def watch() -> None:
        while working:
            if meter.phase == "prefill":
                samples.append(process.memory_info().rss)
            time.sleep(0.005)

    plan = ingest.plan(Options("folder", "tiny-onevision", root=folder / "images", limit=limit))
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        store = Store.open(folder / f"store{limit}", create=True)
        ingest.ingest(store, plan, ingest.look(plan, meter), meter)
    finally:
        working = False
        watcher.join()
    print(max(samples) / 1e6)


if __name__ == "__main__":
    _ingest(Path(sys.argv[1]), int(sys.argv[2]))
