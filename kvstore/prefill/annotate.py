"""Annotations of the images looked at, into the catalog's tables; `across` adds what spans several images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kvstore.contracts import Annotations, Dataset, Note
from kvstore.datasets import sound
from kvstore.errors import DatasetError, ImageError
from kvstore.notes import Notes
from kvstore.prefill import across, load
from kvstore.prefill.survey import Seen

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = dict[str, Any]
Rows = dict[str, list[Row]]

_BOX = ("x0", "y0", "x1", "y1")
#: Key of each table beside data set and image. What only has a number is numbered on where an image has some.
_KEYS = {"object": ("object_id",), "keypoint": ("object_id", "name"), "void": ()}
_NUMBERED = {"caption": (), "expression": ("object_id",)}


def collect(dataset: Dataset, seen: Sequence[Seen], have: set[tuple[str, str]]) -> tuple[Rows, list[Seen]]:
    """What is said of images whose (name, sha256) `have` lacks: rows of the tables, with file names.

    Also `seen` again, in which an image whose annotations do not fit its file now has that as its fault.
    """
    rows: Rows = {table: [] for table in (*_KEYS, *_NUMBERED, "load_note")}
    judged = []
    for image in seen:
        header, verdict = image.header, image
        if header is not None and image.fault is None and (image.name, image.sha256) not in have:
            record = dataset.images[image.position]
            try:
                made = record.annotate(header.width, header.height, header.orientation)
                if not isinstance(made, Annotations):
                    told = f"annotate returned a {type(made).__name__}, not Annotations"
                    raise DatasetError(f"the recipe of {dataset.name}: {told} ({image.name}); mend it")
            except ImageError as fault:
                verdict = replace(image, layout=None, fault=fault)
            else:
                for table, found in _of_image(made, image).items():
                    rows[table].extend(found)
        judged.append(verdict)
    return rows, judged


def _of_image(made: Annotations, image: Seen) -> Rows:
    """Rows of the tables, each with its file's name; what the tables cannot hold is noted."""
    notes = Notes(made.notes)
    found: Rows = {}
    for table, rows in _rows(made).items():
        kept = list(_distinct(table, rows, notes, image.name)) if table in _KEYS else rows
        found[table] = [{"file": image.name, **_sound(row, notes, image.name)} for row in kept]
    ids = {row["object_id"] for row in found["object"]}
    meant = [row for row in found["expression"] if row["object_id"] in ids]
    if lost := len(found["expression"]) - len(meant):
        notes.add("expressions of an object that their image does not have", image.name, count=lost)
    return found | {"expression": meant, "load_note": list(load.rows(notes, image.name, image.position))}


def _distinct(table: str, rows: list[Row], notes: Notes, place: str) -> Iterator[Row]:
    """The rows whose key no earlier one has."""
    known: set[Hashable] = set()
    for row in rows:
        key = tuple(row[column] for column in _KEYS[table])
        if key in known:
            notes.add(f"{table}s met twice in an image", f"{place}, {table} {key[-1]}")
        else:
            yield row
        known.add(key)


def _sound(row: Row, notes: Notes, place: str) -> Row:
    """The row with its texts as UTF-8 holds them."""
    mended = {
        column: written
        for column, value in row.items()
        if isinstance(value, str) and (written := sound(value)) != value
    }
    if mended:
        notes.add("texts with half a character, written out", place, count=len(mended), lost=False)
    return row | mended


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


def _expressions(made: Annotations) -> Iterator[Row]:
    """Those of each object numbered from 0."""
    count: Counter[int] = Counter()
    for said in made.expressions:
        yield {"object_id": said.object_id, "number": count[said.object_id], "text": said.text}
        count[said.object_id] += 1


# ------------------------------------------------------------------------------------------ into the catalog


def store(
    con: DuckDBPyConnection, dataset_id: str, rows: Rows, sifted: across.Sifted, current: dict[str, int]
) -> None:
    """Insert collected annotations, and pairs, questions and frames whose images are in the store by now.

    current   name -> image_id of the images looked at: a name may have had another content before
    """
    known = con.execute("select name, image_id from dataset_image where dataset_id = $d", {"d": dataset_id})
    image_of: dict[str, int] = dict(known.fetchall()) | current
    load.store(con, dataset_id, rows["load_note"])
    for table in (*_KEYS, *_NUMBERED):
        named = [
            {"dataset_id": dataset_id, "image_id": image_of[row["file"]], **row, "place": place}
            for place, row in enumerate(rows[table])
        ]
        if not named:
            continue
        con.register("said", pa.Table.from_pylist(named))
        if table in _NUMBERED:
            _add_numbered(con, table)
        else:
            _add_keyed(con, dataset_id, table)
        con.unregister("said")
    load.replace(con, dataset_id, sifted.notes)
    across.store(con, dataset_id, sifted, image_of)


def _add_keyed(con: DuckDBPyConnection, dataset_id: str, table: str) -> None:
    """Insert what has a number of its own; what a copy of an image says otherwise of that number is noted."""
    columns = _columns(con, table)
    con.execute(f"insert or ignore into {table} by name select {', '.join(columns)} from said")
    same = " and ".join(f"said.{column} is not distinct from held.{column}" for column in columns)
    differing = con.execute(
        f"with other as (select * from said anti join {table} as held on {same}) "
        "select file, min(position), count(*) from other join dataset_image as listed "
        "on listed.dataset_id = other.dataset_id and listed.name = other.file group by file"
    ).fetchall()
    kind = f"{table}s of a copy of an image, other than the first copy's"
    for file, position, count in differing:
        load.store(con, dataset_id, load.rows([Note(kind, file, count)], file, position))


def _add_numbered(con: DuckDBPyConnection, table: str) -> None:
    """Insert texts, numbered on from those that a copy of their image has; not those that it has already."""
    key = ", ".join(("dataset_id", "image_id", *_NUMBERED[table]))
    con.execute(f"""
        insert into {table} by name
        with fresh as (
            select *, arg_min(file, place) over (partition by {key}, text) as first_file
            from said
            anti join {table} using ({key}, text)
        )

        select
            {key},
            text,
            row_number() over (partition by {key} order by place) - 1 + coalesce(max_number + 1, 0) as number,
        from fresh
        left join (select {key}, max(number) as max_number from {table} group by all) using ({key})
        where file = first_file
    """)


def _columns(con: DuckDBPyConnection, table: str) -> list[str]:
    return [row[0] for row in con.execute(f"describe {table}").fetchall()]
