"""Checksums of what is stored: one for each image and table, over the bytes of all its columns.

They are made of the rows in memory while those are written, and kept in the run's table ``checksum``. They
are of content, not of files: compaction leaves them as they are, and one that differs names the image. The
sum is XXH3 with 64 bits (https://xxhash.com), which finds any change but one in 2^64, and guards against
broken disks, not against forgery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
