"""`kvstore sql`: run SQL or a named analysis."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvstore.cli.options import STORE, Format, FormatOption, RecipesOption, StoreOption
from kvstore.outside import local_path

if TYPE_CHECKING:
    from kvstore.query import Access
    from kvstore.store import Store


def command(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT|NAME|-", help="SQL, an analysis by name, or - for stdin.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", parser=local_path, help="Read the SQL from a file."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="NAME=VALUE", help="A value for $NAME (a ?: 1, 2, ...); JSON, else text."
        ),
    ] = None,
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    allow_files: Annotated[
        bool,
        typer.Option(
            "--allow-files",
            help="Let SQL read any file, and write with `copy ... to` outside of the store.",
        ),
    ] = False,
    recipes: RecipesOption = None,
) -> None:
    """Run SQL, or an analysis by name, on the store, read-only.

    It reads the store and nothing else, unless files are allowed.

    Example: kvstore sql "select * from run" --format csv
    """
    from kvstore import query
    from kvstore.interrupts import ending_at_once
    from kvstore.store import Store

    values = parameters(param or [])
    sql, values = _resolve(text, file, values)
    opened = Store.open(store)
    # What a signal leaves of an export is to be cleaned up; else it may end the process at once.
    at_once = nullcontext() if allow_files else ending_at_once()
    with at_once, query.reading(opened, sql, files=allow_files) as (submit, access):
        submit(_print, opened, sql, values, access, format).result()


def _print(store: Store, sql: str, values: dict[str, Any], access: Access, fmt: Format) -> None:
    from kvstore import query
    from kvstore.cli import output

    with query.stream(store, sql, values, lossless=True, access=access) as rows:
        output.write(rows, fmt)


def parameters(given: list[str]) -> dict[str, Any]:
    """`name=value` texts as values: JSON where it is (7, 0.5, true, null, "7"), else the text itself."""
    import json

    from kvstore.errors import UsageError
    from kvstore.lines import shortened

    values = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not (name.isidentifier() or name.isdecimal()):
            raise UsageError(
                f"-p {shortened(item, 100)}: give a parameter as NAME=VALUE, a ? or $1 as 1=VALUE"
            )
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError):
            values[name] = value
    return values


def _standard_input() -> str:
    from kvstore.errors import UsageError

    try:
        text = sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is no UTF-8 text: {error.reason}") from error
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
        return query.read_text(file), values
    if text == "-":
        return _standard_input(), values
    if text is not None and re.fullmatch(r"[\w.-]+", text.strip()):
        return query.analysis(text.strip(), values)
    return text or "", values
