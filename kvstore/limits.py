"""Work within limits of time and memory: by a fork of this process, which is ended when it takes more.

For what a library does with text of a model's folder, and cannot be stopped in: a chat template may loop or
multiply text, a tokenizer may replace each letter by two, forty times. A fork has at hand what this process
has loaded, and takes some milliseconds. It must touch no device and no file of the store.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import select
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kvstore import errors
from kvstore.errors import KvstoreError, ModelError

#: Most seconds of the processor's time, bytes beyond what the process has, and seconds by the clock.
SECONDS, BYTES, PATIENCE = 10, 2**29, 120

T = TypeVar("T")


def within_limits(what: str, remedy: str, work: Callable[[], T]) -> T:
    """What `work()` gives, which JSON has to hold; what it raises of kvstore's is raised here, too.

    Raises `ModelError` where it takes more than the limits: ``what`` did, and the remedy. The limit of memory
    is one where there is ``/proc``.
    """
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lance warns of any fork; none of its threads is needed here
        child = os.fork()
    if child == 0:
        _work(send, work)
    os.close(send)
    try:
        answer = _read(receive)
    finally:
        os.close(receive)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not answer:
        taken = f"{BYTES >> 20} MiB of memory" if _of_memory(status) else f"{SECONDS} s"
        raise ModelError(f"{what} takes more than {taken}; {remedy}")
    made, fault = json.loads(answer)
    if fault:
        kind, message, details = fault
        if not hasattr(errors, kind):
            raise RuntimeError(details)
        known: type[KvstoreError] = getattr(errors, kind)
        error = known.__new__(known, message)
        error.details = details
        raise error
    return made  # type: ignore[no-any-return]


def _read(receive: int) -> bytes:
    """All that the fork sends until it ends; nothing where it is not done in time."""
    found = b""
    while select.select([receive], [], [], PATIENCE)[0]:
        if not (piece := os.read(receive, 2**20)):
            return found
        found += piece
    return b""


def _of_memory(status: int) -> bool:
    """Whether a process ended for want of memory: Rust aborts, and Python says so below."""
    return os.waitstatus_to_exitcode(status) in (-signal.SIGABRT, _WANT)


_WANT = 9


def _work(send: int, work: Callable[[], Any]) -> None:
    """The fork's life: it never returns."""
    code = 1
    try:
        gc.disable()  # or objects of other threads might be ended here
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where Rust writes what it dies of
        _set_limits()
        answer = json.dumps(_outcome(work)).encode()
        while answer:
            answer = answer[os.write(send, answer) :]
        code = 0
    except MemoryError:
        code = _WANT
    finally:
        os._exit(code)


def _outcome(work: Callable[[], Any]) -> tuple[Any, Any]:
    try:
        return work(), None
    except Exception as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        return None, (type(error).__name__, str(error), traceback.format_exc())


def _set_limits() -> None:
    statm = Path("/proc/self/statm")
    if statm.is_file():
        size = int(statm.read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, size + BYTES)
    _lower(resource.RLIMIT_CPU, SECONDS)


def _lower(limit: int, most: int) -> None:
    """Set a limit, unless a lower one is set."""
    soft, hard = resource.getrlimit(limit)
    known = [value for value in (soft, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(limit, (min([most, *known]), hard))
