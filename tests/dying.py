"""A process of `kvstore check` that dies as Lance does over a broken file, for tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from kvstore import check

AT = "patch_kv_complete"
_work = check._work


def work(pipe: Connection, catalog: Path, lance: Path, files: Mapping[str, Path]) -> None:
    """All checks before `AT` are made; it aborts."""
    before = {name: path for name, path in files.items() if name < AT} if AT in files else files
    _work(pipe, catalog, lance, before)
    if AT in files:
        os.abort()
