"""`kvstore sql`: run SQL or a named analysis."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption


def command(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT|NAME|-", help="SQL, an analysis by name, or - for stdin.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the SQL from a file.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A value for $NAME; JSON, else text."),
    ] = None,
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Run SQL, or an analysis by name, on the store, read-only.

    Example: kvstore sql "select * from run" --format csv
    """
    from kvstore import query
    from kvstore.cli import output
    from kvstore.cli.interrupts import ending_at_once
    from kvstore.store import Store

    values = parameters(param or [])
    sql, values = _resolve(text, file, values)
    with ending_at_once(), query.stream(Store.open(store), sql, values) as rows:
        output.write(rows, format)


def parameters(given: list[str]) -> dict[str, Any]:
    """`name=value` texts as values: JSON where it is (7, 0.5, true, null, "7"), else the text itself."""
    import json

    from kvstore.errors import UsageError

    values = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"-p {item}: give a parameter as NAME=VALUE")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def _standard_input() -> str:
    from kvstore.errors import UsageError

    text = sys.stdin.read()
    if not text.strip():
        raise UsageError("standard input holds no SQL")
    return text


def _resolve(text: str | None, file: Path | None, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The SQL to run and its parameters, from whichever of the three ways it was given."""
    from kvstore import query
    from kvstore.errors import UsageError

    if (text is None) == (file is None):
        raise UsageError("give either SQL (or an analysis' name, or -) or -f FILE")
    if file is not None:
        if not file.is_file():
            raise UsageError(f"-f {file}: no such file")
        return file.read_text(encoding="utf-8"), values
    if text == "-":
        return _standard_input(), values
    if text is not None and re.fullmatch(r"[\w.-]+", text.strip()):
        return query.analysis(text.strip(), values)
    return text or "", values
