"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A path beside `folder` to write to; it takes the folder's place when the block ends without error."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    yield aside
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
