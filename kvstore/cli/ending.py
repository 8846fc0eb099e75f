"""How a command ends: an exit code, and for each exception one line on stderr.

``--debug``, or `KVSTORE_DEBUG` set to anything but 0, shows the traceback too, and what libraries say.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kvstore import terminal
from kvstore.errors import KvstoreError, LeftOutWarning
from kvstore.lines import one_line
from kvstore.outside import reason

#: Exit codes beside 0: a user's mistake, a fault of kvstore (EX_SOFTWARE), a reader of stdout that left.
MISTAKE, FAULT, READER_LEFT = 2, 70, 141


def debugging() -> bool:
    """Whether tracebacks and the words of libraries are wanted."""
    return os.environ.get("KVSTORE_DEBUG", "0") not in ("", "0")


def say(message: str) -> None:
    """A message on stderr, in one line."""
    with suppress(OSError, ValueError):  # nobody listens
        print(one_line(f"kvstore: {message}"), file=sys.stderr)


def tell(error: BaseException) -> int:
    """Say what ended a command, and return its exit code."""
    code, message = _verdict(error)
    if debugging():
        traceback.print_exception(error)
        details = getattr(error, "details", "")
        print(*([details] if details else []), message, sep="\n", file=sys.stderr)
    else:
        say(message)
    return code


def _verdict(error: BaseException) -> tuple[int, str]:
    recipe = _place(error, _users_recipes())
    if isinstance(error, KvstoreError):
        return MISTAKE, str(error)
    if recipe:
        return MISTAKE, f"the recipe {recipe}: {reason(error, 150)}; mend it (--debug shows the traceback)"
    if isinstance(error, MemoryError):
        return MISTAKE, f"{reason(error)}; take a smaller --batch, or fewer --workers"
    if isinstance(error, OSError) and error.strerror:
        return MISTAKE, f"the system refuses: {reason(error)}"
    place = _place(error, [Path(__file__).parents[1]])
    where = f" ({place})" if place else ""
    told = f"{type(error).__name__}: {reason(error, 140)}"
    return FAULT, f"this is a fault of kvstore{where}: {told}; run it again with --debug for all of it"


def _users_recipes() -> list[Path]:
    from kvstore import recipes

    return [Path(folder) for folder in recipes.__path__ if Path(folder) != recipes.SHIPPED]


def _place(error: BaseException, folders: list[Path]) -> str:
    """``file, line N`` of the innermost code in one of the folders that raised; empty where none did."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    for name, line in reversed(frames):
        for folder in folders:
            if Path(name).is_relative_to(folder):
                return f"{name}, line {line}"
    return ""


@contextmanager
def quiet_libraries() -> Iterator[list[str]]:
    """Keep warnings and logs of libraries off stderr: a user can do nothing about them.

    What kvstore itself left out is said, each thing once, and is in the list that comes.
    """
    said: list[str] = []
    shown, disabled = warnings.showwarning, logging.root.manager.disable

    def show(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
        if issubclass(category, LeftOutWarning):
            if str(message) not in said:
                said.append(str(message))
                say(str(message))
        elif debugging():
            shown(message, category, *place, **named)

    if not debugging():
        os.environ.setdefault("LANCE_LOG", "error")
        logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftOutWarning)
        warnings.showwarning = show
        try:
            yield said
        finally:
            logging.disable(disabled)


# ------------------------------------------------------------------------------------------ streams


def open_streams() -> None:
    """Make all three streams usable, in UTF-8 whatever the locale says; what cannot be shown is escaped.

    One that the process was started without would be None to Python, and the first file that is opened
    would get its number, so that prints went into that file. Writing to a closed stdout is an error later.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)  # the lowest: number
            os.set_inheritable(null, True)
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115
    for stream, errors in (
        (sys.stdin, "strict"),
        *((s, "backslashreplace") for s in (sys.stdout, sys.stderr)),
    ):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors=errors)
    terminal.guard()


@contextmanager
def to_stdout() -> Iterator[None]:
    """Exit in silence when the reader of stdout (`| head`) left; any other refusal is a `KvstoreError`."""
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(READER_LEFT) from None
    except OSError as error:
        if error.filename is not None:
            raise
        raise KvstoreError(_unwritable(error)) from error


def _unwritable(error: OSError) -> str:
    return f"standard output cannot be written: {reason(error)}"


def flush(code: int) -> int:
    """Write out what stdout holds; `code`, or that of what goes wrong with it."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        failed = READER_LEFT
    except OSError as error:
        failed = MISTAKE
        if code == 0:  # else it is told already
            say(_unwritable(error))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest goes nowhere, at exit too
    return code or failed
