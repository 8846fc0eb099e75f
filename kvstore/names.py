"""Names that come from data as names of files: each path that is built from data is made here, or refused.

A category, a clip, an image's name may be anything, in a data set or a store that somebody sent. A name that
would leave its folder, hide, be another name's file on another system, or lie where another does is refused:
nothing is written under a changed name, and nothing is written over.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from kvstore.errors import DatasetError
from kvstore.lines import shortened

#: Most bytes of a name on the file systems in use.
MOST_BYTES = 255
#: Names of devices on Windows, with any ending.
_DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL
)


def unfit(name: str) -> str:
    """Why a name can be none of a file or a folder, in a few words; empty where it can."""
    if not name or name.isspace():
        return "it is empty"
    if name in (".", ".."):
        return "it leaves its folder"
    if re.search(r"[/\\]", name):
        return "it has a separator"
    if re.match(r"[A-Za-z]:", name):
        return "it begins with a drive"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "it has a control character"
    if name.startswith("."):
        return "it would be hidden"
    if name.endswith((".", " ")):
        return "it ends in a dot or a blank, which Windows leaves out"
    if _DEVICES.fullmatch(name):
        return "it is a device's on Windows"
    if len(name.encode()) > MOST_BYTES:
        return f"it is longer than {MOST_BYTES} bytes"
    return ""


def place(folder: Path, *names: str) -> Path:
    """The path of a new file in `folder`, below folders with all names but the last, which are made.

    Raises `DatasetError` for a name that is `unfit`, and where something stands in the way: a file or a link
    for a folder, anything for the file.
    """
    path, whole = folder, "/".join(names)
    for name in names:
        if why := unfit(name):
            of = f" (of {_shown(whole)})" if len(names) > 1 else ""
            raise DatasetError(f"{_shown(name)}{of} cannot be a folder's name or a file's: {why}; rename it")
    for name in names[:-1]:
        path = path / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise _taken(whole) from None
        if path.is_symlink():
            raise _taken(whole)
    path = path / names[-1]
    if os.path.lexists(path):
        raise _taken(whole)
    return path


def lines(rows: Iterable[str]) -> str:
    """The content of a list with a row in each line; `DatasetError` for one that would take more than one."""
    found = list(rows)
    for row in found:
        if len(row.splitlines()) != 1:
            raise DatasetError(f"{_shown(row)} is not one line, and a list has one for each name; rename it")
    return "".join(f"{row}\n" for row in found)


def check_apart(folder: Path) -> None:
    """Raise `DatasetError` where two names in a folder differ only by case or in how Unicode writes them.

    Here they may be two files; on Windows and macOS they are one, and the second would be written over the
    first.
    """
    for home, folders, files in os.walk(folder):
        met: dict[str, str] = {}
        for name in (*folders, *files):
            other = met.setdefault(_folded(name), name)
            if other != name:
                where = _shown(Path(home, other).relative_to(folder).as_posix())
                raise DatasetError(
                    f"{where} and {_shown(name)} are one file on Windows and macOS; rename one"
                )


def _folded(name: str) -> str:
    """What names have in common that some file system takes for one."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _taken(name: str) -> DatasetError:
    return DatasetError(f"{_shown(name)} would lie where another does; rename one of them")


def _shown(name: str) -> str:
    return repr(shortened(name, 80))
