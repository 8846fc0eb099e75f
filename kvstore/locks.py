"""Locks between processes, and who holds them."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kvstore.errors import StoreBusyError


@contextmanager
def hold(path: Path, what: str, wait: float = 0) -> Iterator[None]:
    """Hold the lock file `path`, waiting at most `wait` seconds; the system frees it when the process dies.

    `StoreBusyError` says who holds `what`: process, host and since when, from the note beside the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lock of a child that was forked while we held it must not be ours; and another thread must wait too.
    lock = FileLock(path, timeout=wait, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreBusyError(f"{what} is held by {_holder(path)}; wait for it, or end it") from None
    try:
        _note(path).write_text(json.dumps(_self()), encoding="utf-8")
        yield
    finally:
        _note(path).unlink(missing_ok=True)
        lock.release()


def _note(lock: Path) -> Path:
    return lock.with_suffix(".json")


def _self() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
    }


def _holder(lock: Path) -> str:
    try:
        note = json.loads(_note(lock).read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']} since {note['since']} ({note['command']})"
    except (OSError, ValueError, KeyError):  # the holder is between taking the lock and writing its note
        return "another process"
