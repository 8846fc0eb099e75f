"""Ingests into one store, all at once: ``python -m tests.fuzz.twelve_ingests [HOW MANY] [IMAGES]``.

Each is the command itself with layers of its own, so that all are runs of their own under names that they all
want. Prints how each ended and how long it took; exit code 1 unless all ended well and the store is sound.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kvstore.store import Store


def main(many: int, images: int) -> int:
    """Start them, wait for all, and look at the store."""
    with tempfile.TemporaryDirectory() as folder:
        begun, store = time.monotonic(), Path(folder, "s")
        words = ["ingest", "shapes", "--store", str(store), "--limit", str(images), "--sites", "value,key"]
        program = [sys.executable, "-c", "from kvstore.cli import main; main()", *words]
        asked = [[*program, "--layers", str(n % 8), "--prefix", f"run {n}"] for n in range(many)]
        started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in asked]
        bad = 0
        for number, process in enumerate(started):
            _, said = process.communicate()
            bad += process.returncode != 0
            print(f"{number:2} exit code {process.returncode}: {said.strip().splitlines()[-1]}", flush=True)
        opened = Store.open(store)
        runs = [(run["run_id"], run["state"], run["images"]) for run in opened.runs()]
        faults = [finding for finding in opened.check() if not finding.ok]
        bad += len(faults) + sum(run[1:] != ("done", images) for run in runs) + abs(len(runs) - many)
        print(*runs, *faults, sep="\n")
        print(f"{many} ingests of {images} images in {time.monotonic() - begun:.0f} s, {bad} faults")
        return int(bad > 0)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    raise SystemExit(main(*given, *(12, 2)[len(given) :]))
