"""Any text as one line that is safe to print."""

from __future__ import annotations

import json
import re

#: Most characters of a line that is told to a user.
LINE = 300
_GAP = " ... "


#: Lines as a program ends them, and tabs between what it writes.
_LAYOUT = re.compile(r"([\n\t])")


def printable(text: str) -> str:
    """Nothing that a terminal obeys: what is no printable character is written out, as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible(text: str) -> str:
    """The same for text of many lines: ends of lines and tabs stay."""
    return "".join(part if part in ("\n", "\t") else printable(part) for part in _LAYOUT.split(text))


def in_json(text: str) -> str:
    """The same for JSON, by its own escapes: what is written out is still the same value."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def one_line(text: object, length: int = LINE) -> str:
    """The text in one printable line: blanks and line breaks are one blank each, too much is `shortened`."""
    words = str(text).split()
    if len(words) > length:  # a long text is not written out whole first
        words = [*words[:length], "...", *words[-length:]]
    return shortened(printable(" ".join(shortened(word, 2 * length) for word in words)), length)


def shortened(text: str, length: int) -> str:
    """At most `length` characters: of a longer text its beginning and its end."""
    if len(text) <= length:
        return text
    kept = length - len(_GAP)
    return text[: kept - kept // 3] + _GAP + text[-(kept // 3) :]
