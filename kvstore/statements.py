"""Which statements SQL on a store may have: those that read it, and with files allowed, exports out of it.

A closed connection (`kvstore.warehouse`) and the kernel (`kvstore.confined`) hold these promises; here they
are told before anything runs, and here is all that holds where the kernel does not confine: nothing of Lance
that attaches or changes tables is run by its name.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb

from kvstore.errors import UsageError
from kvstore.outside import local_path, told

#: Types of statements that open, write or run something else than the store. (`drop`, `insert`, ... are not
#: among them: the catalog is attached read-only, and what SQL makes in memory is its own.)
_REFUSED = {
    "ATTACH": "attach",
    "CALL": "call",
    "COPY_DATABASE": "copy from database",
    "EXPORT": "export",
    "EXTENSION": "a statement of the lance extension",
    "LOAD": "install and load",
    "UPDATE_EXTENSIONS": "update extensions",
}
#: Functions of the `lance` extension for its own use; they change tables, or open them anywhere.
_OF_LANCE = re.compile(r"__lance_\w+", re.IGNORECASE)
_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_LEXEME = re.compile(r"""\w*'(?:[^']|'')*'|"(?:[^"]|"")*"|\$\w*\$.*|\w+|.""", re.DOTALL)


@dataclass(frozen=True)
class Export:
    """A ``copy ... to 'file'``: its SQL before and after the file's name, and the file."""

    before: str
    after: str
    target: Path

    def sql(self, folder: Path) -> str:
        """The statement that writes the file of that name into `folder`."""
        quoted = str(folder / self.target.name).replace("'", "''")
        return f"{self.before}'{quoted}'{self.after}"


def parsed(text: str) -> list[duckdb.Statement]:
    """The statements of an SQL text; none for one that does not parse (running it says why)."""
    try:
        # Parsing alone may open files: `import database` is the statements that its files hold.
        with duckdb.connect(":memory:", config={"enable_external_access": False}) as con:
            return con.extract_statements(text)
    except duckdb.Error:
        return []


def vetted(con: duckdb.DuckDBPyConnection, text: str, *, files: bool = False) -> list[duckdb.Statement]:
    """The statements of an SQL text; `UsageError` for one that does something else than to read the store.

    files    let a statement be ``copy ... to 'file'``, see `exports`
    """
    statements = con.extract_statements(text)
    if not statements:
        raise UsageError("the SQL holds no statement")
    for statement in statements:
        _vet(statement, files)
    return statements


def _vet(statement: duckdb.Statement, files: bool) -> None:
    kind = _kind(statement)
    words = [word.lower() for _, word in _tokens(statement.query)]
    of_lance = next(filter(_OF_LANCE.search, words), None)
    what = _REFUSED.get(kind) or (of_lance and f"{of_lance} of the lance extension")
    if what:
        raise UsageError(f"SQL reads its store and nothing else: {what} is refused")
    # EXPLAIN ANALYZE and EXECUTE run what they are given.
    if "copy" in words and not (kind == "COPY" and files and words.count("copy") == 1):
        hint = "" if files else "; --format csv or arrow prints rows, --allow-files lets copy write files"
        raise UsageError(f"SQL reads its store and nothing else: copy is refused{hint}")


def exports(text: str, store: Path) -> list[Export]:
    """What ``copy ... to`` statements would write, in order; `UsageError` for files of the store."""
    found = [one for one in map(export, parsed(text)) if one is not None]
    for one in found:
        _outside(one.target, store)
    return found


def export(statement: duckdb.Statement) -> Export | None:
    """What a statement exports; None for one that is no ``copy ... to``."""
    if _kind(statement) != "COPY":
        return None
    sql, depth = statement.query, 0
    tokens = _tokens(sql)
    for (_, word), (at, file) in pairwise(tokens):
        depth += (word == "(") - (word == ")")
        if depth == 0 and word.lower() == "to":
            name = _QUOTED.fullmatch(file)
            if name is None:
                raise UsageError(f"copy ... to {file}: give the file's name in single quotes")
            return Export(sql[:at], sql[at + len(file) :], local_path(name[1].replace("''", "'")))
    return None


def _outside(target: Path, store: Path) -> None:
    """`UsageError` for a file in a store, whatever leads there: `..`, links, another name of it."""
    with told(f"{target} cannot be written", "", UsageError):
        real, home = target.resolve(), store.resolve()
        inside = any(_same(folder, home) for folder in (real, *real.parents))
        # A hard link is the store's file by another name: it would be replaced, which nobody means.
        linked = real.is_file() and real.stat().st_nlink > 1
        if inside or (linked and any(_same(real, file) for file in home.rglob("*"))):
            raise UsageError(f"{target} is in the store, which SQL only reads; name a file outside")
        if real.is_dir():
            raise UsageError(f"{target} is a folder; name a file")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def written(found: Iterable[Export]) -> Iterator[dict[Path, Path]]:
    """A new folder for each target to be written in, beside it; on success what is there takes its place."""
    folders: dict[Path, Path] = {}
    try:
        for one in found:
            if one.target in folders:
                continue
            with told(f"{one.target} cannot be written", "", UsageError):
                folders[one.target] = Path(
                    tempfile.mkdtemp(prefix=".kvstore-", dir=one.target.resolve().parent)
                )
        yield folders
        for target, folder in folders.items():
            (folder / target.name).replace(target)
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _kind(statement: duckdb.Statement) -> str:
    # The binding has no names for some newer types.
    return str(getattr(statement.type, "name", statement.type))


def _tokens(sql: str) -> list[tuple[int, str]]:
    """Place and text of each token; comments are none."""
    said = sql.encode()  # DuckDB's places are of bytes
    places = [at for at, _ in duckdb.tokenize(sql)]
    slices = [said[at:end].decode() for at, end in pairwise([*places, len(said)])]
    found = zip(places, slices, strict=True)
    return [(len(said[:at].decode()), met[0]) for at, text in found if (met := _LEXEME.match(text))]
