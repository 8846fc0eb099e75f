"""Run all benchmarks, or those named: ``python -m tests.bench [NAME...]``."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from tests.bench.figure import Figure

NAMES = (
    "help_time",
    "lance_writing",
    "checksums",
    "syncs",
    "capture",
    "whole_ingest",
    "block_read",
    "many_runs",
    "memory",
    "matching",
    "bilinear",
    "probe_memory",
    "coverage",
)
RESULTS = Path(__file__).parent / "results"


def device() -> str:
    """What it is measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name().replace(" ", "-").lower()
    return f"{platform.machine()}-{os.cpu_count()}-cores"


def main(names: list[str]) -> None:
    """Print the figures; a run of all of them is kept in results/."""
    figures: list[Figure] = []
    for name in names or NAMES:
        for figure in importlib.import_module(f"tests.bench.{name}").measure():
            figures.append(figure)
            mark = "ok  " if figure.met else "MISS"
            print(
                f"{mark} {figure.name}: {figure.value:.3g} {figure.unit} ({figure.bar}); {figure.note}",
                flush=True,
            )
    if not names:
        kept = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{device()}.json"
        kept.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
        print(f"kept in {kept}")


if __name__ == "__main__":
    main(sys.argv[1:])
