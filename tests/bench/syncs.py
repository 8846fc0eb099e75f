"""What an ingest pays for having on disk whatever its catalog names: with the syncs, against without.

The floor is 1: syncs wait for the disk beside the prefill, and the catalog and the vectors are synced on
both sides.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest import mock

from kvstore import durable
from kvstore.prefill import ingest
from kvstore.prefill.options import Options
from kvstore.store import Store
from tests.bench.figure import Figure, in_turn
from tests.bench.pictures import jpeg_folder

IMAGES, ROUNDS = 120, 5


def measure() -> list[Figure]:
    """120 JPEGs, keys and values of all layers: five pairs of ingests, in turn."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    options = Options("folder", "tiny-onevision", root=folder / "images", sites=("value", "key"))

    def run() -> None:
        shutil.rmtree(folder / "store", ignore_errors=True)
        plan, meter = ingest.plan(options), ingest.Meter()
        seen = ingest.look(plan, meter)
        ingest.ingest(Store.open(folder / "store", create=True), plan, seen, meter)

    def without() -> None:
        with mock.patch.object(durable, "sync"):
            run()

    try:
        jpeg_folder(folder / "images", IMAGES)
        mine, its, ratio = in_turn(run, without, ROUNDS)
    finally:
        shutil.rmtree(folder)
    note = f"{mine:.2f} against {its:.2f} s"
    return [Figure("ingest with syncs / without", ratio, "x seconds", "at most 1.05", ratio <= 1.05, note)]
