"""What a terminal may show: text from data is written out where it would steer the terminal.

A name or a value may hold escape sequences, which move the cursor, change the title or answer for the user,
and signs that turn the direction of writing. Standard error, and standard output where it is a terminal, show
them as ``\\x1b``; what goes into a file or a pipe keeps them, where its format has a way to write them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

from kvstore.lines import visible

if TYPE_CHECKING:
    from rich.console import Console


class Shown:
    """A stream that writes text as `visible` makes it; else it is the stream that it stands for."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write what may be shown; the length of `text`, as any stream tells it."""
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard() -> None:
    """Put `Shown` before standard error, and before standard output where that is a terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Shown) and (name == "stderr" or stream.isatty()):
            setattr(sys, name, Shown(stream))


def console() -> Console:
    """Standard error for who draws on it with escape sequences of its own: a progress bar."""
    from rich.console import Console

    return Console(file=sys.stderr.stream if isinstance(sys.stderr, Shown) else sys.stderr)
