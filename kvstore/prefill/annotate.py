"""Annotations of the images looked at, into the catalog's tables; `across` adds what spans several images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kvstore.contracts import Annotations, Dataset
from kvstore.errors import ImageError
from kvstore.prefill import across
from kvstore.prefill.record import insert
from kvstore.prefill.survey import Seen

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Rows = dict[str, list[dict[str, Any]]]

_BOX = ("x0", "y0", "x1", "y1")


def collect(dataset: Dataset, seen: Sequence[Seen], have: set[tuple[str, str]]) -> tuple[Rows, list[Seen]]:
    """What is said of images whose (name, sha256) `have` lacks: rows of the tables, with file names.

    Also `seen` again, in which an image whose annotations do not fit its file now has that as its fault.
    """
    rows: Rows = {"object": [], "keypoint": [], "caption": [], "expression": [], "void": []}
    judged = []
    for image in seen:
        header, verdict = image.header, image
        if header is not None and image.fault is None and (image.name, image.sha256) not in have:
            record = dataset.images[image.position]
            try:
                made = record.annotate(header.width, header.height, header.orientation)
            except ImageError as fault:
                verdict = replace(image, layout=None, fault=fault)
            else:
                for table, found in _rows(made).items():
                    rows[table].extend({"file": image.name, **row} for row in found)
        judged.append(verdict)
    return rows, judged


def _rows(made: Annotations) -> Rows:
    objects = [
        {
            "object_id": thing.object_id,
            "category": thing.category,
            **dict(zip(_BOX, thing.box, strict=True)),
            "area": thing.area,
            "crowd": thing.crowd,
            "mask": thing.mask,
        }
        for thing in made.objects
    ]
    keypoints = [
        {
            "object_id": thing.object_id,
            "name": point.name,
            "x": point.x,
            "y": point.y,
            "visible": point.visible,
        }
        for thing in made.objects
        for point in thing.keypoints
    ]
    captions = [{"number": number, "text": text} for number, text in enumerate(made.captions)]
    return {
        "object": objects,
        "keypoint": keypoints,
        "caption": captions,
        "expression": list(_expressions(made)),
        "void": [{"mask": made.void}] if made.void else [],
    }


def _expressions(made: Annotations) -> Iterator[dict[str, Any]]:
    """Those of each object numbered from 0."""
    count: Counter[int] = Counter()
    for said in made.expressions:
        yield {"object_id": said.object_id, "number": count[said.object_id], "text": said.text}
        count[said.object_id] += 1


def store(
    con: DuckDBPyConnection, dataset_id: str, dataset: Dataset, rows: Rows, current: dict[str, int]
) -> None:
    """Insert collected annotations, and pairs, questions and frames whose images are in the store by now.

    current   name -> image_id of the images looked at: a name may have had another content before
    """
    known = con.execute("select name, image_id from dataset_image where dataset_id = $d", {"d": dataset_id})
    image_of: dict[str, int] = dict(known.fetchall()) | current
    for table, found in rows.items():
        named = [{"dataset_id": dataset_id, "image_id": image_of[row.pop("file")], **row} for row in found]
        if named:
            insert(con, table, pa.Table.from_pylist(named))
    across.store(con, dataset_id, dataset, image_of)
