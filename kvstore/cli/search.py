"""`kvstore search`: the patches most similar to one patch."""

from __future__ import annotations

from typing import Annotated

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption


def command(
    image: Annotated[str, typer.Option(help="image_id, file name in the data set, or sha256.")],
    patch: Annotated[int, typer.Option(help="Patch of the image, row by row from 0.")],
    layer: Annotated[int, typer.Option(help="Layer; 0 for site input.")] = 0,
    head: Annotated[int | None, typer.Option(help="KV head; none for input and encoder.")] = None,
    site: Annotated[str, typer.Option(help="value, key, input or encoder.")] = "value",
    top: Annotated[int, typer.Option(help="How many to find.")] = 10,
    run: Annotated[str | None, typer.Option(help="Run; the only one when left out.")] = None,
    ann: Annotated[
        bool, typer.Option("--ann", help="Use the column's vector index, where there is one; else exact.")
    ] = False,
    same_image: Annotated[
        bool, typer.Option("--same-image", help="Find patches of the image itself too.")
    ] = False,
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Find the patches of other images most similar to one patch.

    By cosine similarity, at the same site, layer and head.

    Example: kvstore search --image 1 --patch 300 --layer 20 --head 0 --top 5
    """
    from dataclasses import asdict, fields

    from kvstore.cli import output
    from kvstore.interrupts import ending_at_once
    from kvstore.search import Neighbour, Query, search
    from kvstore.store import Store

    query = Query(image, patch, layer, head, site, top, run, ann, same_image)
    with ending_at_once():
        found = [asdict(neighbour) for neighbour in search(Store.open(store), query)]
    output.write_records(found, [field.name for field in fields(Neighbour)], format)
