"""Work by a process of its own: what broken files do to Lance and DuckDB, an abort too, ends that one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from kvstore.errors import StoreError


class EndedError(Exception):
    """A process ended before its work did; the message says how: ``by SIGABRT``, ``with exit code 1``."""


def messages(work: Callable[..., Iterable[Any]], *args: Any) -> Iterator[Any]:
    """What ``work(*args)`` gives in another process, as it comes; none of it is None.

    `work` is found by its name there. A `StoreError` that it raises is raised here, `EndedError` when the
    process ends before `work` does. A process that is not waited for to its end is ended.
    """
    context = multiprocessing.get_context("spawn")  # Lance has threads, which a fork would lose
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, work, args), daemon=True)
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
    try:
        for message in work(*args):
            pipe.send(message)
        pipe.send(None)
    except StoreError as error:
        pipe.send(_Raised(type(error), str(error)))


class _Raised(NamedTuple):
    """A `StoreError` of the other process."""

    kind: type[StoreError]
    told: str
