"""`kvstore ls`: what can be named in other commands."""

from __future__ import annotations

from typing import Annotated

import typer

from kvstore.cli.options import FormatOption, RecipesOption


def command(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]", help="datasets, models, benchmarks, probes, analyses, reports or exports."
        ),
    ] = None,
    format: FormatOption = "table",  # noqa: A002
    recipes: RecipesOption = None,
) -> None:
    """List data sets, models, probes, analyses and reports by name.

    Example: kvstore ls analyses --format json
    """
    from kvstore import catalogue
    from kvstore.cli import output

    output.write_records(catalogue.entries(kind), catalogue.COLUMNS, format)
