"""The report of a load: what of a data set is in the catalog, and the notes of what is not, or was mended.

Notes of an image's annotations go in once, with its annotations; those of the files as a whole replace the
former ones at each ingest. So a report tells the same however often and in how many steps a data set is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kvstore import query
from kvstore.contracts import Note
from kvstore.lines import one_line
from kvstore.notes import Notes
from kvstore.prefill.record import insert

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What the catalog holds of a data set: kind -> how many; and the notes, those of one kind as one."""

    read: dict[str, int]
    notes: tuple[Note, ...]

    @property
    def lost(self) -> bool:
        """Whether anything was left out."""
        return any(note.lost for note in self.notes)


def rows(notes: Iterable[Note], image: str = "", position: int = -1) -> Iterator[Row]:
    """Rows of `load_note` but for the data set: of one image, or of the files as a whole."""
    for note in Notes(notes):
        yield {
            "image": image,
            "position": position,
            "kind": note.kind,
            "lost": note.lost,
            "count": note.count,
            "place": one_line(note.place, 200),
        }


def store(con: DuckDBPyConnection, dataset_id: str, found: Iterable[Row]) -> None:
    """Put in the rows of images; a row of the same image and kind gives way."""
    listed = pa.Table.from_pylist([{"dataset_id": dataset_id, **row} for row in found])
    insert(con, "load_note", listed, "or replace")


def replace(con: DuckDBPyConnection, dataset_id: str, notes: Iterable[Note]) -> None:
    """Put the notes of the files as a whole in the place of the former ones."""
    con.execute("delete from load_note where dataset_id = $d and image = ''", {"d": dataset_id})
    store(con, dataset_id, rows(notes))


def report(con: DuckDBPyConnection, dataset_id: str) -> Report:
    """What `kvstore sql load_notes` says of one data set."""
    text, values = query.analysis("load_notes", {"dataset": dataset_id})
    found = con.execute(text, values).fetchall()
    read = {kind: count for _, outcome, kind, count, _, _ in found if outcome == "read"}
    notes = [
        Note(kind, place, count, outcome == "left out")
        for _, outcome, kind, count, _, place in found
        if outcome != "read"
    ]
    return Report(read, tuple(notes))
