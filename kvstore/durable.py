"""What a power cut must not take: a file is on disk before another names it.

The system keeps what is written in memory for some time, names in folders too. Before the catalog names a
version of a table, or a page its charts, the files and the folders that hold their names are synced.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

#: Syncs at once: a disk does many in the time of one (36 files: 77 ms one by one, 15 ms so).
_AT_ONCE = 12


def sync(paths: Iterable[Path]) -> None:
    """Wait until these files and folders are on disk; of a folder that is the names in it."""
    wanted = list(dict.fromkeys(paths))
    if len(wanted) < 2:
        for path in wanted:
            _sync(path)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted)), "sync") as pool:
        list(pool.map(_sync, wanted))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, on disk each."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    sync(path.parent for path in missing)


def replace(aside: Path, path: Path) -> None:
    """Put a file, or a folder whose files are on disk, in the place of another: whole, or not at all.

    A file takes over who may read and write the one that it replaces.
    """
    if aside.is_file():
        if path.is_file():
            _give(aside, path)
        _sync(aside)
    aside.replace(path)
    _sync(path.parent)


def _give(aside: Path, path: Path) -> None:
    """Give a file the mode of another, and its owner and group where that is allowed."""
    about = path.stat()
    for owner in (about.st_uid, -1):  # a user may give a file to a group of theirs, root to anybody
        with suppress(OSError):
            os.chown(aside, owner, about.st_gid)
            break
    aside.chmod(stat.S_IMODE(about.st_mode))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no folders
            raise
    finally:
        os.close(descriptor)
