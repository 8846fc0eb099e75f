"""Notes of what a data set's files hold that was not taken as it stands: counted by kind, and told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from kvstore.contracts import Note
from kvstore.lines import one_line

#: Kinds that a line names.
_KINDS = 2


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


def told(notes: Iterable[Note]) -> list[str]:
    """A line of what was left out, and one of what was mended; none where there is nothing to tell.

    A line names the kinds with the most and where the first of each is, in at most 300 characters.
    """
    found = list(Notes(notes))
    sides = (
        ("left out", [note for note in found if note.lost]),
        ("mended", [n for n in found if not n.lost]),
    )
    return [f"{outcome:<10} {_listed(side)}" for outcome, side in sides if side]


def _listed(notes: Sequence[Note]) -> str:
    by_count = sorted(notes, key=lambda note: -note.count)
    parts = [f"{n.count} {one_line(n.kind, 55)} (first: {one_line(n.place, 50)})" for n in by_count[:_KINDS]]
    more = by_count[_KINDS:]
    parts += [f"{sum(n.count for n in more)} more of {len(more)} other kinds"] if more else []
    return ", ".join(parts)
