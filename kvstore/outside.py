"""The boundary to what comes from outside: a library's exception over a user's file becomes one line.

Transformers, tokenizers, jinja, torch, Pillow, DuckDB, Lance, pyarrow and json raise what they like over a
file that is not as they want it, with messages of many lines, escapes and paths of their own sources. A
caller knows which file or setting it handed to them, and what can be done:

    with told(f"{path} cannot be read", "download it again", ModelError):
        config = AutoConfig.from_pretrained(folder)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.errors import ImageError, KvstoreError, UsageError
from kvstore.lines import LINE, one_line, printable

#: Room for the program's name before a message.
_LENGTH = LINE - 10
#: Exceptions whose messages say little without their names.
_BARE = (TypeError, AttributeError, LookupError, AssertionError, ArithmeticError, RecursionError)
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_RUST = re.compile(r"[,;]?\s*(?:\bat )?(?<![\w./\\@+-])[\w./\\@+-]*\w\.rs:\d+(?::\d+)?")
_LIBRARY = re.compile(
    r"(?<![^\s'\"()<>])[^\s'\"()<>]*(?:site-packages|dist-packages|lib/python\d[\d.]*)/(?:[^\s'\"()<>/]+/)*"
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@contextmanager
def told(what: str, remedy: str = "", kind: type[KvstoreError] = KvstoreError) -> Iterator[None]:
    """Raise any exception within as `kind`, in one line of at most 290 characters; the cause is chained.

    what    what could not be done, the file or setting named: ``/m/config.json cannot be read``
    remedy  what the user can do about it: ``download it again``

    What kvstore itself raises passes: a `KvstoreError`, an `ImageError`.
    """
    try:
        yield
    except (KvstoreError, ImageError):
        raise
    except Exception as error:
        raise kind(sentence(what, error, remedy)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, by way of pyo3: no Exception to Python
            raise
        raise kind(sentence(what, error, remedy)) from error


def sentence(what: str, error: BaseException, remedy: str = "") -> str:
    """``what: reason; remedy``, the reason cut so that all is one line of at most 290 characters."""
    what, remedy = one_line(what, 180), one_line(f"; {remedy}", 160) if remedy else ""
    return f"{what}: {reason(error, max(40, _LENGTH - len(what) - len(remedy) - 2))}{remedy}"


def reason(error: BaseException, length: int = _LENGTH) -> str:
    """Why, in a library's own words: their first paragraph in one line, without escapes and library paths."""
    said = _LIBRARY.sub("", _RUST.sub("", _ESCAPE.sub("", _message(error)[: 20 * LINE])))
    paragraph = re.split(r"\n\s*\n|\n\s*(?:LINE \d+:|stack backtrace)", said.strip(), maxsplit=1)[0]
    line = printable(" ".join(paragraph.split())).rstrip(".;:, ")
    name = type(error).__name__
    line = name if not line else f"{name}: {line}" if isinstance(error, _BARE) else line
    return line if len(line) <= length else f"{line[: length - 4].rstrip()} ..."


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory. {error}"
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([error.strerror, *names])
    return str(error)


def local_path(value: object) -> Path:
    """A path on this machine; `UsageError` for a URL, also one that a `Path` collapsed to ``s3:/bucket``."""
    text = str(value)
    if text.lower().startswith("file:/"):
        raise UsageError(f"{text} is a URL; give the folder or file as a path: /{text[6:].lstrip('/')}")
    if _URL.match(text):
        raise UsageError(
            f"{text} is a URL; what is not on this machine cannot be used yet, give a local path"
        )
    if "\0" in text:
        raise UsageError(f"{printable(text)} is no path: it has a NUL character")
    return Path(text)
