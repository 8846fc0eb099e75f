"""`kvstore shell`: the real DuckDB command line on the store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kvstore.cli.options import STORE, RecipesOption, StoreOption

#: What follows the command's own options goes to duckdb as it is.
SETTINGS: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


def command(
    context: typer.Context,
    print_init: Annotated[
        bool, typer.Option("--print-init", help="Print the SQL that opens the store, for duckdb -init FILE.")
    ] = False,
    store: StoreOption = STORE,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let SQL read any file; it writes none (kvstore sql can).")
    ] = False,
    recipes: RecipesOption = None,
) -> None:
    """Open the DuckDB shell on the store, read-only.

    It reads the store and nothing else, unless files are allowed. Views, macros and the lance extension are
    in place. Further arguments go to duckdb.

    Example: echo "from run" | kvstore shell --store ./s -csv
    """
    from kvstore import shell
    from kvstore.cli.ending import to_stdout
    from kvstore.store import Store

    opened = Store.open(store)
    if print_init:
        with to_stdout():
            print(shell.init_sql(opened))
        return
    raise typer.Exit(shell.run(opened, context.args, files=allow_files))
