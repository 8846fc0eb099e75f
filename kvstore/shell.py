"""The real DuckDB command line, opened on a store.

It opens in memory, since ``-readonly`` wants a file, and attaches the catalog read-only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore import warehouse
from kvstore.errors import StoreError

if TYPE_CHECKING:
    from kvstore.store import Store


def init_sql(store: Store) -> str:
    """The SQL that opens the store in a bare ``duckdb`` of the same version, by absolute paths."""
    statements = warehouse.opening_statements(store.catalog.resolve(), store.lance.resolve())
    return "\n".join(
        ["-- Opens a store of kvstore, read-only: duckdb -init THIS_FILE", *map("{};".format, statements)]
    )


def run(store: Store, arguments: Sequence[str]) -> int:
    """Run the shell until it ends; its exit code. Standard input may be a pipe."""
    # -cmd and not -init: -init would replace the user's own ~/.duckdbrc.
    command = [str(binary()), "-cmd", init_sql(store), *arguments]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends a query in the shell, not the shell
    try:
        return subprocess.run(command, check=False, preexec_fn=_heed_interrupts).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def binary() -> Path:
    """The duckdb program: of the package duckdb-cli, beside this Python, or on the PATH."""
    package = importlib.util.find_spec("duckdb_cli")
    folders = [Path(f) for f in (package.submodule_search_locations or ())] if package else []
    for folder in (*folders, Path(sys.executable).parent):
        program = folder / ("duckdb.exe" if os.name == "nt" else "duckdb")
        if os.access(program, os.X_OK):
            return program
    found = shutil.which("duckdb")
    if found is None:
        raise StoreError("the DuckDB shell is not installed; pip install duckdb-cli")
    return Path(found)
