"""The store's invariants: each file of `sql/checks` returns no row when all is well.

A check that names ``$run`` and ``$image`` looks at one image, and runs once for the first image of each run:
a constant filter is pushed into Lance, where a join would read the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from kvstore import query, recipes
from kvstore.errors import QueryError
from kvstore.outside import reason


@dataclass(frozen=True)
class Finding:
    """What one check found: how many rows, and the first of them as text; ok when there is none."""

    check: str
    grain: str
    rows: int
    first: str

    @property
    def ok(self) -> bool:
        """No row: the invariant holds."""
        return self.rows == 0


def findings(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    """Run every check, in order of name."""
    return [_run(con, name, path) for name, path in recipes.listing("sql/checks", ".sql").items()]


def _run(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> Finding:
    text = query.read_text(path)
    rows: list[tuple[object, ...]] = []
    names: list[str] = []
    try:
        for values in _samples(con) if "$run" in text else [{}]:
            result = query.execute(con, text, values)
            names = [column[0] for column in result.description or ()]
            rows += result.fetchall()
    except duckdb.Error as error:
        raise QueryError(f"check {name} cannot run: {reason(error)}", text) from error
    first = ", ".join(f"{name}={value}" for name, value in zip(names, rows[0], strict=True)) if rows else ""
    return Finding(name, query.grain(text), len(rows), first)


def _samples(con: duckdb.DuckDBPyConnection) -> list[dict[str, object]]:
    rows = con.execute(
        "select run_id, min(image_id) from token_grid group by run_id order by run_id"
    ).fetchall()
    return [{"run": run, "image": image} for run, image in rows]
