"""`kvstore probe`: make predictions from a run's vectors, and their figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption, TrustOption
from kvstore.outside import local_path


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `kvstore ls probes`.")],
    run: Annotated[str | None, typer.Option(help="Run; the only one when left out.")] = None,
    site: Annotated[
        str | None, typer.Option(help="Of value,key,input,encoder; default all that are stored.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Layers, e.g. 0-27 or 0,9,18; default all.")] = None,
    heads: Annotated[
        str, typer.Option(help="each KV head, concat (all heads of a layer as one vector), or both.")
    ] = "each",
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=local_path,
            help="Also write the masks of the best image value (of --site, where one is named) into this new"
            " folder, as the benchmark's official evaluation reads them.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:1, cpu; default the best there is.")] = None,
    trust_remote_code: TrustOption = False,
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Make predictions from a run's vectors, and their figures.

    Prints each site's best layer and head, chosen on one half of the units (images, clips) and scored on the
    other, and two floors that look at no vector: position and chance. Doing it again replaces nothing.

    Example: kvstore probe correspondence --run shapes-tiny-onevision --site value --layers 0-27
    """
    from kvstore import submission
    from kvstore.cli import output
    from kvstore.prefill.options import layer_list
    from kvstore.probes import Request, check_heads, find
    from kvstore.query import run_analysis
    from kvstore.store import Store
    from kvstore.stored import only_run

    probe, opened = find(name), Store.open(store)
    with opened.tables() as con:
        run_id = only_run(con, run)
    if export:
        submission.check(name, export)
    sites = tuple(part.strip() for part in (site or "").split(",") if part.strip())
    chosen = layer_list(layers, _MOST_LAYERS) if layers else ()
    outcome = probe.predict(
        opened, Request(run_id, sites, chosen, check_heads(heads), device, trust_remote_code)
    )
    print(
        f"{name}: {outcome.items} items, {outcome.made} layers made, {outcome.kept} there already,"
        f" {outcome.rows} predictions written",
        file=sys.stderr,
    )
    if export:
        best = submission.best(opened, run_id, name, sites[0] if len(sites) == 1 else None)
        files = submission.write(opened, best, export)
        print(
            f"{files} files of {best.site}, layer {best.layer}, head {best.head} in {export}", file=sys.stderr
        )
    output.write(run_analysis(opened, "best_layer", {"run": run_id, "probe": name}), format)


#: No model has more layers; which of them a run stores is checked by the probe.
_MOST_LAYERS = 1000
