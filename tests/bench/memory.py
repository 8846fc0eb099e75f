"""Peak memory of ingesting 400 images less that of 40, each in a process of its own."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.figure import Figure
from tests.bench.pictures import jpeg_folder

FEW, MANY = 40, 400


def measure() -> list[Figure]:
    """Peak resident memory of `kvstore ingest folder`."""
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


def _ingest(folder: str, limit: str) -> None:
    from kvstore.cli import main

    store = str(Path(folder, f"store{limit}"))
    root = str(Path(folder, "images"))
    try:
        main(
            [
                "ingest",
                "folder",
                "--root",
                root,
                "--model",
                "tiny-onevision",
                "--limit",
                limit,
                "--store",
                store,
            ]
        )
    except SystemExit as end:
        if end.code:
            raise
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    _ingest(sys.argv[1], sys.argv[2])
