"""What of a store cannot be read is named and left out: views show the vectors of the other runs.

Whoever opens a snapshot looks at the seals of its tables (`kvstore.seals`). For a kind of table of which some
cannot be read, a temporary view of the others stands before the catalog's own, and the table `unreadable`
names them. The view has a branch for each of them, too, without rows, so that the plan of a query tells
whether it would read one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from warnings import warn

import duckdb

from kvstore.errors import LeftOutWarning
from kvstore.lines import one_line

TABLE = "unreadable"


class LeftOut(NamedTuple):
    """A run's Lance table that cannot be read, and why."""

    run_id: str
    kind: str
    why: str


def create(found: Iterable[LeftOut]) -> str:
    """The SQL that makes the table `unreadable`."""
    rows = "".join(f" union all select {', '.join(map(_text, one))}" for one in found)
    return f"""create temp table {TABLE} as select '' as run_id, '' as "table", '' as why where false{rows}"""


def branch(run_id: str, columns: Mapping[str, str]) -> str:
    """A view's branch for a run that is left out: no rows, which DuckDB does not find out before it looks."""
    made = ", ".join(f"try_cast(why as {kind}) as {name}" for name, kind in columns.items())
    return f"select {_text(run_id)} as run_id, {made} from {TABLE} where run_id = run_id || why"


def there(con: duckdb.DuckDBPyConnection) -> list[LeftOut]:
    """What is left out of a snapshot's views."""
    made = con.execute(
        "select 1 from system.main.duckdb_tables() where temporary and table_name = $name", {"name": TABLE}
    )
    if not made.fetchall():
        return []
    return [LeftOut(*row) for row in con.execute(f"from {TABLE} order by all").fetchall()]


def warn_of(con: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any]) -> None:
    """Give a `LeftOutWarning` where `sql`, which may call macros, would read what is left out."""
    found = there(con)
    if found and _reads(con, sql, values):
        warn(sentence(found), LeftOutWarning, stacklevel=3)


def sentence(found: Sequence[LeftOut]) -> str:
    """What is left out, in one line with the way out."""
    others = [f"{other} of run '{name}'" for name, other, _ in found[1:]]
    rest = one_line(f"; left out, too: {', '.join(others)}", 60) if others else ""
    return f"{broken(found[0], 'is left out')}{rest}"


def broken(one: LeftOut, verdict: str = "cannot be read") -> str:
    """What is told of one table, in one line with the way out."""
    run, kind, why = one
    first = one_line(f"{kind} of run '{run}' {verdict}: {why}", 200)
    return f"{first}; kvstore repair {run}"


def _reads(con: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any]) -> bool:
    """Whether the plan has a branch of what is left out, or had one where it now expects no rows."""
    con.execute("set explain_output = 'all'")
    try:
        plans = dict(con.execute(f"explain (format json) {sql}", dict(values)).fetchall())
    except duckdb.Error:  # what is wrong with it is told when it is run
        return False
    finally:
        con.execute("reset explain_output")
    physical, scanned = plans.get("physical_plan", ""), f"main.{TABLE}"
    return scanned in plans.get("logical_plan", "") and (scanned in physical or "EMPTY_RESULT" in physical)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
