"""`kvstore repair`: take broken images out of a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvstore.cli.options import STORE, RecipesOption, StoreOption


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, as `kvstore runs` lists it.")],
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Take broken images out of a run, to be ingested again.

    What is broken is what `kvstore check --deep` finds. If images are, the run's predictions, figures and key
    statistics are removed too: they may have been made of broken vectors. Answers stay, which a model gives.
    Broken vectors of texts and key moments are removed: the next probe or ingest makes them again.

    Example: kvstore repair coco-tiny-onevision --store ./s
    """
    from kvstore.repair import repair
    from kvstore.store import Store

    done = repair(Store.open(store), run)
    if done.indices:
        print(f"run {run}: index made anew of {', '.join(done.indices)}", file=sys.stderr)
    if done.images:
        told = f"run {run}: {len(done.images)} broken images taken out"
        if done.derived:
            told += f", and {done.derived} predictions and figures"
        print(f"{told}; the same `kvstore ingest` makes the images again", file=sys.stderr)
    if done.removed:
        told = f"run {run}: removed {', '.join(done.removed)}, which the next probe or ingest makes again"
        print(f"{told}; predictions and figures that went: {done.derived}", file=sys.stderr)
    if not done.indices and not done.images and not done.removed:
        print(f"run {run}: nothing is broken", file=sys.stderr)
