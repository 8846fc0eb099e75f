"""A full disk, and a folder that cannot be written, in a user's words."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.errors import NoSpaceError, StoreError

_FULL = re.compile(r"no space left|disk quota|could not write all bytes", re.IGNORECASE)


@contextmanager
def errors(root: Path, remedy: str = "choose another --store") -> Iterator[None]:
    """Raise `NoSpaceError` for a full disk, `StoreError` for a store at `root` that cannot be written."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if _is_full(error):
            raise _no_space(root) from error
        if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            why = getattr(error, "strerror", None)
            raise StoreError(f"{root} cannot be written ({why}); {remedy}") from error
        raise


def require(root: Path, size: int) -> None:
    """Raise `NoSpaceError` unless `size` bytes are free: DuckDB does not bear a full disk everywhere."""
    if shutil.disk_usage(root).free < size:
        raise _no_space(root)


def _is_full(error: Exception) -> bool:
    """DuckDB and Lance have no errno, only the system's words; others may say them and mean a file's text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    library = type(error).__module__.partition(".")[0].lstrip("_")
    return (isinstance(error, OSError) or library in ("duckdb", "polars")) and bool(_FULL.search(str(error)))


def _no_space(root: Path) -> NoSpaceError:
    return NoSpaceError(
        f"no space left on the disk of {root}; the store is unharmed: free some and try again"
    )
