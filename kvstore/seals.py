"""Seals: what the files of a Lance table were when a version of it was pinned, to find one broken unopened.

Lance and DuckDB raise, panic or abort over a broken manifest or index, and a view over many runs fails with
the one that cannot be opened. So a pin keeps in a file of its own the checksums of its manifest, its indices
and the metadata at the end of its data files, with the sizes of these: a look at them (0.1 ms a table) tells
a table that cannot be read from the others, and reads no vector. Whether vectors are what was stored,
`check --deep` tells.
"""

from __future__ import annotations

import errno
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import xxhash

#: The seal's name in the pin's folder.
NAME = "seal.json"
#: Files below a pin, as a seal may name them.
_NAME = re.compile(r"[\w-]+(?:/[\w-][\w.-]*)+")


def seal(home: Path, manifest: Path) -> None:
    """Write the seal of a pin that has just been made; the files are the table's, by way of its links.

    Raises `ValueError` for a manifest that is none, `OSError` where a file that it names is not there.
    """
    data, indices = named(manifest.read_bytes())
    files = [path for uuid in indices for path in sorted((home / "_indices" / uuid).rglob("*"))]
    found = {
        "sums": {_below(home, path): _sum(path) for path in (manifest, *files) if path.is_file()},
        "ends": {f"data/{name}": _end(home / "data" / name) for name in data},
    }
    (home / NAME).write_text(json.dumps(found), encoding="utf-8")


def fault(home: Path) -> str | None:
    """What is the matter with a pin's files, in words; empty when nothing is, None where it has no seal."""
    try:
        found = json.loads((home / NAME).read_bytes())
        sums, ends = dict(found["sums"]), dict(found["ends"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(_NAME.fullmatch(name) for name in (*sums, *ends)):  # of a seal that somebody made up
        return None
    for name, due in {**sums, **ends}.items():
        path = home / name
        try:
            met = _sum(path) if name in sums else _end(path)
        except OSError as error:
            return f"{path.resolve()} cannot be read: {error.strerror}"
        except ValueError:
            met = None
        if met != due:
            return f"{path.resolve()} is not what was stored"
    return ""


def _below(home: Path, path: Path) -> str:
    return path.relative_to(home).as_posix()


def _sum(path: Path) -> str:
    return xxhash.xxh3_64_hexdigest(_regular(path).read_bytes())


def _regular(path: Path) -> Path:
    if not path.is_file():  # a device, by a link, may never end
        raise FileNotFoundError(errno.ENOENT, "it is not there")
    return path


# ------------------------------------------------------------------------------------ Lance's data files

#: The footer: where the metadata of columns, its offsets and those of global buffers begin, and how many.
_FOOTER = struct.Struct("<QQQIIHH4s")
#: Most bytes of metadata; a data file of 1 GB has some 20 kB of it.
_MOST = 2**26
#: Where a global buffer begins and how long it is.
_BUFFER = struct.Struct("<QQ")


def _end(path: Path) -> list[int | str]:
    """A data file's size, and the checksum of its metadata: all that stands behind the vectors.

    Over a wrong byte there DuckDB may abort. The layout is that of protos/file2.proto of Lance; `ValueError`
    for a file that has another.
    """
    with _regular(path).open("rb") as file:
        size = file.seek(0, 2)
        columns, _, offsets, count, _, _, _, magic = _FOOTER.unpack(_read(file, size - _FOOTER.size, size))
        if magic != b"LANC":
            raise ValueError("it does not end as a data file of Lance")
        buffers = _BUFFER.iter_unpack(_read(file, offsets, offsets + count * _BUFFER.size))
        start = min(columns, *(begin for begin, _ in buffers)) if count else columns
        return [size, xxhash.xxh3_64_hexdigest(_read(file, start, size))]


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    """These bytes of a file; `ValueError` where it has not as many, or they would be too many."""
    if not 0 <= start <= end or end - start > _MOST:
        raise ValueError("it is no data file of Lance")
    file.seek(start)
    found = file.read(end - start)
    if len(found) != end - start:
        raise ValueError("it is cut off")
    return found


# ------------------------------------------------------------------------------------ Lance's manifest
# Its messages are those of protos/table.proto of Lance; the numbers below are of their fields.


def named(manifest: bytes) -> tuple[list[str], list[str]]:
    """The data files, and the indices' folders, that a manifest names; `ValueError` where it is none."""
    if manifest[-4:] != b"LANC":
        raise ValueError("it does not end as a manifest of Lance")
    body = _message(manifest, int.from_bytes(manifest[-16:-8], "little"))
    data, indices = [], []
    for number, value in _fields(body):
        if number == 2 and isinstance(value, bytes):  # Manifest.fragments
            data += [_text(part, 1) for part in _parts(value, 2)]  # DataFragment.files, DataFile.path
        elif number == 6 and isinstance(value, int):  # Manifest.index_section
            for index in _parts(_message(manifest, value), 1):  # IndexSection.indices, IndexMetadata.uuid
                indices += [str(UUID(bytes=next(_parts(uuid, 1)))) for uuid in _parts(index, 1)]
    return data, indices


def _message(file: bytes, start: int) -> bytes:
    """A message of a file, which stands behind its length."""
    return file[start + 4 : start + 4 + int.from_bytes(file[start : start + 4], "little")]


def _parts(message: bytes, number: int) -> Iterator[bytes]:
    return (value for found, value in _fields(message) if found == number and isinstance(value, bytes))


def _text(message: bytes, number: int) -> str:
    return next(_parts(message, number)).decode()


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Numbers and values of a message's fields (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _varint(message, at)
        elif key & 7 in (1, 5):
            size = 8 if key & 7 == 1 else 4
        else:
            raise ValueError("it is no message")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("it ends in a number")
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
