"""Keypoint pairs for the small stores of tests, put in without the code that ingests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa

from tests.stores import Made

Point = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """Two images and keypoints by name: (source x, y), (target x, y); target_box scales PCK."""

    source: int
    target: int
    points: dict[str, tuple[Point, Point]]
    target_box: tuple[float, float, float, float] = (0, 0, 40, 30)
    category: str = "thing"


def add_pairs(made: Made, pairs: Sequence[Pair]) -> None:
    """Give the data set of a made store these pairs, numbered from 1."""
    write_spans(made)
    with made.store.publish() as con:
        for number, pair in enumerate(pairs, 1):
            con.execute(
                "insert into pair values ('set', ?, ?, ?, ?, 0, 0, 40, 30, ?, ?, ?, ?)",
                [number, pair.category, pair.source, pair.target, *pair.target_box],
            )
            for name, (source, target) in pair.points.items():
                con.execute(
                    "insert into pair_keypoint values ('set', ?, ?, ?, ?, ?, ?)",
                    [number, name, *source, *target],
                )


def write_spans(made: Made) -> None:
    """The table that says where an image's rows lie, as `kvstore.vectors` keeps it, where it is not there."""
    for run, vectors in made.vectors.items():
        path = made.store.lance / f"{run}.patch_span.lance"
        if path.exists():
            continue
        kv = vectors.get("value", vectors.get("key"))
        patches = next(iter(vectors.values())).shape[-2]
        layers = ",".join(map(str, made.layers)).encode()
        metadata = {
            b"kvstore.layers": layers if kv is not None else b"",
            b"kvstore.heads": str(kv.shape[2] if kv is not None else 0).encode(),
            b"kvstore.encoder_layers": layers if "encoder" in vectors else b"",
        }
        n = len(made.image_ids)
        table = pa.table(
            {
                "image_id": pa.array(made.image_ids, pa.int64()),
                "first_patch": pa.array([patches * i for i in range(n)], pa.int64()),
                "patches": pa.array([patches] * n, pa.int32()),
            }
        )
        lance.write_dataset(table.replace_schema_metadata(metadata), str(path))
