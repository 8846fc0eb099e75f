"""What a store must be before it is used, whoever made it: its files in its folder, its tables tables.

A store that somebody sent may have links out of it, by which a drop or an ingest would change other files,
and views where its tables should be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import recipes
from kvstore.errors import StoreError

if TYPE_CHECKING:
    import duckdb

_VIEWS = "select view_name from duckdb_views() where database_name = 'kvstore'"
_TABLE = re.compile(r"^create table if not exists (\w+)", re.MULTILINE)
#: Folders below a store in which everything has its name from kvstore.
_FOLDERS = ("", "lance", "lance/at", "locks", "reports")


def refuse_links(root: Path) -> None:
    """`StoreError` for a link that leads out of the store, among its files and the folders of its tables."""
    for name in _FOLDERS:
        _refuse(root, root / name)


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


def refuse_views(con: duckdb.DuckDBPyConnection) -> None:
    """`StoreError` for a catalog with a view where a table of `sql/schema.sql` should be."""
    views = {name for (name,) in con.execute(_VIEWS).fetchall()}
    schema = (recipes.SHIPPED / "sql" / "schema.sql").read_text(encoding="utf-8")
    wrong = sorted(views.intersection(_TABLE.findall(schema)))
    if wrong:
        raise StoreError(f"{wrong[0]} is a view in the catalog, and not the table of a store: do not use it")
