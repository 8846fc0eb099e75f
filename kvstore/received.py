"""What a store must be before it is used, whoever made it: its files in its folder, its tables tables.

A store that somebody sent may have links out of it, by which a drop or an ingest would change other files,
and views where its tables should be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import recipes
from kvstore.errors import StoreError
from kvstore.lines import shortened

if TYPE_CHECKING:
    import duckdb

#: Named in full: a catalog's own macro would stand in front of the system's.
_VIEWS = "select view_name from system.main.duckdb_views() where database_name = 'kvstore'"
_FUNCTIONS = "select distinct function_name from system.main.duckdb_functions() where database_name = $of"
#: Functions that are there once the extension is loaded, and those that tell what a catalog has. `lance_path`
#: is kvstore's own.
_TAKEN = re.compile(r"(?!lance_path$)_*(lance|duckdb|pragma)_\w+", re.IGNORECASE)
_TABLE = re.compile(r"^create table if not exists (\w+)", re.MULTILINE)
#: Folders below a store in which everything has its name from kvstore.
_FOLDERS = ("", "lance", "lance/at", "locks", "reports")


def refuse_links(root: Path) -> None:
    """`StoreError` for a link that leads out of the store, among its files and the folders of its tables."""
    for folder in (*(root / name for name in _FOLDERS), *root.glob("locks/*.queue")):
        _refuse(root, folder)


def refuse_links_in(root: Path, table: Path) -> None:
    """The same for all that is in the folder of one Lance table."""
    for folder, _, _ in os.walk(table):
        _refuse(root, Path(folder))


def _refuse(root: Path, folder: Path) -> None:
    for link in _links(folder):
        leads = link.resolve()
        if not leads.is_relative_to(root.resolve()):
            raise StoreError(
                f"{link} is a link out of the store, to {leads}: remove it, or move the whole store there"
            )


def _links(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return


def refuse_other_bases(name: str, dataset: Any) -> None:
    """`StoreError` for a Lance table that has data files anywhere but in its own folder."""
    for fragment in dataset.get_fragments():
        for file in fragment.metadata.files:
            if "/" in file.path or "\\" in file.path or getattr(file, "base_id", None) is not None:
                raise StoreError(f"{name} names data out of its folder, which is not read: {file.path}")


def refuse_strangers(con: duckdb.DuckDBPyConnection) -> None:
    """`StoreError` for a catalog with a view in place of a table, or a macro in place of a builtin function.

    kvstore's own SQL would call them. The connection is closed to other files by its settings.
    """
    views = {name for (name,) in con.execute(_VIEWS).fetchall()}
    schema = (recipes.SHIPPED / "sql" / "schema.sql").read_text(encoding="utf-8")
    if wrong := sorted(views.intersection(_TABLE.findall(schema))):
        raise StoreError(f"{wrong[0]} is a view in the catalog, and not the table of a store: do not use it")
    own = [name for (name,) in con.execute(_FUNCTIONS, {"of": "kvstore"}).fetchall()]
    wrong = sorted(name for name in own if name.lower() in _builtin() or _TAKEN.fullmatch(name))
    if wrong:
        name = shortened(wrong[0], 60)
        raise StoreError(f"the catalog has a macro with a builtin function's name ({name}): do not use it")


@cache
def _builtin() -> frozenset[str]:
    """The names of DuckDB's own functions; to list them takes 20 ms."""
    import duckdb

    with duckdb.connect(":memory:") as con:
        return frozenset(name.lower() for (name,) in con.execute(_FUNCTIONS, {"of": "system"}).fetchall())
