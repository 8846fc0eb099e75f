"""Names of image files as annotation tools write them, and where the files lie.

A tool writes paths of the machine on which it ran, with folders, backslashes or a drive, or a URL (LVIS has
``coco_url`` alone, Label Studio ``/data/local-files/?d=...``). A file is looked for by the whole name in the
folder of images, then by fewer and fewer of the name's last parts, as long as no other image's name ends in
the same: so each image has one file, whatever lies on the disk.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kvstore.datasets import read_file
from kvstore.errors import ImageError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PARTS = 12  # of a name's end that are tried


def name_of(row: Mapping[str, Any]) -> str | None:
    """What a row of ``images`` calls its file, in `file_name`, else `coco_url`, else `path`.

    It is a path with forward slashes, without what belongs to another machine: host, drive, ``..``.
    """
    given = (row.get(key) for key in ("file_name", "coco_url", "path"))
    names = ("/".join(_parts(name)) for name in given if isinstance(name, str))
    return next((name for name in names if name), None)


class FileNames:
    """Where each of the names, as `name_of` gives them, lies in a folder."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        self._ends: Counter[str] = Counter(end for name in names for end in _ends(name))

    def find(self, name: str) -> str | None:
        """The file's path in the folder; None where there is none that is this image's alone."""
        alone = (end for end in _ends(name) if end == name or self._ends[end] == 1)
        windows = name.replace("/", "\\")  # one long name, as some tools unpack an archive made on Windows
        return next((path for path in (*alone, windows) if self._there(path)), None)

    def read(self, name: str) -> bytes:
        """The file's bytes; raises `ImageError` as `datasets.read_file` does."""
        found = self.find(name)
        if found is None:
            raise ImageError("missing", f"no file {name!r} in {self.folder}, nor one of its last parts alone")
        return read_file(self.folder, found)()

    def _there(self, path: str) -> bool:
        try:
            return (self.folder / path).is_file()
        except (OSError, ValueError):  # too long; a NUL, half a surrogate pair
            return False


def _ends(name: str) -> Iterator[str]:
    """The name, and its last parts, the most first."""
    parts = name.split("/")
    yield name
    for first in range(max(1, len(parts) - _PARTS), len(parts)):
        yield "/".join(parts[first:])


def _parts(name: str) -> list[str]:
    """Folders and file of a name, from the last ``..`` on."""
    parts = re.split(r"[/\\]", _path(name))
    parts = [part for part in parts if part not in ("", ".") and not re.fullmatch("[A-Za-z]:", part)]
    last = max((place for place, part in enumerate(parts) if part == ".."), default=-1)
    return parts[last + 1 :]


def _path(name: str) -> str:
    """The path in a URL, also in that of Label Studio's local files; any other name as it is."""
    local = name.partition("/local-files/?")[2]
    if not local and not _URL.match(name):
        return name
    if local:
        return (parse_qs(local).get("d") or [local])[0]
    try:
        return unquote(urlsplit(name).path)
    except ValueError:  # as of "http://[x"
        return name
