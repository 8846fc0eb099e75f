"""Peak memory of each probe on a store of 16 images and on one of 160, each in a process of its own.

Drawn scenes (frames of clips for tracking) through the trained tiny-onevision, image values of two layers.
The floor is what torch, DuckDB and Lance take to be loaded at all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kvstore import probes
from kvstore.prefill import ingest as engine
from kvstore.prefill.options import Options
from kvstore.store import Store
from tests.bench.figure import Figure

FEW, MANY = 16, 160


def measure() -> list[Figure]:
    """Peak resident memory of every probe there is."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    try:
        for split in ("test", "clips"):
            for images in (FEW, MANY):
                ingest(folder, split, images)
        return [_figure(folder, name) for name in probes.listing()]
    finally:
        shutil.rmtree(folder)


def ingest(folder: Path, split: str, images: int) -> Store:
    """A store of drawn scenes or frames, with image values of two layers."""
    options = Options(
        "shapes", "tiny-onevision", split=split, limit=images, sites=("value",), layers="3,4", run="run"
    )
    plan, meter = engine.plan(options), engine.Meter()
    store = Store.open(folder / f"{split}{images}", create=True)
    engine.ingest(store, plan, engine.look(plan, meter), meter)
    return store


def _figure(folder: Path, probe: str) -> Figure:
    split = "clips" if probe == "tracking" else "test"
    few, many = (_peak(folder / f"{split}{images}", probe) for images in (FEW, MANY))
    growth = many / few - 1
    note = f"{many:.0f} MB on {MANY} images against {few:.0f} MB on {FEW}"
    return Figure(f"memory of {probe}, 10 x as many images", growth, "more", "under 0.2", growth < 0.2, note)


def _peak(store: Path, probe: str) -> float:
    program = [sys.executable, "-m", "tests.bench.probe_memory", str(store), probe]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _probe(store: Path, probe: str) -> None:
    probes.find(probe).predict(Store.open(store), probes.Request("run"))
    # Linux: of this program alone; ru_maxrss has the parent's, too
    print(int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024 / 1e6)


if __name__ == "__main__":
    _probe(Path(sys.argv[1]), sys.argv[2])
