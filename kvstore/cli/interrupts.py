"""Ctrl-C in a command that only reads."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process by the signal itself, as `cat` does; a shell sees exit code 130.

    DuckDB hears Python's own handler only between batches, which may be minutes; and nothing is to be
    cleaned up, since the command only reads.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
