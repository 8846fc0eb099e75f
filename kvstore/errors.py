"""Every exception of kvstore.

KvstoreError                 one root; the command line prints its message in one line, exit code 2
├── UnknownNameError         a name that does not exist; the message holds the nearest that does
├── UsageError               options that do not fit together, or a value out of range
├── DatasetError             a data set that is not there, or whose files contradict its format
├── ModelError               a model that cannot be loaded, or whose family is not known
├── StoreError               a store that cannot be opened, read or written
│   ├── StoreVersionError    made by a newer kvstore
│   ├── StoreBusyError       another process holds what this one needs
│   └── NoSpaceError         the disk is, or would be, full
├── QueryError               SQL that fails; the message shows the SQL and its parameters
└── ReportError              a report that cannot be built

ImageError                   one image that cannot be used: goes to `quarantine`, the rest goes on
LeftOutWarning               a warning: rows were read without those of a run that cannot be read
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from kvstore.lines import one_line, printable, shortened


class KvstoreError(Exception):
    """Something that a user can mend; the message says what happened, the value met, and what to do.

    `details` is what the command line shows with ``--debug`` beside the message.
    """

    details = ""


class UnknownNameError(KvstoreError):
    """A name that does not exist, with the nearest that does."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name[:200], names, n=1, cutoff=0.5)
        meant = f"; did you mean '{near[0]}'?" if near else "."
        told = f"no {what} named '{shortened(printable(name), 80)}'{meant}"
        room = 270 - len(told) - len(hint)
        super().__init__(f"{told} Known: {_listed(names, room)}." + (f" {hint}" if hint else ""))
        self.what, self.name, self.nearest = what, name, near[0] if near else None


def _listed(names: list[str], room: int) -> str:
    """As many of the names as there is room for, with dots after them where some are left out."""
    listed = ", ".join(names) or "none"
    return listed if len(listed) <= room else listed[: max(0, room - 5)].rpartition(", ")[0] + ", ..."


class UsageError(KvstoreError):
    """Options that do not fit together, or a value out of range."""


class DatasetError(KvstoreError):
    """A data set that is not there, or whose files contradict its format."""


class ModelError(KvstoreError):
    """A model that cannot be loaded, or whose family is not known."""


class StoreError(KvstoreError):
    """A store that cannot be opened, read or written."""


class StoreVersionError(StoreError):
    """The store was made by a newer kvstore."""


class StoreBusyError(StoreError):
    """Another process holds what this one needs."""


class NoSpaceError(StoreError):
    """The disk is, or would be, full."""


class QueryError(KvstoreError):
    """SQL that fails; the message shows the SQL and its parameters, shortened; `details` shows all."""

    def __init__(self, why: str, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        given = {f"${name}": repr(value) for name, value in (parameters or {}).items()}
        shown = one_line("".join(f"; {name} = {shortened(value, 30)}" for name, value in given.items()), 70)
        why = shortened(why, 150)
        super().__init__(f"{why}; SQL: {one_line(sql, 280 - len(why) - len(shown))}{shown}")
        self.details = "\n  ".join([f"SQL:\n{sql.strip()}", *map(" = ".join, given.items())])


class ReportError(KvstoreError):
    """A report that cannot be built."""


class ImageError(Exception):
    """One image that cannot be used.

    `reason` is a short fixed word for grouping (``truncated``, ``not-an-image``, ``empty``, ``missing``,
    ``unsafe-path``, ``too-large``, ``too-small``, ``aspect-ratio``, ``unreadable``, ``non-finite``,
    ``float16-overflow``, ``changed``); the message tells the whole story.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class LeftOutWarning(UserWarning):
    """Rows were read without those of a run that cannot be read; the message names it and the remedy."""
