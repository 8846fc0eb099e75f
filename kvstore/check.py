"""The store's invariants: each file of `sql/checks` returns no row when all is well.

A check that names ``$run`` and ``$image`` looks at one image, and runs once for the first image of each run:
a constant filter is pushed into Lance, where a join would read the whole table.

A check that cannot run is a finding as well: broken files make DuckDB and Lance raise, panic or abort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from kvstore import apart, confined, left_out, query, recipes, warehouse


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


def findings(catalog: Path, lance: Path) -> list[Finding]:
    """Which runs can be read, and every check, in order of name."""
    return list(read(catalog, lance, _files()))


def findings_apart(catalog: Path, lance: Path) -> list[Finding]:
    """`findings` by a process of its own; where reading ends it, another goes on with the next check."""
    left, found = _files(), {}
    while left:
        try:
            for finding in apart.messages(_confined, read, catalog, lance, dict(left)):
                found[finding.check] = finding
                left.pop(finding.check, None)
        except apart.EndedError as ended:
            for name, path in list(left.items())[:1]:
                told = (
                    f"cannot run: the process that read the tables ended {ended}; a file of theirs is broken"
                )
                found[name] = Finding(name, query.grain(query.read_text(path)), 1, told)
                del left[name]
    return list(found.values())


def read(catalog: Path, lance: Path, files: Mapping[str, Path]) -> Iterator[Finding]:
    """Which runs can be read, and the findings of these checks, in order."""
    with warehouse.connect(catalog, lance, spill=confined.spill()) as con:
        yield from _readable(con)
        for name, path in files.items():
            yield _run(con, name, path)


def _confined(
    reader: Callable[..., Iterator[Finding]], catalog: Path, lance: Path, files: Mapping[str, Path]
) -> Iterator[Finding]:
    """What `reader` finds, in a process that from now on reads the store and the checks and nothing else."""
    needed = [lance.parent, *{path.parent for path in files.values()}]
    confined.confine(needed, [confined.spill().parent])
    yield from reader(catalog, lance, files)


def _readable(con: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """One finding for each run that something is left out of; the checks are made of what can be read."""
    broken: dict[str, list[left_out.LeftOut]] = {}
    for one in left_out.there(con):
        broken.setdefault(one.run_id, []).append(one)
    for run, found in broken.items():
        grain = "one row per table that cannot be read"
        yield Finding(f"tables of {run}", grain, len(found), left_out.broken(found[0]))


def _files() -> dict[str, Path]:
    return dict(recipes.listing("sql/checks", ".sql"))


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
        return Finding(name, query.grain(text), 1, f"cannot run: {warehouse.explained(error)}")
    first = ", ".join(f"{name}={value}" for name, value in zip(names, rows[0], strict=True)) if rows else ""
    return Finding(name, query.grain(text), len(rows), first)


def _samples(con: duckdb.DuckDBPyConnection) -> list[dict[str, object]]:
    rows = con.execute(
        "select run_id, min(image_id) from token_grid group by run_id order by run_id"
    ).fetchall()
    return [{"run": run, "image": image} for run, image in rows]
