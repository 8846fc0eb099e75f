"""`kvstore check`: the store's invariants."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption
from kvstore.lines import printable

if TYPE_CHECKING:
    from kvstore.check import Finding
    from kvstore.store import Store
    from kvstore.verify import Verdict


def command(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every vector and hold it to its checksum, too.")
    ] = False,
    run: Annotated[
        str | None, typer.Option(help="With --deep: read this run's vectors only.", metavar="RUN")
    ] = None,
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Run every check of sql/checks; exit code 1 for any finding.

    Example: kvstore check --deep --store ./s
    """
    from kvstore import check
    from kvstore.cli import output
    from kvstore.errors import UsageError
    from kvstore.interrupts import ending_at_once
    from kvstore.store import Store

    if run and not deep:
        raise UsageError("--run goes with --deep: the other checks are of the whole store")
    with ending_at_once():
        opened = Store.open(store)
        found = check.findings_apart(opened.catalog, opened.lance)
        verdicts = _verdicts(opened, run) if deep else []
    found += [_finding(verdict) for verdict in verdicts]
    records = [{"check": f.check, "rows": f.rows, "ok": f.ok, "a_row_is": f.grain} for f in found]
    output.write_records(records, ("check", "rows", "ok", "a_row_is"), format)
    for finding in found:
        if not finding.ok:
            what = finding.first
            if not what.startswith("cannot run: "):
                what = f"{finding.rows} rows, first: {what}"
            print(printable(f"{finding.check}: {what}"), file=sys.stderr)
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)


def _verdicts(store: Store, run: str | None) -> list[Verdict]:
    """Each run's vectors, read; a progress bar where stderr is a terminal."""
    from kvstore.progress import track
    from kvstore.repair import tasks
    from kvstore.verify import verify

    todo = tasks(store, run)
    with track("reading", sum(task.parts for task in todo), "block") as advance:
        return [verify(task, advance) for task in todo]


def _finding(verdict: Verdict) -> Finding:
    from kvstore.check import Finding

    if verdict.doubt:
        print(verdict.doubt, file=sys.stderr)
    grain = "one row per image and table whose rows are not what was stored"
    return Finding(f"vectors of {verdict.run_id}", grain, len(verdict.broken), verdict.first)
