"""A run's tables without some of its images, and with their indices made anew: for what is broken on disk.

Files that hold no row of the images stay as they are; the others are written anew from the rows beside
theirs, in the same order, so that nothing of the images is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from kvstore.vectors import schema as tables
from kvstore.vectors import write
from kvstore.vectors.checksums import checksum, rows
from kvstore.vectors.read import Reader

Range = tuple[int, int]  # rows [first, end)


def images(
    lance_dir: Path, run_id: str, versions: Mapping[str, int], gone: Collection[int]
) -> dict[str, int]:
    """Take the images out of all tables of a run that is held and rewound; the new versions."""
    reader = Reader(lance_dir, run_id, versions)
    for kind in (kind for kind in tables.PUBLIC if kind in versions):
        keep(tables.location(lance_dir, run_id, kind), list(_ranges(reader, kind, gone)))
    sums = _spans(lance_dir, run_id, gone)
    if tables.CHECKSUM in versions:
        _sums(lance_dir, run_id, gone, sums)
    return write.settled(lance_dir, run_id, [kind for kind in versions if kind in tables.OF_IMAGES])


def indexed(lance_dir: Path, run_id: str, kinds: Collection[str]) -> dict[str, int]:
    """Make the zone maps of these tables anew; their new versions."""
    for kind in kinds:
        dataset = lance.dataset(str(tables.location(lance_dir, run_id, kind)))
        for index in dataset.describe_indices():
            dataset.drop_index(index.name)
        dataset.create_scalar_index("image_id", "ZONEMAP")
    return write.settled(lance_dir, run_id, kinds)


def _ranges(reader: Reader, kind: str, gone: Collection[int]) -> Iterator[tuple[Range, bool]]:
    """The rows of each image in order, and whether they stay."""
    first = 0
    for image_id, (_, patches) in reader.spans.items():
        end = first + reader.rows_in(kind, patches)
        yield (first, end), image_id not in gone
        first = end


def keep(path: Path, ranges: list[tuple[Range, bool]]) -> None:
    """Bring a table down to those of these ranges, which make up all of its rows, that stay."""
    dataset = lance.dataset(str(path))
    fragments = dataset.get_fragments()
    starts = [0, *accumulate(int(fragment.physical_rows) for fragment in fragments)]
    kept: list[Any] = []
    for fragment, first, end in zip(fragments, starts, starts[1:], strict=False):
        inside = [((max(a, first), min(b, end)), stays) for (a, b), stays in ranges if a < end and b > first]
        if all(stays for _, stays in inside):
            kept.append(fragment.metadata)
            continue
        good = [span for span, stays in inside if stays]
        if good:
            kept += write.write_fragment(path, dataset.schema, _batches(dataset, good))
    numbered = [replace(fragment, id=number) for number, fragment in enumerate(kept, 1)]
    operation = lance.LanceOperation.Overwrite(dataset.lance_schema, numbered)
    lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)


def _batches(dataset: Any, good: list[Range]) -> Iterator[pa.RecordBatch]:
    for first, end in good:
        yield from dataset.to_table(offset=first, limit=end - first).to_batches()


def _spans(lance_dir: Path, run_id: str, gone: Collection[int]) -> list[tuple[int, str, int]]:
    """The places of the images that stay, one after another; the checksums of these rows."""
    path = tables.location(lance_dir, run_id, tables.PATCH_SPAN)
    old = lance.dataset(str(path)).to_table()
    stay = [row for row in old.to_pylist() if row["image_id"] not in gone]
    firsts = [0, *accumulate(row["patches"] for row in stay)]
    new = [{**row, "first_patch": first} for row, first in zip(stay, firsts, strict=False)]
    table = pa.Table.from_pylist(new, old.schema)
    sums = [
        (row["image_id"], tables.PATCH_SPAN, checksum(table.slice(place, 1))) for place, row in enumerate(new)
    ]
    write.replace(path, table)
    return sums


def _sums(lance_dir: Path, run_id: str, gone: Collection[int], spans: list[tuple[int, str, int]]) -> None:
    path = tables.location(lance_dir, run_id, tables.CHECKSUM)
    stay = [
        (row["image_id"], row["kind"], row["sum"])
        for row in lance.dataset(str(path)).to_table().to_pylist()
        if row["image_id"] not in gone and row["kind"] != tables.PATCH_SPAN
    ]
    write.replace(path, pa.Table.from_batches([rows([*stay, *spans])], tables.CHECKSUMS))
