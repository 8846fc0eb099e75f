"""`kvstore optimize`: compact and index the vectors."""

from __future__ import annotations

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption


def command(
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Compact and index the runs' vectors, and clean old versions.

    A run that is being ingested is left alone.

    Example: kvstore optimize --store ./s
    """
    from kvstore.cli import output
    from kvstore.store import Store

    opened = Store.open(store)
    opened.recover()
    done = [{"run": run, "done": what} for run, what in opened.optimize().items()]
    output.write_records(done, ("run", "done"), format)
