"""What is done to files of a data set: a value of an annotation file replaced, a file cut, a map redrawn."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

#: What a field becomes; `GONE` takes it away, `TWICE` puts an item of a list there again.
GONE, TWICE = object(), object()
VALUES: dict[str, Any] = {
    "null": None,
    "text": "text",
    "list": [],
    "object": {},
    "-1": -1,
    "1e400": float("inf"),
    "NaN": float("nan"),
    "surrogate": "\ud83d",
    "long": "x" * 100_000,
    "true": True,
    "nothing": GONE,
    "twice": TWICE,
}
#: What becomes of the bytes of any file; None: it is not there.
BYTES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) * 3 // 5],
    "zeros": lambda data: bytes(len(data)),
    "no UTF-8": lambda data: data[: len(data) // 2] + b"\xe9" + data[len(data) // 2 :],
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
}
#: What becomes of an image, photograph or map.
PICTURES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half as wide": lambda image: image.resize((image.width // 2, image.height), Image.Resampling.NEAREST),
    "grey": lambda image: Image.fromarray(np.asarray(image)) if image.mode == "P" else image.convert("L"),
    "coloured": lambda image: image.convert("RGB"),
    "of 16 bits": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16)),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}
ENDINGS = (".png", ".jpg", ".bmp")
#: Most keys of an object that are all tried; of more, the first two, the last, and one that holds something.
LONG = 20


def places(file: Path) -> Iterator[tuple[Any, ...]]:
    """The place of each value in an annotation file: of a list the first and the last."""
    yield from _places(READERS[file.suffix][0](file.read_bytes()))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        keys = list(value)
        full = [key for key in keys if value[key]]
        for key in keys if len(keys) <= LONG else dict.fromkeys([*keys[:2], *full[:1], keys[-1]]):
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list | tuple):
        for place in sorted({0, len(value) - 1} if value else ()):
            yield from _places(value[place], (*path, place))


def values(file: Path, path: tuple[Any, ...]) -> list[str]:
    """What is tried at a place: `TWICE` is for items of lists; lists and objects are not for lines."""
    tried = VALUES if file.suffix in (".json", ".p") else VALUES.keys() - {"list", "object"}
    return [name for name in VALUES if name in tried and (name != "twice" or isinstance(path[-1], int))]


def value_at(file: Path, path: tuple[Any, ...]) -> Any:
    """The value at a place of an annotation file."""
    value = READERS[file.suffix][0](file.read_bytes())
    for key in path:
        value = value[key]
    return value


def broken(file: Path, path: tuple[Any, ...], way: str) -> bytes | None:
    """The file's bytes with the value at a place, or the whole of it where there is none, made otherwise."""
    before = file.read_bytes()
    if path:
        read, write = READERS[file.suffix]
        whole = read(before)
        return write(before, _put(whole, path, VALUES[way]))
    if way in BYTES:
        return BYTES[way](before)
    image, buffer = PICTURES[way](Image.open(io.BytesIO(before))), io.BytesIO()
    image.save(buffer, "png")  # whatever the file's name says: readers look at the bytes
    return buffer.getvalue()


def _put(whole: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = whole
    for key in path[:-1]:
        value = value[key]
    if new is GONE:
        del value[path[-1]]
    elif new is TWICE:
        value.insert(path[-1], value[path[-1]])
    else:
        value[path[-1]] = new
    return whole


# ------------------------------------------------------------------------------------------ kinds of files


def _read_lines(data: bytes) -> Any:
    return [line.split(" ") for line in data.decode().splitlines()]


def _write_lines(data: bytes, lines: Any) -> bytes:
    words = (" ".join(map(_word, line)) if isinstance(line, list) else _word(line) for line in lines)
    return "".join(f"{line}\n" for line in words).encode(errors="surrogatepass")


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def _read_xml(data: bytes) -> Any:
    return [element.text for element in ElementTree.fromstring(data).iter()]


def _write_xml(data: bytes, texts: Any) -> bytes:
    root = ElementTree.fromstring(data)
    for element, text in zip(root.iter(), texts, strict=False):
        element.text = _word(text).encode("utf-8", "replace").decode()
    return ElementTree.tostring(root)


Reader, Writer = Callable[[bytes], Any], Callable[[bytes, Any], bytes]
READERS: dict[str, tuple[Reader, Writer]] = {
    ".json": (json.loads, lambda data, value: json.dumps(value).encode()),
    ".p": (pickle.loads, lambda data, value: pickle.dumps(value, 2)),
    ".txt": (_read_lines, _write_lines),
    ".xml": (_read_xml, _write_xml),
}
