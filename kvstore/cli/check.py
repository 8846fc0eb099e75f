"""`kvstore check`: the store's invariants."""

from __future__ import annotations

import sys

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption


def command(
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Run every check of sql/checks; exit code 1 when one finds a row, or cannot read the tables.

    Example: kvstore check --store ./s
    """
    from kvstore import check
    from kvstore.cli import output
    from kvstore.interrupts import ending_at_once
    from kvstore.store import Store

    with ending_at_once():
        opened = Store.open(store)
        found = check.findings_apart(opened.catalog, opened.lance)
    records = [{"check": f.check, "rows": f.rows, "ok": f.ok, "a_row_is": f.grain} for f in found]
    output.write_records(records, ("check", "rows", "ok", "a_row_is"), format)
    for finding in found:
        if not finding.ok:
            what = finding.first
            if not what.startswith("cannot run: "):
                what = f"{finding.rows} rows, first: {what}"
            print(f"{finding.check}: {what}", file=sys.stderr)
    if not all(finding.ok for finding in found):
        raise typer.Exit(1)
