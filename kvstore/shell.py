"""The real DuckDB command line, opened on a store.

It opens in memory, since ``-readonly`` wants a file, and attaches the catalog read-only. What it may do with
files is said before the user's first word (`_beginning`), and held by the kernel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore import confined, warehouse
from kvstore.errors import StoreError

if TYPE_CHECKING:
    from kvstore.store import Store


def init_sql(store: Store) -> str:
    """The SQL that opens the store in a bare ``duckdb`` of the same version, by absolute paths."""
    statements = warehouse.opening_statements(store.catalog.resolve(), store.lance.resolve())
    return "\n".join(
        ["-- Opens a store of kvstore, read-only: duckdb -init THIS_FILE", *map("{};".format, statements)]
    )


def run(store: Store, arguments: Sequence[str], *, files: bool = False) -> int:
    """Run the shell until it ends; its exit code. Standard input may be a pipe.

    It reads the store and the user's own settings of DuckDB, writes only its history, and runs no program.
    With `files` it reads any file. Where the kernel does not confine, that holds for DuckDB and not for the
    functions of Lance, see `kvstore.confined`.
    """
    program, spill, history = binary(), confined.spill(), _history()
    read = [Path("/")] if files else [store.root, Path.home() / ".duckdbrc", history]
    # -cmd and not -init: -init would replace the user's own ~/.duckdbrc.
    begin = [word for command in _beginning(store, spill, files) for word in ("-cmd", command)]

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        confined.confine(read, [spill.parent, history], [program, *_loaders()])

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends a query in the shell, not the shell
    try:
        return subprocess.run([program, *begin, *arguments], check=False, preexec_fn=prepare).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def _beginning(store: Store, spill: Path, files: bool) -> list[str]:
    """What the shell does first: open the store, and close all else to SQL and to its own dot commands."""
    settings = [f"set temp_directory = {warehouse.text(spill)}", *warehouse.close_statements(files=files)]
    if not files:  # safe mode closes by itself, and complains where that is done
        settings = [setting for setting in settings if setting not in warehouse.CLOSE]
    opening = "\n".join([f"{warehouse.NO_SECRETS};", init_sql(store), *map("{};".format, settings)])
    return [opening, ".pager off", *([] if files else [".safe_mode"])]


def _history() -> Path:
    """The file in which the shell keeps what was typed; made where it is not there, for it may make none."""
    path = Path(os.environ.get("DUCKDB_HISTORY") or Path.home() / ".duckdb_history")
    if sys.stdin.isatty():
        with suppress(OSError):
            path.touch()
    return path


def _loaders() -> list[Path]:
    """What starts programs that have shared libraries."""
    return [path for folder in ("/lib", "/lib64") for path in Path(folder).glob("ld-*")]


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
