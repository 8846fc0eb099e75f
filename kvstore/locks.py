"""Locks between processes, who holds them, and who is next.

They are those of the system (flock): it frees a lock when its process dies, however that happens. They work
between processes and threads of one machine; network file systems (NFS) are not provided for.

Who waits stands in a queue, a folder beside the lock: each has a ticket there, a file named by the time at
which it came, which it holds as a lock. The first in the queue takes the lock when it is free; a ticket that
nobody holds is a dead process's, and goes. One whose process is stopped (Ctrl-Z) is passed by after a while.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kvstore import interrupts
from kvstore.errors import StoreBusyError, StoreError

#: Seconds for which one and the same holder is waited for; and after a signal has asked this process to end.
PATIENCE, HURRY = 60.0, 3.0
#: Seconds between two looks of the first in the queue; the n-th takes n times as long, to a limit.
POLL, SELDOM = 0.02, 0.2
#: Seconds without a change of the lock after which the second in the queue no longer waits for the first; the
#: third waits twice as long.
STILL = 5.0

_count = itertools.count()


@contextmanager
def hold(path: Path, what: str, patience: float = 0) -> Iterator[None]:
    """Hold the lock file `path`; with `patience`, wait in its queue as long as its holders come and go.

    Raises `StoreBusyError`, which names the holder of `what`, when the lock is held (without patience), or
    has been held by one and the same holder for `patience` seconds; `StoreError` where a link lies in a
    lock's place, by which a file of somebody else's would be written or removed, or a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check(path)
    lock = _lock(path)
    try:
        if patience:
            _wait(lock, path, what, patience)
        elif not _take(lock, path):
            raise _busy(path, what)
        yield
    finally:
        if lock.is_locked:
            with interrupts.shielded():
                _note(path).unlink(missing_ok=True)
                lock.release()


def _check(path: Path) -> None:
    queue = path.with_suffix(".queue")
    for place in (path.parent, queue, path, _note(path)):
        if place.is_symlink() or (place.is_dir() and place not in (path.parent, queue)):
            kind = "link" if place.is_symlink() else "folder"
            raise StoreError(f"{place} is a {kind}, where a lock belongs; remove it, or put it elsewhere")


def _lock(path: Path) -> FileLock:
    # A lock of a child that was forked while we held it must not be ours; and another thread must wait too.
    return FileLock(path, timeout=0, thread_local=False)


def _take(lock: FileLock, path: Path) -> bool:
    """Take the lock if it is free, and leave a note beside it."""
    with interrupts.shielded():
        try:
            lock.acquire()
        except Timeout:
            return False
        note = _note(path)
        note.unlink(missing_ok=True)
        with note.open("x", encoding="utf-8") as file:  # new, so no link that came meanwhile
            json.dump(_self(), file)
        return True


def _wait(lock: FileLock, path: Path, what: str, patience: float) -> None:
    """Take the lock when it is our turn."""
    holder, ending = Unchanged(), Unchanged()
    with _ticket(path.with_suffix(".queue")) as ticket:
        while True:
            before = _before(ticket)
            same = holder.seconds(_read(path))
            if same >= before * STILL and _take(lock, path):
                return
            hurry = ending.seconds(interrupts.received()) > HURRY and interrupts.received() is not None
            if same > patience or hurry:
                raise _busy(path, what)
            time.sleep(min(POLL * (1 + before), SELDOM))


class Unchanged:
    """For how many seconds a value has been what it is."""

    def __init__(self) -> None:
        self.value: Any = None
        self.since = time.monotonic()

    def seconds(self, value: Any) -> float:
        """Seconds since `value` was first met without another in between."""
        now = time.monotonic()
        if value != self.value:
            self.value, self.since = value, now
        return now - self.since


# --------------------------------------------------------------------------------------- the queue


@contextmanager
def _ticket(queue: Path) -> Iterator[Path]:
    """A place at the queue's end. The clock is one for all processes of a machine, and runs on."""
    queue.mkdir(exist_ok=True)
    path = queue / f"{time.monotonic_ns():020d}.{os.getpid()}.{next(_count)}"
    lock = _lock(path)
    try:
        with interrupts.shielded():
            lock.acquire(timeout=-1, poll_interval=POLL)  # one who looks whether we live holds it a moment
        yield path
    finally:
        with interrupts.shielded():
            path.unlink(missing_ok=True)
            lock.release()


def _before(ticket: Path) -> int:
    """How many stand before us, once the dead right before us are gone."""
    tickets = sorted(path.name for path in ticket.parent.iterdir())
    while before := [name for name in tickets if name < ticket.name]:
        if not _remove_dead(ticket.with_name(before[-1])):
            break
        tickets = before[:-1]
    return len(before)


def _remove_dead(ticket: Path) -> bool:
    """Remove a ticket that nobody holds; False where somebody does."""
    lock = _lock(ticket)
    with interrupts.shielded():
        try:
            lock.acquire()
        except Timeout:
            return False
        ticket.unlink(missing_ok=True)
        lock.release()
    return True


# --------------------------------------------------------------------------------------- who holds it


def _busy(path: Path, what: str) -> StoreBusyError:
    return StoreBusyError(f"{what} is held by {_holder(path)}; wait for it, or end it")


def _note(lock: Path) -> Path:
    return lock.with_suffix(".json")


def _self() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
    }


def _read(lock: Path) -> str | None:
    try:
        return _note(lock).read_text(encoding="utf-8")
    except OSError:  # nobody holds it, or the holder has not written its note yet
        return None


def _holder(lock: Path) -> str:
    try:
        note = json.loads(_read(lock) or "")
        return f"process {note['pid']} on {note['host']} since {note['since']} ({note['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
