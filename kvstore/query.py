"""SQL for people: a text or a named analysis, run on a read-only snapshot of a store.

Values come in only as ``$name`` parameters. A file of ``sql/analyses`` may name any: one that is not given is
null, and the analysis says what null means to it (``$run is null or run_id = $run``: all runs). A text must
be given all that it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from kvstore import left_out, recipes, warehouse
from kvstore.errors import QueryError, UnknownNameError, UsageError
from kvstore.outside import reason, told

if TYPE_CHECKING:
    import pyarrow as pa

    from kvstore.store import Store

ANALYSES = "sql/analyses"


def analyses() -> dict[str, str]:
    """Every analysis, with what a row of it is: its file's first line, ``-- name: one row per ...``."""
    return {name: grain(read_text(path)) for name, path in _files().items()}


def grain(text: str) -> str:
    """What a row of an SQL file is, from its first line; empty when it does not say."""
    first = text.lstrip().partition("\n")[0]
    return re.sub(r"^--\s*(?:[\w-]+:\s*)?", "", first).strip() if first.startswith("--") else ""


def run_sql(store: Store, text: str, params: Mapping[str, Any] | None = None) -> pa.Table:
    """The rows of the last statement of `text`; `QueryError` shows the SQL and its parameters."""
    with stream(store, text, params) as rows:
        return rows.read_all()


def run_analysis(store: Store, name: str, params: Mapping[str, Any] | None = None) -> pa.Table:
    """The rows of one analysis; `UnknownNameError` for a name or a parameter that is not there."""
    text, values = analysis(name, params)
    return run_sql(store, text, values)


def analysis(name: str, params: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """The SQL of an analysis, and a value for each parameter that it names: null for those not given."""
    known = _files()
    if name not in known:
        raise UnknownNameError("analysis", name, known, "SQL itself has blanks in it.")
    text = read_text(known[name])
    named = _parameters(text)
    for given in params or {}:
        if given not in named:
            raise UnknownNameError(f"parameter of {name}", given, named)
    return text, dict.fromkeys(named) | dict(params or {})


@contextmanager
def stream(
    store: Store, text: str, params: Mapping[str, Any] | None = None, *, lossless: bool = False
) -> Iterator[pa.RecordBatchReader]:
    """The rows of the last statement of `text`, batch by batch: memory is bounded whatever their number.

    lossless    what Arrow has no type for comes as DuckDB's extension types, else as the nearest type
    """
    values = dict(params or {})
    _refuse(text, values)
    with store.connect() as con:
        con.execute("set arrow_lossless_conversion = $lossless", {"lossless": lossless})
        try:
            yield execute(con, text, values).to_arrow_reader(10_000)
        except (duckdb.Error, _arrow_error()) as error:
            raise QueryError(warehouse.explained(error), text, values) from error


def execute(
    con: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Any]
) -> duckdb.DuckDBPyConnection:
    """Run every statement of `text` with the parameters that it names; the last one's rows are pending."""
    statements = con.extract_statements(text)
    if not statements:
        raise UsageError("the SQL holds no statement")
    for statement in statements:
        values = {name: params[name] for name in statement.named_parameters}
        left_out.warn_of(con, statement.query, values)
        con.execute(statement, values)
    return con


def _refuse(text: str, values: Mapping[str, Any]) -> None:
    """`UsageError` for what is no Unicode, as half a surrogate pair, and for a parameter without a value."""
    for what, said in (
        ("the SQL", text),
        *((f"the value of ${name}", value) for name, value in values.items()),
    ):
        try:
            json.dumps(said, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{what} is no Unicode text: {reason(error)}; save it as UTF-8") from error
    missing = sorted(_parameters(text) - values.keys())
    if missing:
        named = f"has a ? as its parameter {missing[0]}" if "$" not in text else f"names ${missing[0]}"
        raise UsageError(f"the SQL {named}; give it with -p {missing[0]}=VALUE")


def read_text(path: Path) -> str:
    """The SQL of a file, in UTF-8 with or without a byte order mark; `UsageError` where it is none."""
    with told(f"{path} cannot be read", "save it as UTF-8", UsageError):
        return path.read_text(encoding="utf-8-sig")


def _files() -> dict[str, Path]:
    return recipes.listing(ANALYSES, ".sql")


def _parameters(text: str) -> set[str]:
    """The ``$name`` parameters of an SQL text; none for a text that does not parse (running it says why)."""
    try:
        with duckdb.connect(":memory:") as con:
            statements = con.extract_statements(text)
    except duckdb.Error:
        return set()
    return {name for statement in statements for name in statement.named_parameters}


def _arrow_error() -> type[Exception]:
    """What pyarrow raises when DuckDB fails in the middle of a stream."""
    import pyarrow as pa

    error: type[Exception] = pa.lib.ArrowException
    return error
