"""Annotations of the images looked at, into the catalog's tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kvstore.contracts import Annotations, Dataset, Pair
from kvstore.errors import ImageError
from kvstore.prefill.record import insert
from kvstore.prefill.survey import Seen

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Rows = dict[str, list[dict[str, Any]]]

_BOX = ("x0", "y0", "x1", "y1")


def collect(dataset: Dataset, seen: Sequence[Seen], have: set[tuple[str, str]]) -> tuple[Rows, list[Seen]]:
    """Rows of object, keypoint and caption, with file names, of images whose (name, sha256) `have` lacks.

    Also `seen` again, in which an image whose annotations do not fit its file now has that as its fault.
    """
    rows: Rows = {"object": [], "keypoint": [], "caption": []}
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
    return {"object": objects, "keypoint": keypoints, "caption": captions}


def store(
    con: DuckDBPyConnection, dataset_id: str, dataset: Dataset, rows: Rows, current: dict[str, int]
) -> None:
    """Insert collected annotations, and the pairs whose two images are in the store by now.

    current   name -> image_id of the images looked at: a name may have had another content before
    """
    known = con.execute("select name, image_id from dataset_image where dataset_id = $d", {"d": dataset_id})
    image_of: dict[str, int] = dict(known.fetchall()) | current
    for table, found in rows.items():
        named = [{"dataset_id": dataset_id, "image_id": image_of[row.pop("file")], **row} for row in found]
        if named:
            insert(con, table, pa.Table.from_pylist(named))
    stored = con.execute("select pair_id from pair where dataset_id = $d", {"d": dataset_id}).fetchall()
    new = list(_new_pairs(dataset.pairs, image_of, {row[0] for row in stored}))
    if new:
        insert(con, "pair", pa.Table.from_pylist([_pair(dataset_id, pair, image_of) for pair in new]))
        points = [row for pair in new for row in _points(dataset_id, pair)]
        insert(con, "pair_keypoint", pa.Table.from_pylist(points))


def _new_pairs(pairs: Iterable[Pair], image_of: dict[str, int], stored: set[int]) -> Iterator[Pair]:
    for pair in pairs:
        if pair.source in image_of and pair.target in image_of and pair.pair_id not in stored:
            yield pair


def _pair(dataset_id: str, pair: Pair, image_of: dict[str, int]) -> dict[str, Any]:
    boxes = {"source": pair.source_box, "target": pair.target_box}
    return {
        "dataset_id": dataset_id,
        "pair_id": pair.pair_id,
        "category": pair.category,
        "source_image_id": image_of[pair.source],
        "target_image_id": image_of[pair.target],
        **{f"{end}_{edge}": x for end, box in boxes.items() for edge, x in zip(_BOX, box, strict=True)},
    }


def _points(dataset_id: str, pair: Pair) -> Iterator[dict[str, Any]]:
    for point in pair.keypoints:
        yield {
            "dataset_id": dataset_id,
            "pair_id": pair.pair_id,
            "name": point.name,
            "source_x": point.source[0],
            "source_y": point.source[1],
            "target_x": point.target[0],
            "target_y": point.target[1],
        }
