"""SQL for people: a text or a named analysis, run on a read-only snapshot of a store.

Values come in only as ``$name`` parameters. A file of ``sql/analyses`` may name any: one that is not given is
null, and the analysis says what null means to it (``$run is null or run_id = $run``: all runs). A text must
be given all that it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from kvstore import recipes
from kvstore.errors import QueryError, UnknownNameError, UsageError
from kvstore.outside import reason

if TYPE_CHECKING:
    import pyarrow as pa

    from kvstore.store import Store

ANALYSES = "sql/analyses"


def analyses() -> dict[str, str]:
    """Every analysis, with what a row of it is: its file's first line, ``-- name: one row per ...``."""
    return {name: grain(path.read_text(encoding="utf-8")) for name, path in _files().items()}


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
    text = known[name].read_text(encoding="utf-8")
    named = _parameters(text)
    for given in params or {}:
        if given not in named:
            raise UnknownNameError(f"parameter of {name}", given, named)
    return text, dict.fromkeys(named) | dict(params or {})


@contextmanager
def stream(
    store: Store, text: str, params: Mapping[str, Any] | None = None
) -> Iterator[pa.RecordBatchReader]:
    """The rows of the last statement of `text`, batch by batch: memory is bounded whatever their number."""
    values = dict(params or {})
    missing = sorted(_parameters(text) - values.keys())
    if missing:
        raise UsageError(f"the SQL names ${missing[0]}; give it with -p {missing[0]}=VALUE")
    with store.connect() as con:
        try:
            result = execute(con, text, values)
            yield result.to_arrow_reader(10_000)
        except (duckdb.Error, _arrow_error()) as error:
            raise QueryError(reason(error), text, values) from error


def execute(
    con: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Any]
) -> duckdb.DuckDBPyConnection:
    """Run every statement of `text` with the parameters that it names; the last one's rows are pending."""
    statements = con.extract_statements(text)
    if not statements:
        raise UsageError("the SQL holds no statement")
    for statement in statements:
        con.execute(statement, {name: params[name] for name in statement.named_parameters})
    return con


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
