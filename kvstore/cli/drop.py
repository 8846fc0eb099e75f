"""`kvstore drop`: remove a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvstore.cli.options import STORE, RecipesOption, StoreOption


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, as `kvstore runs` lists it.")],
    now: Annotated[
        bool, typer.Option("--now", help="Free the space at once, also of a run that was dropped before.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Remove a run, and the images and models that no other run uses.

    Its vectors stay on disk for a day, for shells that have it open; `kvstore optimize` removes them then.

    Example: kvstore drop coco-tiny-onevision --yes
    """
    from kvstore.errors import UsageError
    from kvstore.store import Store

    opened = Store.open(store)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"dropping run {run} needs --yes when there is no terminal to ask on")
        typer.confirm(f"Remove run {run} from {opened.root}?", abort=True, err=True)
    size = f"{opened.drop(run, now=now) / 1e9:.3f} GB"
    told = "are freed" if now else f"stay for a day; `kvstore drop {run} --now` frees them at once"
    print(f"run {run} is gone; its {size} {told}", file=sys.stderr)
