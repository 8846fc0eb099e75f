"""A first look at every image asked for: its content's hash, its size, and the tokens it will become.

Files are read once here and once more to be decoded: known sizes make the forecast exact and the windows the
same on every resume, and known hashes give image ids before the first vector is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice

from kvstore import images
from kvstore.contracts import ImageRecord, Layout
from kvstore.errors import DatasetError, ImageError

_CHUNK = 512  # records handed to the workers at once, and in one piece: handing over takes a tenth of a read
_PIECE = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """One image of the data set, looked at; `header` and `layout` are None where `fault` says why."""

    position: int
    name: str
    sha256: str
    bytes: int
    header: images.Header | None
    layout: Layout | None
    fault: ImageError | None = None


LayoutOf = Callable[[tuple[int, int]], Layout]
Item = tuple[int, ImageRecord]


def survey(
    records: Sequence[ImageRecord], layout_of: LayoutOf, workers: int, seen: Callable[[int], None]
) -> list[Seen]:
    """Look at all records, in order; `seen` is told how many were looked at since it was last called."""
    look = partial(_look_at, layout_of=lru_cache(maxsize=4096)(layout_of))
    found: list[Seen] = []
    with ThreadPoolExecutor(workers, "survey") as pool:
        for chunk in _chunks(enumerate(records), _CHUNK):
            for piece in pool.map(look, _chunks(iter(chunk), _PIECE)):
                found.extend(piece)
            seen(len(chunk))
    return found


def _chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _look_at(items: Sequence[Item], layout_of: LayoutOf) -> list[Seen]:
    return [_look(item, layout_of) for item in items]


def _look(item: Item, layout_of: LayoutOf) -> Seen:
    position, record = item
    sha256, size, header = "", 0, None
    try:
        data = record.read()
        if not isinstance(data, bytes):
            told = f"read returned a {type(data).__name__}, not bytes"
            raise DatasetError(f"the data set's recipe: {told} ({record.name}); mend it")
        sha256, size = hashlib.sha256(data).hexdigest(), len(data)
        header = images.header(data)
        layout = layout_of((header.width, header.height))
    except ImageError as fault:
        return Seen(position, record.name, sha256, size, header, None, fault)
    return Seen(position, record.name, sha256, size, header, layout)
