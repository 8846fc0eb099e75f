"""`kvstore runs`: what the store holds."""

from __future__ import annotations

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption

COLUMNS = (
    "run_id",
    "state",
    "model_id",
    "dataset_id",
    "view",
    "sites",
    "dtype",
    "images",
    "requested",
    "bytes",
    "images_per_s",
)


def command(
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """List the runs, and mark those whose process died.

    Example: kvstore runs --store ./s --format json
    """
    from kvstore.cli import output
    from kvstore.store import Store

    opened = Store.open(store)
    opened.recover()
    output.write_records(opened.runs(), COLUMNS, format)
