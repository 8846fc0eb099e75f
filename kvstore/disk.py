"""A full disk, a file that is too large, and a folder that cannot be written, in a user's words."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.errors import NoSpaceError, StoreError

_FULL = re.compile(r"no space left|disk quota|could not write all bytes", re.IGNORECASE)
_LARGE = re.compile(r"file too large", re.IGNORECASE)


@contextmanager
def errors(root: Path, remedy: str = "choose another --store") -> Iterator[None]:
    """Raise `NoSpaceError` for a full disk, `StoreError` for what else hinders writing a store at `root`."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if _is(error, _FULL, errno.ENOSPC, errno.EDQUOT):
            raise _no_space(root) from error
        if _is(error, _LARGE, errno.EFBIG):
            raise too_large(root) from error
        if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            why, path = getattr(error, "strerror", None), getattr(error, "filename", None) or root
            raise StoreError(f"{path} cannot be written ({why}); {remedy}") from error
        raise


def require(root: Path, size: int) -> None:
    """Raise `NoSpaceError` unless `size` bytes are free: DuckDB does not bear a full disk everywhere."""
    if shutil.disk_usage(root).free < size:
        raise _no_space(root)


def _is(error: Exception, words: re.Pattern[str], *numbers: int) -> bool:
    """DuckDB and Lance have no errno, only the system's words; others may say them and mean a file's text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    library = type(error).__module__.partition(".")[0].lstrip("_")
    return (isinstance(error, OSError) or library in ("duckdb", "polars")) and bool(words.search(str(error)))


def _no_space(root: Path) -> NoSpaceError:
    return NoSpaceError(
        f"no space left on the disk of {root}; the store is unharmed: free some and try again"
    )


def too_large(root: Path) -> StoreError:
    """What is told where the system lets no file grow as large as one of the store must be."""
    return StoreError(
        f"a file of {root} would be larger than this process, or the disk, may make one; raise the limit"
        " (ulimit -f unlimited) and try again: the store is unharmed"
    )
