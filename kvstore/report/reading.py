"""What a report reads: named analyses, each answer kept with what it came from, so that a build has a key."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvstore import left_out
from kvstore.errors import QueryError
from kvstore.outside import reason
from kvstore.query import analysis as analysis_sql
from kvstore.query import execute, reading
from kvstore.report.pictures import Pictures, Run, at_once

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from kvstore.report.blocks import Thumbnail
    from kvstore.store import Store

#: Views over Lance: too large to read twice, so their version is that of the committed tables.
_VECTORS = re.compile(r"\b(patch_kv|pooled_kv|patch_input|patch_encoder)\b", re.IGNORECASE)
#: Values that stand in a file's name as they are: no two of them are written alike, in any case.
_WORD, _NUMBER = re.compile(r"[a-z][a-z0-9_-]*"), re.compile(r"-?[0-9]+(\.[0-9]+)?")
_LONGEST = 120  # characters of them


@dataclass(frozen=True, slots=True)
class Answer:
    """One analysis as it was asked: its SQL, its rows, and the version of the data behind them."""

    analysis: str
    params: dict[str, Any]
    sql: str
    rows: pl.DataFrame
    data: str

    @property
    def name(self) -> str:
        """The analysis and its parameters as a file's name, another for each.

        Values may be names from data: where one is no number and no plain word, a hash of all is added.
        """
        stated = "".join(f".{key}-{value}" for key, value in sorted(self.params.items()))
        plain = all(
            (_WORD if isinstance(v, str) else _NUMBER).fullmatch(str(v)) for v in self.params.values()
        )
        if plain and len(stated) <= _LONGEST:
            return self.analysis + stated
        digest = hashlib.sha256(json.dumps(self.params, sort_keys=True, default=str).encode()).hexdigest()
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.analysis + stated[:_LONGEST]) + f".{digest[:16]}"

    def state(self) -> dict[str, Any]:
        """What enters the build's key."""
        sql = hashlib.sha256(self.sql.encode()).hexdigest()
        return {"analysis": self.analysis, "params": self.params, "sql": sql, "data": self.data}


class Query:
    """What ``build(query)`` is given: ``query("key_variance", run="a")`` is a polars DataFrame.

    Parameters that an analysis names and the call leaves out are null, which analyses read as "all".
    Asking twice reads once. `answers` keeps them in the order they were asked.

    run    what calls a function that uses the connection: in the thread that may
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, run: Run = at_once) -> None:
        # One thread: a sum of floats is then nearly always the same bits, and for the rest see `settled`.
        con.execute("set threads = 1")
        self._con, self._run = con, run
        self._answers: dict[str, Answer] = {}
        self._pictures = Pictures(con, run)
        self._absent: dict[str, str] = {}

    @property
    def answers(self) -> list[Answer]:
        """Everything asked so far."""
        return list(self._answers.values())

    def __call__(self, analysis: str, **params: Any) -> pl.DataFrame:
        """Run ``sql/analyses/<analysis>.sql``; `UnknownNameError` or `QueryError`."""
        asked = json.dumps([analysis, params], sort_keys=True)
        if asked not in self._answers:
            sql, values = analysis_sql(analysis, params)
            rows = self._run(_rows, self._con, analysis, sql, values)
            version = self._run(_version, self._con, sql, rows)
            self._answers[asked] = Answer(analysis, params, sql, rows, version)
        return self._answers[asked].rows

    def thumbnail(self, sha256: str) -> Thumbnail | None:
        """The image of that content, made small; None where no data set has it any more, see `absent`."""
        found = self._pictures.thumbnail(sha256)
        if isinstance(found, str):
            self._absent[sha256] = found
            return None
        return found

    @property
    def absent(self) -> dict[str, str]:
        """Why images that were asked for could not be had, by sha256."""
        return dict(self._absent)

    def state(self) -> list[dict[str, Any]]:
        """What enters the build's key: every answer, and every image that could not be had.

        An image that was had needs no place here: an answer named its content, and no other was shown.
        """
        absent = [{"absent": sha256} for sha256 in sorted(self._absent)]
        return [*(answer.state() for answer in self._answers.values()), *absent]


@contextmanager
def asking(store: Store) -> Iterator[Query]:
    """A `Query` on a store, whose SQL reads the store and nothing else."""
    with (
        reading(store) as (submit, access),
        submit(store.connect, spill=access.spill).result() as con,
    ):
        try:
            yield Query(con, lambda work, *args: submit(work, *args).result())
        except BaseException:
            con.interrupt()  # a signal came: closing would wait for what runs
            raise


def _rows(con: duckdb.DuckDBPyConnection, analysis: str, sql: str, values: dict[str, Any]) -> pl.DataFrame:
    import duckdb
    import polars as pl

    try:
        frame = pl.from_arrow(execute(con, sql, values).to_arrow_table())
    except duckdb.Error as error:
        raise QueryError(f"analysis '{analysis}': {reason(error)}", sql, values) from error
    assert isinstance(frame, pl.DataFrame)
    return frame


def _version(con: duckdb.DuckDBPyConnection, sql: str, rows: pl.DataFrame) -> str:
    """A hash that changes when the answer may: of the answer, or for vectors of the tables read."""
    digest = hashlib.sha256()
    if _VECTORS.search(sql):
        digest.update(repr(_tables(con, sql)).encode())
    else:
        # Python's own text of the rows: Arrow's bytes hold whatever lies under a null.
        digest.update(repr((rows.columns, rows.dtypes, [settled(row) for row in rows.rows()])).encode())
    return digest.hexdigest()


def settled(value: Any) -> Any:
    """A value less what is noise in it: DuckDB adds in no fixed order, so a sum's last bits may change."""
    if isinstance(value, float):
        return f"{round(value, 14) + 0.0:.10g}"
    return [settled(part) for part in value] if isinstance(value, list | tuple) else value


def _tables(con: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    """Committed versions of all Lance tables, and a content hash of every catalog table that `sql` may read.

    Those are the tables that it names; all of them where it calls a macro of the catalog.
    """
    found: list[Any] = con.execute("select run_id, versions::varchar from run order by run_id").fetchall()
    found += left_out.there(con)
    tables = con.execute("select table_name from duckdb_tables() where not temporary order by 1").fetchall()
    macros = con.execute(
        "select distinct function_name from duckdb_functions() where database_name = 'kvstore'"
    ).fetchall()
    through_macro = any(_names(sql, macro) for (macro,) in macros)
    for (table,) in tables:
        if through_macro or _names(sql, table):
            name = '"' + table.replace('"', '""') + '"'
            found += con.execute(
                f"select $table, count(*), bit_xor(hash(t)) from {name} as t", {"table": table}
            ).fetchall()
    return found


def _names(sql: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", sql, re.IGNORECASE) is not None


def replay(query: Query, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same calls asked now: equal to `calls` when SQL and data are as then, and no lost image is back."""
    for call in calls:
        if "absent" in call:
            query.thumbnail(call["absent"])
        else:
            query(call["analysis"], **call["params"])
    return query.state()
