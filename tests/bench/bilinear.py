"""Correspondence by pixels of upsampled maps against correspondence by patches: seconds, end to end.

Drawn scenes through the trained tiny-onevision, image values of two layers: vectors whose neighbours resemble
each other, as a model's do; on pure noise few cells can be passed over. Memory: `probe_memory`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from kvstore.probes import Request, correspondence, correspondence_bilinear
from kvstore.store import Store
from tests.bench.figure import Figure, in_turn
from tests.bench.probe_memory import ingest

IMAGES, MOST = 100, 8


def measure() -> list[Figure]:
    """Each side in turn, from reading vectors to figures with intervals."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    try:
        store = ingest(folder, "test", IMAGES)
        pixels, patches, ratio = in_turn(
            lambda: correspondence_bilinear.predict(_fresh(store), Request("run")),
            lambda: correspondence.predict(_fresh(store), Request("run")),
            rounds=3,
        )
    finally:
        shutil.rmtree(folder)
    note = f"{pixels:.1f} against {patches:.1f} s for the pairs of {IMAGES} drawn scenes"
    name = "correspondence by pixels / by patches"
    return [Figure(name, ratio, "x", f"at most {MOST}", ratio <= MOST, note)]


def _fresh(store: Store) -> Store:
    """Without a prediction or a figure."""
    with store.publish() as con:
        con.execute("delete from match")
        con.execute("delete from score")
    return store
