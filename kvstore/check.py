"""The store's invariants: each file of `sql/checks` returns no row when all is well.

A check that names ``$run`` and ``$image`` looks at one image, and runs once for the first image of each run:
a constant filter is pushed into Lance, where a join would read the whole table.

A check that cannot run is a finding as well: broken files make DuckDB and Lance raise, panic or abort.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb

from kvstore import query, recipes, warehouse


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
    return [_run(con, name, path) for name, path in _files().items()]


def findings_apart(catalog: Path, lance: Path) -> list[Finding]:
    """`findings` by a process of its own; where reading ends it, another goes on with the next check."""
    left, found = _files(), []
    while left:
        for finding in _by_a_process(catalog, lance, left):
            found.append(finding)
            del left[finding.check]
    return found


def _by_a_process(catalog: Path, lance: Path, files: Mapping[str, Path]) -> Iterator[Finding]:
    """Findings until all are made or the process ends; what it ended over is the last one."""
    context = multiprocessing.get_context("spawn")  # Lance has threads, which a fork would lose
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, catalog, lance, dict(files)), daemon=True)
    process.start()
    there.close()
    for name, path in dict(files).items():
        try:
            yield here.recv()
        except EOFError:
            process.join()
            code = process.exitcode or 0
            ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            told = f"cannot run: the process that read the tables ended {ended}; a file of theirs is broken"
            yield Finding(name, query.grain(query.read_text(path)), 1, told)
            return
    process.join()


def _work(pipe: Connection, catalog: Path, lance: Path, files: Mapping[str, Path]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where Rust and C++ write what they die of
    with warehouse.connect(catalog, lance) as con:
        for name, path in files.items():
            pipe.send(_run(con, name, path))


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
