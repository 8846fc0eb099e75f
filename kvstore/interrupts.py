"""Signals that end a command: Ctrl-C (SIGINT), `kill` (SIGTERM), a terminal that closes (SIGHUP).

The first one raises `Interrupted` in the main thread, but not within `shielded`, whose work is short and not
to be left half done: there it is raised at the end. Exceptions of signals get lost, in callbacks of libraries
and while objects are torn down; so it is raised again until the command ends. The second signal ends the
process at once, whatever it does. A signal that was ignored from the start, as `nohup` has it, stays ignored.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

#: Signals that end a command; Windows has no SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Seconds between the exceptions of one signal.
AGAIN = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class _State:
    """The signal that came, and how many `shielded` the main thread is in."""

    received: int | None = None
    shields = 0


def received() -> int | None:
    """The signal that asked this process to end, if one did: whatever fails since then fails for it."""
    return _State.received


class shielded:  # noqa: N801, used as a function
    """Within, no signal raises in the main thread; one that came is raised at the end.

    For what is short and must be whole: replacing files, cleaning up.
    """

    def __enter__(self) -> None:
        self.counts = threading.current_thread() is threading.main_thread()
        _State.shields += self.counts

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        _State.shields -= self.counts
        if self.counts and (kind is None or not issubclass(kind, Interrupted)):
            _raise()


def _raise() -> None:
    if _State.received is not None and not _State.shields:
        raise Interrupted(_State.received)


def run(command: Callable[[], int], *, ends: bool) -> int:
    """Run a command in the main thread; its exit code, or 128 + the signal that ended it, as a shell says it.

    What the command raises passes, unless a signal came: libraries turn its exception into others. With
    `ends` the process ends with the command: after a signal at once, no thread is waited for.
    """
    with _heard(ends):
        try:
            _State.shields = 0
            code = command()
        except BaseException:
            _State.shields = 1
            if _State.received is None:
                raise
            code = 0
        finally:
            _State.shields = 1
        if _State.received is not None:
            code = 128 + _State.received
            if ends:
                _leave(code)
        return code


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let the signals end the process by themselves, as they do with `cat`, in a command that only reads.

    DuckDB and Lance hear Python's own handlers only between batches, which may be minutes; and nothing is to
    be cleaned up.
    """
    with _handlers(dict.fromkeys(ENDING, signal.SIG_DFL)):
        yield


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


# ------------------------------------------------------------------------------------------ handlers


@contextmanager
def _heard(ends: bool) -> Iterator[None]:
    """Signals are heard within: by a handler, and by a thread for the case that Python never gets to it."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's affair
        yield
        return
    _State.received, _State.shields = None, 1
    handlers: dict[int, Any] = dict.fromkeys(ENDING, _on_signal)
    if hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = lambda number, frame: _raise()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs, _handlers(handlers, signal.SIG_DFL if ends else None):
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(ours,), name="signals", daemon=True).start()
        try:
            yield
        finally:
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)
            signal.set_wakeup_fd(before)
            _State.shields = 0


def _on_signal(number: int, frame: FrameType | None) -> None:
    _State.received = _State.received or number
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
    _raise()


def _watch(numbers: socket.socket) -> None:
    """Read the signals' numbers as they come; the second that is to end the process ends it."""
    came = 0
    with numbers:
        while number := numbers.recv(1):
            came += number[0] in ENDING
            if came > 1:
                os._exit(128 + number[0])


@contextmanager
def _handlers(wanted: dict[int, Any], after: Any = None) -> Iterator[None]:
    """Handle signals so, and afterwards as before or as `after`; those that are ignored stay ignored."""
    before = {number: signal.getsignal(number) for number in wanted}
    changed = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    try:
        for number in changed:
            signal.signal(number, wanted[number])
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler if after is None else after)
