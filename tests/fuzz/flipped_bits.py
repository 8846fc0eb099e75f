"""Flip bytes in files of a small store, many times: does `kvstore check --deep` notice, and does it live?

``python -m tests.fuzz.flipped_bits [TRIALS] [SEED]``: a copy of the store for each trial; 1 to 64 bytes of
one file are changed. Counts by kind of file what was noticed. Vectors and their checksums must be, always;
a file that no reader opens (a transaction, an older manifest) need not be.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

KVSTORE = [sys.executable, "-c", "from kvstore.cli import main; main()"]
SITES = "value,key,input,encoder"


def main(trials: int, seed: int) -> None:
    """Print a line for each kind of file, and each outcome that must not be."""
    chance, counts, wrong = random.Random(seed), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory(prefix="kvstore-flips-") as folder:
        whole = Path(folder, "whole")
        arguments = ["ingest", "shapes", "--limit", "8", "--layers", "1,3", "--sites", SITES, "--run", "r"]
        subprocess.run([*KVSTORE, *arguments, "--store", str(whole)], check=True, capture_output=True)
        files = [
            p for p in whole.rglob("*") if p.is_file() and "at" not in p.parts and "locks" not in p.parts
        ]
        for trial in range(trials):
            store = Path(shutil.copytree(whole, Path(folder, str(trial)), symlinks=True))
            victim = store / chance.choice(files).relative_to(whole)
            _flip(victim, chance)
            done = subprocess.run(
                [*KVSTORE, "check", "--deep", "--store", str(store)],
                capture_output=True,
                text=True,
                timeout=300,
            )
            kind = _kind(victim)
            counts[kind, {0: "not noticed", 1: "noticed", 2: "told"}.get(done.returncode, "died")] += 1
            if done.returncode not in (0, 1, 2) or "Traceback" in done.stderr:
                wrong += 1
                print(f"{kind}: exit code {done.returncode}: {done.stderr[-300:]}", flush=True)
            shutil.rmtree(store)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:<28} {outcome:<12} {count}")
    print(f"{trials} tried, {wrong} wrong")


def _flip(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if data:
        count = min(chance.randint(1, 64), len(data))
        first = chance.randrange(len(data) - count + 1)
        data[first : first + count] = bytes(
            byte ^ chance.randint(1, 255) for byte in data[first : first + count]
        )
        file.unlink()  # a pin may be a link to the same manifest
        file.write_bytes(data)


def _kind(file: Path) -> str:
    table = next((part for part in file.parts if part.endswith(".lance") and part != file.name), "")
    return (
        f"{table.removesuffix('.lance').partition('.')[2] or file.name} {file.parent.name if table else ''}"
    )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*(numbers + [40, 0][len(numbers) :]))
