"""Notes of what a data set's files hold that was not taken as it stands, counted by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from kvstore.contracts import Note


class Notes:
    """Notes put together by kind: the place of the first, and how many there are."""

    def __init__(self, notes: Iterable[Note] = ()) -> None:
        self._found: dict[tuple[str, bool], Note] = {}
        for note in notes:
            self.take(note)

    def add(self, kind: str, place: str, *, count: int = 1, lost: bool = True) -> None:
        """One more of `kind`, at `place`; see `contracts.Note`."""
        self.take(Note(kind, place, count, lost))

    def take(self, note: Note) -> None:
        """A note that stands already, or one more to count."""
        key = (note.kind, note.lost)
        first = self._found.get(key)
        self._found[key] = replace(first, count=first.count + note.count) if first else note

    def __iter__(self) -> Iterator[Note]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)
