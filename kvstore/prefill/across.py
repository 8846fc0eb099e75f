"""What a data set says across images, into the catalog: categories, pairs, questions, frames of clips.

What is of images goes in once all of them are in the store. What is there already is left as it is, so that
a larger --limit adds only what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kvstore.contracts import Clip, Dataset, Pair, Question
from kvstore.prefill.record import insert

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = dict[str, Any]

_BOX = ("x0", "y0", "x1", "y1")
_QUESTION = pa.schema(
    {
        "dataset_id": pa.string(),
        "question_id": pa.int32(),
        "kind": pa.string(),
        "text": pa.string(),
        "answer": pa.string(),
        "options": pa.list_(pa.string()),  # said here, since all may be empty
    }
)


def store(con: DuckDBPyConnection, dataset_id: str, dataset: Dataset, image_of: dict[str, int]) -> None:
    """Insert what is new; `image_of` gives the image_id of each image in the store by its name."""
    known = _known(con, "pair", "pair_id", dataset_id)
    pairs = [
        pair
        for pair in dataset.pairs
        if pair.pair_id not in known and pair.source in image_of and pair.target in image_of
    ]
    known = _known(con, "category", "number", dataset_id)
    categories = [
        {"number": number, "name": name} for number, name in dataset.categories.items() if number not in known
    ]
    known = _known(con, "question", "question_id", dataset_id)
    questions = [
        asked
        for asked in dataset.questions
        if asked.question_id not in known and all(name in image_of for name in asked.images)
    ]
    _insert(con, dataset_id, "category", categories)
    _insert(con, dataset_id, "pair", [_pair(pair, image_of) for pair in pairs])
    _insert(con, dataset_id, "pair_keypoint", [row for pair in pairs for row in _points(pair)])
    _insert(con, dataset_id, "question", [_question(asked) for asked in questions], _QUESTION)
    _insert(con, dataset_id, "question_image", [r for asked in questions for r in _shown(asked, image_of)])
    _insert(con, dataset_id, "frame", list(_frames(dataset.clips, image_of)))


def _known(con: DuckDBPyConnection, table: str, column: str, dataset_id: str) -> set[int]:
    rows = con.execute(f"select {column} from {table} where dataset_id = $d", {"d": dataset_id}).fetchall()
    return {row[0] for row in rows}


def _insert(
    con: DuckDBPyConnection, dataset_id: str, table: str, rows: Sequence[Row], schema: pa.Schema | None = None
) -> None:
    if rows:
        insert(con, table, pa.Table.from_pylist([{"dataset_id": dataset_id, **row} for row in rows], schema))


def _pair(pair: Pair, image_of: dict[str, int]) -> Row:
    boxes = {"source": pair.source_box, "target": pair.target_box}
    return {
        "pair_id": pair.pair_id,
        "category": pair.category,
        "source_image_id": image_of[pair.source],
        "target_image_id": image_of[pair.target],
        **{f"{end}_{edge}": x for end, box in boxes.items() for edge, x in zip(_BOX, box, strict=True)},
    }


def _points(pair: Pair) -> Iterator[Row]:
    for point in pair.keypoints:
        yield {
            "pair_id": pair.pair_id,
            "name": point.name,
            "source_x": point.source[0],
            "source_y": point.source[1],
            "target_x": point.target[0],
            "target_y": point.target[1],
        }


def _question(asked: Question) -> Row:
    return {
        "question_id": asked.question_id,
        "kind": asked.kind,
        "text": asked.text,
        "answer": asked.answer,
        "options": list(asked.options),
    }


def _shown(asked: Question, image_of: dict[str, int]) -> Iterator[Row]:
    for number, name in enumerate(asked.images):
        yield {"question_id": asked.question_id, "number": number, "image_id": image_of[name]}


def _frames(clips: Sequence[Clip], image_of: dict[str, int]) -> Iterator[Row]:
    """The frames in the store; a frame keeps its number where those before it are missing."""
    for clip in clips:
        for number, name in enumerate(clip.frames):
            if name in image_of:
                yield {"clip": clip.name, "number": number, "image_id": image_of[name]}
