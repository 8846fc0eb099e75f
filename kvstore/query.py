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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from kvstore import confined, left_out, recipes, statements, warehouse
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


@dataclass(frozen=True)
class Access:
    """What SQL may do with files beside reading its store.

    spill    folder for what does not fit into memory; None: DuckDB's own
    files    read any of this machine
    exports  files that ``copy ... to`` writes, and the folder in which each is made
    """

    spill: Path | None = None
    files: bool = False
    exports: Mapping[Path, Path] = field(default_factory=dict)


STORE_ONLY = Access()


@contextmanager
def reading(store: Store, text: str = "", *, files: bool = False) -> Iterator[tuple[confined.Submit, Access]]:
    """Where to run SQL: what submits work to a thread that reads the store alone, and what SQL may do there.

    files    let it read any file, and write those that `text` exports to, outside the store: they are put in
             their places at the end

    The thread is confined in the program alone, see `confined.program`.
    """
    targets = statements.exports(text, store.root) if files else []
    read, spill = [Path("/")] if files else [store.root], confined.spill()
    with (
        statements.written(targets) as folders,
        confined.thread(read, [spill.parent, *folders.values()]) as submit,
    ):
        yield submit, Access(spill, files, folders)


def run_sql(store: Store, text: str, params: Mapping[str, Any] | None = None) -> pa.Table:
    """The rows of the last statement of `text`; `QueryError` shows the SQL and its parameters."""
    with reading(store) as (submit, access):

        def rows() -> pa.Table:
            with stream(store, text, params, access=access) as found:
                return found.read_all()

        return submit(rows).result()


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
    store: Store,
    text: str,
    params: Mapping[str, Any] | None = None,
    *,
    lossless: bool = False,
    access: Access = STORE_ONLY,
) -> Iterator[pa.RecordBatchReader]:
    """The rows of the last statement of `text`, batch by batch: memory is bounded whatever their number.

    lossless    what Arrow has no type for comes as DuckDB's extension types, else as the nearest type
    access      what the SQL may do with files

    To be used in the thread of `reading`: Lance's functions open what they are given where nothing confines.
    """
    values = dict(params or {})
    _refuse(text, values)
    with store.connect(spill=access.spill, files=access.files) as con:
        con.execute("set arrow_lossless_conversion = $lossless", {"lossless": lossless})
        try:
            yield execute(con, text, values, access).to_arrow_reader(10_000)
        except (duckdb.Error, _arrow_error()) as error:
            raise QueryError(warehouse.explained(error), text, values) from error


def execute(
    con: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Any], access: Access = STORE_ONLY
) -> duckdb.DuckDBPyConnection:
    """Run every statement of `text` with the parameters that it names; the last one's rows are pending.

    `UsageError` for a statement that does not only read, see `kvstore.statements`.
    """
    for statement in statements.vetted(con, text, files=access.files):
        exported = statements.export(statement)
        given = {name: params[name] for name in statement.named_parameters}
        left_out.warn_of(con, statement.query, given)
        con.execute(exported.sql(access.exports[exported.target]) if exported else statement, given)
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
    """The ``$name`` parameters of an SQL text."""
    return {name for statement in statements.parsed(text) for name in statement.named_parameters}


def _arrow_error() -> type[Exception]:
    """What pyarrow raises when DuckDB fails in the middle of a stream."""
    import pyarrow as pa

    error: type[Exception] = pa.lib.ArrowException
    return error
