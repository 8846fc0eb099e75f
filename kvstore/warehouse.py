"""The DuckDB side of a store: opening a snapshot to read, and a private copy of the catalog to change.

Views over Lance tables are made from table `run`. They scan the versions that it names (`kvstore.pins`), by
the path in the variable `kvstore_lance`, which whoever opens the store sets: so a store can be moved, and
nothing that can be written is attached. (A folder attached with `type lance` can: `drop table` there deletes
a run's vectors.) What cannot be read is left out of them (`kvstore.left_out`).

Every connection is closed when it has what it needs: DuckDB opens no other file then, whatever SQL, a view or
a macro of a catalog that somebody sent asks for. Only the `lance` extension goes its own ways to files. So
what needs no vectors does not load it, and what people's SQL and a store's views do by it is confined by the
kernel (`kvstore.confined`).

Making a view binds what it reads; while the catalog is changed, an empty stand-in of the same types takes
the scan's place, so that a publish neither loads the extension (0.8 s, most of it DuckDB's check of its
signature) nor depends on any run's files.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb

from kvstore import left_out, pins, recipes, seals
from kvstore.errors import StoreBusyError, StoreError
from kvstore.outside import reason, sentence, told

#: Lance tables that views show: name -> column -> type in the view. `run_id` goes in front.
TABLES: dict[str, dict[str, str]] = {
    "patch_kv": {
        "image_id": "bigint",
        "layer": "smallint",
        "head": "smallint",
        "patch": "integer",
        "key": "float[]",
        "value": "float[]",
    },
    "pooled_kv": {
        "image_id": "bigint",
        "layer": "smallint",
        "head": "smallint",
        "key": "float[]",
        "value": "float[]",
        "key_norm": "float",
        "value_norm": "float",
    },
    "patch_input": {"image_id": "bigint", "patch": "integer", "feature": "float[]"},
    "patch_encoder": {
        "image_id": "bigint",
        "layer": "smallint",
        "patch": "integer",
        "feature": "float[]",
    },
    "text_kv": {
        "text": "varchar",
        "layer": "smallint",
        "head": "smallint",
        "key": "float[]",
        "value": "float[]",
    },
    "text_input": {"text": "varchar", "feature": "float[]"},
    "text_encoder": {"text": "varchar", "feature": "float[]"},
}
#: Column of a Lance table -> site that must be in `run.sites` for it to be there.
_SITE_OF = {"key": "key", "key_norm": "key", "value": "value", "value_norm": "value"}
#: The extension's scan of one Lance table by its path; what its own replacement of `from 'x.lance'` calls.
_SCAN = "__lance_scan"

#: Settings that SQL may change in a closed connection.
_FREE = (
    *("threads", "memory_limit", "max_memory", "TimeZone", "Calendar", "default_order", "default_null_order"),
    *("null_order", "arrow_lossless_conversion", "preserve_insertion_order", "enable_progress_bar"),
    *("integer_division", "ieee_floating_point_ops", "search_path", "schema", "explain_output"),
)

#: The first statement of a connection: no password that the user keeps for DuckDB is looked for, nor found.
NO_SECRETS = "set allow_persistent_secrets = false"
#: The last statements before a connection is closed; `.safe_mode` of DuckDB's shell makes them itself.
CLOSE = ("set enable_external_access = false", "set lock_configuration = true")

#: What Lance says when the kernel refuses it a file.
_DENIED = re.compile(r"Permission denied|os error 13")
_verified = False  # DuckDB has checked the extension's signature in this process


def reading(run_id: str, kind: str) -> AbstractContextManager[None]:
    """Whatever Lance raises over a run's table within becomes a `StoreError` of one line."""
    return told(_unreadable(run_id, kind), kind=StoreError)


def _unreadable(run_id: str, kind: str) -> str:
    hint = f"was it dropped meanwhile? If not, a file is broken: kvstore repair {run_id}"
    return f"{kind} of run '{run_id}' cannot be read; {hint}"


def explained(error: BaseException) -> str:
    """Why a query failed, in a line; of a Lance table that cannot be read, which run's it is."""
    if isinstance(error, duckdb.PermissionException):
        return sentence("SQL reads its store and nothing else, without --allow-files", error)
    if _DENIED.search(str(error)):
        return sentence("SQL reads its store and nothing else", error)
    met = re.search(rf"([^/'\s]+)\.({'|'.join(TABLES)})(?:\.\d+)?\.lance\b", str(error))
    if met:
        return sentence(_unreadable(met[1], met[2]), error)
    return reason(error)


def text(value: object) -> str:
    """An SQL text literal; the only places that need one are names of files, which take no parameter."""
    return "'" + str(value).replace("'", "''") + "'"


def extension() -> Path:
    """The `lance` extension inside its wheel, for the DuckDB that runs; `StoreError` when there is none."""
    wheel = importlib.util.find_spec("duckdb_extension_lance")
    if wheel is None or not wheel.submodule_search_locations:
        raise StoreError("the lance extension of DuckDB is missing; pip install duckdb-extension-lance")
    versions = Path(next(iter(wheel.submodule_search_locations)), "extensions")
    path = versions / f"v{duckdb.__version__}" / "lance.duckdb_extension"
    if not path.is_file():
        there = ", ".join(sorted(folder.name for folder in versions.glob("v*"))) or "none"
        raise StoreError(
            f"no lance extension for DuckDB {duckdb.__version__} (installed: for {there}); "
            f"pip install duckdb-extension-lance=={duckdb.__version__}"
        )
    return path


def connect(
    catalog: Path, lance: Path, *, spill: Path | None = None, files: bool = False
) -> duckdb.DuckDBPyConnection:
    """A connection that reads one snapshot of the catalog, with the run's vectors beside it.

    spill  folder for what does not fit into memory; DuckDB's own default is the working folder
    files  let SQL open other files of this machine, too
    """
    global _verified
    # The signature's check reads all 250 MB of the extension: once in a process is enough.
    config: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": False,
        "allow_unsigned_extensions": _verified,
    }
    con = _memory(config)
    with _opening(con, catalog):
        if spill is not None:
            con.execute(f"set temp_directory = {text(spill)}")
        for statement in attach_statements(catalog, lance):
            con.execute(statement)
        for statement in (*_without_broken(con, lance), *close_statements(files=files)):
            con.execute(statement)
    _verified = True
    return con


def opening_statements(catalog: Path, lance: Path) -> list[str]:
    """`attach_statements`, and what leaves out of the views what cannot be read now: for the shell."""
    with _memory({"python_enable_replacements": False}) as con, _opening(con, catalog):
        con.execute(f"attach {text(catalog)} as kvstore (read_only)")
        con.execute("use kvstore")
        return [*attach_statements(catalog, lance), *_without_broken(con, lance)]


def broken(catalog: Path, lance: Path) -> list[left_out.LeftOut]:
    """Every Lance table that the catalog names and that cannot be read, those that no view shows, too."""
    with connect(catalog, lance) as con:
        return left_out.there(con)


def _without_broken(con: duckdb.DuckDBPyConnection, lance: Path) -> list[str]:
    """What puts views of the tables that can be read in front of the catalog's, where some cannot."""
    held = _all_held(con, lambda run, kind, version: pins.at(lance, run, kind, version))
    faults = {(one.run_id, one.kind): _fault(con, lance / one.path) for one in held}
    found = [left_out.LeftOut(*name, why) for name, why in faults.items() if why]
    changed = {one.kind for one in held if faults[one.run_id, one.kind] or not pins.is_pin(one.path)}
    views = []
    for kind in (kind for kind in TABLES if kind in changed):
        rest = [one for one in held if one.kind == kind and not faults[one.run_id, kind]]
        views.append(_view(kind, rest, [one.run_id for one in found if one.kind == kind]))
    return [left_out.create(found), *views] if found or views else []


def _fault(con: duckdb.DuckDBPyConnection, path: Path) -> str:
    """Why a table cannot be read; empty when it can. One without a seal is opened."""
    why = seals.fault(path)
    if why is not None:
        return why
    if not path.is_dir():
        return f"{path} is not there"
    try:
        con.execute(f"load {text(extension())}")
        con.execute(f"describe from {_SCAN}({text(path)})")
    except duckdb.Error as error:
        return reason(error)
    return ""


def _memory(config: Mapping[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config=dict(config))
    con.execute(NO_SECRETS)
    con.execute("set enable_progress_bar = false")  # DuckDB draws it on stdout, where data goes
    if os.environ.get("TZ") == "":  # UTC by POSIX; DuckDB makes a zone of it that nobody else knows
        con.execute("set timezone = 'UTC'")
    return con


@contextmanager
def _opening(con: duckdb.DuckDBPyConnection, catalog: Path) -> Iterator[None]:
    """Close the connection, and say what the matter is, when a catalog cannot be attached."""
    try:
        yield
    except duckdb.Error as error:
        con.close()
        holder = re.search(r"lock is held in (.+?) \(PID (\d+)\)", str(error))
        if holder:
            raise StoreBusyError(
                f"{catalog} is open for writing in {Path(holder[1]).name} (process {holder[2]}); close it"
                " there, or open it there read-only"
            ) from error
        if "permission denied" in str(error).lower():
            raise StoreError(
                f"{catalog} cannot be read: permission denied; ask its owner for leave"
            ) from error
        told = sentence(f"{catalog} cannot be opened as a catalog", error, "put it back from a backup")
        raise StoreError(told) from error


@contextmanager
def _reaching_out(catalog: Path) -> Iterator[None]:
    """Say it of a catalog whose views or macros want another file: DuckDB has refused it."""
    try:
        yield
    except duckdb.PermissionException as error:
        raise StoreError(f"{catalog} reaches for a file out of its store: {reason(error)}") from error


@contextmanager
def catalog_only(catalog: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that reads one snapshot of the catalog's tables, without the vectors' 0.9 s of loading."""
    with _reaching_out(catalog), _memory({"python_enable_replacements": False}) as con:
        with _opening(con, catalog):
            con.execute(f"attach {text(catalog)} as kvstore (read_only)")
            con.execute("use kvstore")
            for statement in close_statements():
                con.execute(statement)
        yield con


def attach_statements(catalog: Path, lance: Path) -> list[str]:
    """What opens the store in any DuckDB of this version, the shell included."""
    return [
        f"load {text(extension())}",
        f"attach {text(catalog)} as kvstore (read_only)",
        f"set variable kvstore_lance = {text(lance)}",
        "use kvstore",
    ]


def close_statements(*, files: bool = False) -> list[str]:
    """What closes a connection that is set up: DuckDB opens no further file, and no SQL opens it again.

    With `files` it opens those of this machine; extensions and the network stay closed.
    """
    allowed = ["set allowed_directories = ['/']"] if files else []
    return [
        "set autoinstall_known_extensions = false",
        "set autoload_known_extensions = false",
        f"set allowed_configs = [{', '.join(map(text, _FREE))}]",
        *allowed,
        *CLOSE,
    ]


@contextmanager
def editing(path: Path, lance: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A catalog file of one's own to change, in one transaction; then views and macros are made anew.

    The versions of the Lance tables that it names are pinned, for the views to scan.
    """
    con = _memory({"python_enable_replacements": False})
    try:
        with _reaching_out(path):
            con.execute(f"attach {text(path)} as kvstore")
            con.execute("use kvstore")
            for statement in close_statements():
                con.execute(statement)
            con.execute("begin")
            yield con
            con.execute("commit")
            try:
                _define(con, lance)
            except (duckdb.CatalogException, duckdb.BinderException) as error:
                told = f"the catalog has something else in place of a view: {reason(error)}"
                raise StoreError(told) from error
            con.execute("checkpoint kvstore")
    finally:
        con.close()  # on an error without a checkpoint: the file is then thrown away


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of `sql/schema.sql` that are not there yet, with their comments."""
    con.execute((recipes.SHIPPED / "sql" / "schema.sql").read_text(encoding="utf-8"))


def upgrade(con: duckdb.DuckDBPyConnection, formats: Sequence[int]) -> None:
    """Bring a catalog to the last of `formats`, one after another, by `sql/upgrades/<format>.sql`."""
    for number in formats:
        con.execute((recipes.SHIPPED / "sql" / "upgrades" / f"{number}.sql").read_text(encoding="utf-8"))
        con.execute("update store set version = $version", {"version": number})
        # DuckDB alters no table that the same transaction has filled; the copy is private until it is whole.
        con.execute("commit")
        con.execute("begin")
    create_tables(con)


def _define(con: duckdb.DuckDBPyConnection, lance: Path) -> None:
    """Make the views over all runs' Lance tables, then the macros, which read the views."""
    columns = {name: kind for table in TABLES.values() for name, kind in table.items()}
    nothing = ", ".join(f"null::{kind} as {name}" for name, kind in columns.items())
    con.execute(f"create temp macro {_SCAN}(path) as table select {nothing} where false")
    made: list[Path] = []
    held = _all_held(con, lambda run, kind, version: pins.pin(lance, run, kind, version, made))
    pins.sync(made)
    con.execute("begin")  # DuckDB writes to one database in a transaction, so the stand-in comes before it
    for table in TABLES:
        con.execute(_view(table, [one for one in held if one.kind == table]))
    con.execute(_paths(held))
    for name in ("views.sql", "macros.sql", "intervals.sql", "hits.sql", "figures.sql", "answers.sql"):
        con.execute((recipes.SHIPPED / "sql" / name).read_text(encoding="utf-8"))
    con.execute("commit")


class _Held(NamedTuple):
    """One of a run's Lance tables: the sites that the run stores, and what to open below their folder."""

    run_id: str
    kind: str
    sites: Sequence[str]
    path: str


def _all_held(con: duckdb.DuckDBPyConnection, path: Callable[[str, str, int], str]) -> list[_Held]:
    """Every table that the catalog names; `path` gives what to open by run, kind and version."""
    runs: list[tuple[str, list[str], dict[str, int]]] = con.execute(
        "select run_id, sites, versions from run order by run_id"
    ).fetchall()
    return [
        _Held(run, kind, sites, path(run, kind, version))
        for run, sites, versions in runs
        for kind, version in versions.items()
    ]


def _paths(held: Sequence[_Held]) -> str:
    """The macro that knows what to open of a run: `run_vectors` reads one table by it."""
    names = ", ".join(text(f"{one.run_id}.{one.kind}") for one in held)
    paths = ", ".join(text(one.path) for one in held)
    known = f"map([{names}]::varchar[], [{paths}]::varchar[])"
    return (
        "create or replace macro lance_path(run, kind) as getvariable('kvstore_lance') || '/' || "
        f"coalesce({known}[run || '.' || kind], run || '.' || kind || '.lance')"
    )


def _view(table: str, runs: Sequence[_Held], without: Sequence[str] | None = None) -> str:
    """The view's definition: a branch a run, its name a constant that a filter prunes.

    Given runs that it is `without`, be they none, it is a temporary view, with an empty branch for each.
    """
    branches = [_branch(table, run) for run in runs]
    branches += [left_out.branch(run, TABLES[table]) for run in without or ()]
    if not branches:
        columns = ", ".join(f"null::{kind} as {name}" for name, kind in TABLES[table].items())
        branches = [f"select null::varchar as run_id, {columns} where false"]
    kind = "view" if without is None else "temp view"
    return f"create or replace {kind} {table} as\n" + "\nunion all\n".join(branches)


def _branch(table: str, run: _Held) -> str:
    columns = [
        f"null::{kind} as {name}"
        if name in _SITE_OF and _SITE_OF[name] not in run.sites
        else f"{name}::{kind} as {name}"
        if kind == "float[]"
        else name
        for name, kind in TABLES[table].items()
    ]
    path = f"getvariable('kvstore_lance') || {text(f'/{run.path}')}"
    return f"select {text(run.run_id)} as run_id, {', '.join(columns)} from {_SCAN}({path})"
