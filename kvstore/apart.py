"""Work by a process of its own: what broken files do to Lance and DuckDB, an abort too, ends that one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from kvstore import interrupts
from kvstore.errors import StoreError


class EndedError(Exception):
    """A process ended before its work did; the message says how: ``by SIGABRT``, ``with exit code 1``."""


def messages(work: Callable[..., Iterable[Any]], *args: Any) -> Iterator[Any]:
    """What ``work(*args)`` gives in another process, as it comes; none of it is None.

    `work` is found by its name there. A `StoreError` that it raises is raised here, `EndedError` when the
    process ends before `work` does. A process that is not waited for to its end is ended, and so is one whose
    parent ends. Ctrl-C and a terminal that closes are heard by the parent alone.
    """
    context = multiprocessing.get_context("spawn")  # Lance has threads, which a fork would lose
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, work, args), daemon=True)
    with interrupts.shielded(), _unheard():  # what is started by half says so on stderr
        process.start()
    there.close()
    try:
        while (message := here.recv()) is not None:
            if isinstance(message, _Raised):
                raise message.kind(message.told)
            yield message
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise EndedError(how) from None
    except BaseException:
        process.terminate()
        raise
    finally:
        here.close()
        process.join()


def _send(pipe: Connection, work: Callable[..., Iterable[Any]], args: tuple[Any, ...]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where Rust and C++ write what they die of
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for message in work(*args):
            pipe.send(message)
        pipe.send(None)
    except StoreError as error:
        pipe.send(_Raised(type(error), str(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _unheard() -> Iterator[None]:
    """What is started within does not hear the signals that a terminal sends to all of its processes."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Raised(NamedTuple):
    """A `StoreError` of the other process."""

    kind: type[StoreError]
    told: str
