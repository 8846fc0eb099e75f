"""`kvstore optimize`: compact and index the vectors."""

from __future__ import annotations

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption


def command(
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Compact and index the runs' vectors, and clean old versions.

    A run that is being ingested is left alone. Exit code 1 where one cannot be read.

    Example: kvstore optimize --store ./s
    """
    from kvstore.cli import ending, output
    from kvstore.optimizing import FAILED, optimize
    from kvstore.store import Store

    opened = Store.open(store)
    opened.recover()
    done = optimize(opened)
    failed = {run: what for run, what in done.items() if what.startswith(FAILED)}
    records = [{"run": run, "done": "failed" if run in failed else what} for run, what in done.items()]
    output.write_records(records, ("run", "done"), format)
    for what in failed.values():
        ending.say(what.removeprefix(FAILED))
    if failed:
        raise typer.Exit(1)
