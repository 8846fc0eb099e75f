"""`kvstore drop`: remove a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvstore.cli.options import STORE, RecipesOption, StoreOption


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, as `kvstore runs` lists it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Remove a run, and the images and models that no other run uses.

    Example: kvstore drop coco-tiny-onevision --yes
    """
    from kvstore.errors import UsageError
    from kvstore.store import Store

    opened = Store.open(store)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"dropping run {run} needs --yes when there is no terminal to ask on")
        typer.confirm(f"Remove run {run} from {opened.root}?", abort=True, err=True)
    opened.drop(run)
    print(f"run {run} is gone", file=sys.stderr)
