"""What a report is made of: charts, tables, notes, and gaps that say how to fill them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

#: The most rows that one chart or table may hold; beyond it, aggregate in SQL.
MAX_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Chart:
    """An Altair chart, with a caption that tells how to read it.

    `name` names its PNG and is unique in the report. `group` is what the reader chooses by (a run, mostly):
    where a report has two groups or more, its page shows one of them at a time.
    """

    name: str
    title: str
    chart: Any
    caption: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as a table; `headings` renames columns for people, underscores become spaces elsewhere."""

    title: str
    rows: pl.DataFrame
    caption: str = ""
    headings: Mapping[str, str] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    text: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the store does not hold yet, and the command that fills it.

    The page adds ``--store`` to `command`.
    """

    what: str
    command: str
    group: str = ""


Block = Chart | Table | Note | Missing
