"""Checksums of what is stored: one for each image and table, over the bytes of all its columns.

They are made of the rows in memory while those are written, and kept in the run's table ``checksum``. They
are of content, not of files: compaction leaves them as they are, and one that differs names the image. The
sum is XXH3 with 64 bits (https://xxhash.com), which finds any change but one in 2^64, and guards against
broken disks, not against forgery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from kvstore.vectors import schema as tables


def checksum(rows: pa.RecordBatch | pa.Table) -> int:
    """XXH3, 64 bits, over the values of each column in turn, however they are cut into batches."""
    digest = xxhash.xxh3_64()
    for column in rows.columns:
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            digest.update(_bytes(chunk))
    return digest.intdigest()


def of_texts(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, int]]:
    """Each text and the checksum of its rows but for the text itself; a text's rows stand together."""
    rest: pa.Table | None = None
    for batch in batches:
        table = pa.Table.from_batches([batch])
        rest = table if rest is None else pa.concat_tables([rest, table])
        *whole, (text, first, _) = _stretches(rest)
        yield from ((name, _of_text(rest.slice(start, count))) for name, start, count in whole)
        rest = rest.slice(first)
    if rest is not None and rest.num_rows:
        yield text, _of_text(rest)


def _stretches(rows: pa.Table) -> list[tuple[str, int, int]]:
    """(text, first row, rows) of each text."""
    found, first = [], 0
    for text, same in groupby(rows["text"].to_pylist()):
        count = len(list(same))
        found.append((text, first, count))
        first += count
    return found or [("", 0, 0)]


def _of_text(rows: pa.Table) -> int:
    return checksum(rows.drop_columns(["text"]))


def of_values(row: Mapping[str, Any]) -> int:
    """The checksum of a row of numbers and bytes: its values in turn, numbers as Python says them."""
    digest = xxhash.xxh3_64()
    for value in row.values():
        digest.update(value if isinstance(value, bytes) else f"{value!r};".encode())
    return digest.intdigest()


def _bytes(array: pa.Array) -> memoryview:
    """The values of a column without nulls, of numbers or of vectors; not copied."""
    flat = array.flatten() if pa.types.is_fixed_size_list(array.type) else array
    return np.ascontiguousarray(flat.to_numpy(zero_copy_only=False)).view(np.uint8).data


class Sums:
    """The checksums of a window of images, gathered while its rows go by."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, str, int]] = []

    def seen(self, kind: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches of a table, an image each, as they are."""
        for batch in batches:
            self._rows.append((batch.column(0)[0].as_py(), kind, checksum(batch)))
            yield batch

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of table ``checksum`` for what went by."""
        yield rows(self._rows)


def rows(found: Iterable[tuple[int, str, int]]) -> pa.RecordBatch:
    """(image_id, kind, sum) as rows of table ``checksum``."""
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, tables.CHECKSUMS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=tables.CHECKSUMS)
