"""What a data set says across images, into the catalog: categories, pairs, questions, frames of clips.

What is of images goes in once all of them are in the store. What is there already is left as it is, so that
a larger --limit adds only what is new. What can never go in is noted, by the data set alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from kvstore.contracts import Clip, Dataset, Note, Pair, PairKeypoint, Question
from kvstore.datasets import all_images, sound
from kvstore.notes import Notes
from kvstore.prefill.record import insert

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = dict[str, Any]
Item = TypeVar("Item", Pair, Question, Clip)

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


@dataclass(frozen=True)
class Sifted:
    """What of a data set can go in, sooner or later, and all notes of its files as a whole.

    notes   the recipe's own, and of what can never go in: numbers met twice, images that are not listed
    """

    categories: Mapping[int, str]
    pairs: Sequence[Pair] = ()
    questions: Sequence[Question] = ()
    clips: Sequence[Clip] = ()
    notes: Sequence[Note] = ()


def store(con: DuckDBPyConnection, dataset_id: str, sifted: Sifted, image_of: dict[str, int]) -> None:
    """Insert what is new; `image_of` gives the image_id of each image in the store by its name."""
    known = _known(con, "pair", "pair_id", dataset_id)
    pairs = [
        pair
        for pair in sifted.pairs
        if pair.pair_id not in known and pair.source in image_of and pair.target in image_of
    ]
    known = _known(con, "category", "number", dataset_id)
    categories = [
        {"number": number, "name": name} for number, name in sifted.categories.items() if number not in known
    ]
    known = _known(con, "question", "question_id", dataset_id)
    questions = [
        asked
        for asked in sifted.questions
        if asked.question_id not in known and all(name in image_of for name in asked.images)
    ]
    _insert(con, dataset_id, "category", categories)
    _insert(con, dataset_id, "pair", [_pair(pair, image_of) for pair in pairs])
    _insert(con, dataset_id, "pair_keypoint", [row for pair in pairs for row in _points(pair)])
    _insert(con, dataset_id, "question", [_question(asked) for asked in questions], _QUESTION)
    _insert(con, dataset_id, "question_image", [r for asked in questions for r in _shown(asked, image_of)])
    _insert(con, dataset_id, "frame", list(_frames(sifted.clips, image_of)))


def sift(dataset: Dataset) -> Sifted:
    """Look through what a data set says across images; it may draw its pairs and questions only now."""
    notes = Notes(dataset.notes)
    _note_halves(dataset, notes)
    if not (dataset.pairs or dataset.questions or dataset.clips):
        return Sifted(dataset.categories, notes=list(notes))
    names = {record.name for record in all_images(dataset)}
    pairs = _sift("pairs", dataset.pairs, lambda p: p.pair_id, lambda p: (p.source, p.target), names, notes)
    questions = _sift(
        "questions", dataset.questions, lambda q: q.question_id, lambda q: q.images, names, notes
    )
    clips = _sift("clips", dataset.clips, lambda clip: clip.name, lambda clip: (), names, notes)
    for clip in clips:
        strange = [name for name in clip.frames if name not in names]
        if strange:
            kind = "frames of clips that the data set does not list as images"
            notes.add(kind, f"clip {clip.name}: {strange[0]}", count=len(strange))
    whole = [_with_points(pair, notes) for pair in pairs]
    return Sifted(dataset.categories, whole, questions, clips, list(notes))


def _note_halves(dataset: Dataset, notes: Notes) -> None:
    """Texts that are stored with half a character written out."""
    texts = [("category", name) for name in dataset.categories.values()]
    for pair in dataset.pairs:
        texts += [
            (f"pair {pair.pair_id}", text) for text in (pair.category, *(p.name for p in pair.keypoints))
        ]
    for asked in dataset.questions:
        said = (asked.kind, asked.text, asked.answer, *asked.options)
        texts += [(f"question {asked.question_id}", text) for text in said]
    for place, text in texts:
        if sound(text) != text:
            notes.add("texts with half a character, written out", place, lost=False)


def _sift(
    what: str,
    items: Sequence[Item],
    number: Callable[[Item], int | str],
    shown: Callable[[Item], Sequence[str]],
    names: Collection[str],
    notes: Notes,
) -> list[Item]:
    """The items whose number no earlier one has, and whose images the data set lists."""
    known = set()
    kept = []
    for item in items:
        missing = [name for name in shown(item) if name not in names]
        if number(item) in known:
            notes.add(f"{what} met twice", f"{what.removesuffix('s')} {number(item)}")
        elif missing:
            place = f"{what.removesuffix('s')} {number(item)}: {missing[0]}"
            notes.add(f"{what} of images that the data set does not list", place)
        else:
            kept.append(item)
            known.add(number(item))
    return kept


def _with_points(pair: Pair, notes: Notes) -> Pair:
    """The pair with each keypoint once."""
    points: dict[str, PairKeypoint] = {}
    for point in pair.keypoints:
        if point.name in points:
            notes.add("keypoints met twice in a pair", f"pair {pair.pair_id}: {point.name}")
        points.setdefault(point.name, point)
    return pair if len(points) == len(pair.keypoints) else replace(pair, keypoints=tuple(points.values()))


def _known(con: DuckDBPyConnection, table: str, column: str, dataset_id: str) -> set[int]:
    rows = con.execute(f"select {column} from {table} where dataset_id = $d", {"d": dataset_id}).fetchall()
    return {row[0] for row in rows}


def _insert(
    con: DuckDBPyConnection, dataset_id: str, table: str, rows: Sequence[Row], schema: pa.Schema | None = None
) -> None:
    if rows:
        whole = [{"dataset_id": dataset_id, **{c: _written(v) for c, v in row.items()}} for row in rows]
        insert(con, table, pa.Table.from_pylist(whole, schema))


def _written(value: Any) -> Any:
    """A value of a row, its texts as UTF-8 holds them."""
    if isinstance(value, list):
        return [_written(item) for item in value]
    return sound(value) if isinstance(value, str) else value


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
