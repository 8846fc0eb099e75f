"""Writing a run's Lance tables: fragments first, by any number of threads, then one commit.

Lance is fed batches of `BATCH_ROWS` rows: one thread writes 0.7 to 1.0 GB/s so (two cores, vectors of width
128) and 0.4 GB/s when it is handed a whole table at once, whose pages then lie in freshly mapped memory.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from kvstore import pins
from kvstore.errors import NoSpaceError, StoreError
from kvstore.vectors import schema as tables

BATCH_ROWS = 16384
#: What was replaced or dropped stays so long: a shell left open reads the versions that its catalog names.
KEEP = timedelta(days=1)
_WHOLE = 10**9  # rows: one fragment per call (numbers past 32 bits make a fragment of every batch)


def create(lance_dir: Path, run_id: str, schemas: Mapping[str, pa.Schema]) -> dict[str, int]:
    """Make the run's empty tables where they are missing; returns each one's version."""
    versions = {}
    for kind, schema in schemas.items():
        path = tables.location(lance_dir, run_id, kind)
        if not (path / "_versions").is_dir():
            _make(path, schema, "create")
        versions[kind] = lance.dataset(str(path)).version
    return versions


def begin(lance_dir: Path, run_id: str, schemas: Mapping[str, pa.Schema]) -> dict[str, int]:
    """The empty tables of a new run; returns each one's version.

    Tables of a dropped run of this name are emptied by a further version: whoever has that run open reads on.
    """
    shutil.rmtree(tables.location(lance_dir, run_id, tables.KEY_MOMENT), ignore_errors=True)
    for kind, schema in schemas.items():
        path = tables.location(lance_dir, run_id, kind)
        if (path / "_versions").is_dir():
            try:
                _make(path, schema, "overwrite")
            except (OSError, ValueError):  # broken beyond opening
                pins.remove(lance_dir, run_id, kind)
                _make(path, schema, "create")
    return create(lance_dir, run_id, schemas)


def _make(path: Path, schema: pa.Schema, mode: str) -> None:
    if mode == "create":
        shutil.rmtree(path, ignore_errors=True)
    lance.write_dataset(schema.empty_table(), str(path), mode=mode, data_storage_version=tables.FORMAT)


def vectors(flat: np.ndarray[Any, Any]) -> pa.FixedSizeListArray:
    """An Arrow view (no copy) of float16 [rows, width]; the memory must stay as it is until written."""
    rows, width = flat.shape
    flat = np.ascontiguousarray(flat)
    items = pa.Array.from_buffers(pa.float16(), rows * width, [None, pa.py_buffer(flat)])
    return pa.FixedSizeListArray.from_arrays(
        items, type=pa.list_(pa.field("item", pa.float16(), nullable=False), width)
    )


def _in_small_batches(blocks: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for block in blocks:
        for start in range(0, block.num_rows, BATCH_ROWS):
            yield block.slice(start, BATCH_ROWS)


def write_fragment(path: Path, schema: pa.Schema, blocks: Iterable[pa.RecordBatch]) -> list[FragmentMetadata]:
    """Write blocks of rows as one fragment, not yet on disk for sure (`sync`) nor visible (`commit`).

    Raises `NoSpaceError` when the disk is full.
    """
    reader = pa.RecordBatchReader.from_batches(schema, _in_small_batches(blocks))
    try:
        written = write_fragments(
            reader,
            str(path),
            schema=schema,
            mode="append",
            max_rows_per_file=_WHOLE,
            max_bytes_per_file=100 * _WHOLE,
            data_storage_version=tables.FORMAT,
        )
    except OSError as error:
        raise as_store_error(error, path) from error
    return list(written)


def sync(path: Path, fragments: Iterable[FragmentMetadata]) -> None:
    """Wait until the fragments' files are on disk."""
    try:
        for file in (file for fragment in fragments for file in fragment.files):
            descriptor = os.open(path / "data" / file.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                if hasattr(os, "posix_fadvise"):  # the next window needs the page cache more than readers do
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise as_store_error(error, path) from error


def as_store_error(error: OSError, path: Path) -> StoreError:
    """Lance reports a full disk as an OSError whose text alone says so."""
    text = str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "os error 28" in text:
        return NoSpaceError(
            f"the disk of {path.parent} is full; what was committed is safe. "
            "Free some space and run the same command again: it goes on where it stopped."
        )
    return StoreError(f"cannot write {path}: {text.splitlines()[0] if text else error!r}")


def commit(path: Path, fragments: list[FragmentMetadata]) -> int:
    """Make fragments visible, in this order, all at once; returns the new version."""
    dataset = lance.dataset(str(path))
    if not fragments:
        return int(dataset.version)
    operation = lance.LanceOperation.Append(fragments)
    try:
        return int(lance.LanceDataset.commit(dataset, operation, read_version=dataset.version).version)
    except OSError as error:
        raise as_store_error(error, path) from error


def replace(path: Path, table: pa.Table) -> int:
    """Replace a small table's rows; returns the new version."""
    try:
        return int(
            lance.write_dataset(
                table,
                str(path),
                mode="overwrite" if path.exists() else "create",
                data_storage_version=tables.FORMAT,
            ).version
        )
    except OSError as error:
        raise as_store_error(error, path) from error


def rewind(lance_dir: Path, run_id: str, versions: Mapping[str, int]) -> dict[str, int]:
    """Take back a run's commits after `versions`, which the catalog never heard of; the versions to note.

    Hold the run: files that no version names, as killed writers leave them, are removed as well. A version
    that is gone was compacted away with no change of rows by an `optimize` that was killed before it could
    say so: the newest version then stands.
    """
    now = {}
    for kind, version in versions.items():
        path = tables.location(lance_dir, run_id, kind)
        if kind == tables.KEY_MOMENT or not path.is_dir():
            continue
        dataset = lance.dataset(str(path))
        if version in {found["version"] for found in dataset.versions()} and dataset.version != version:
            lance.dataset(str(path), version=version).restore()
        _clean(lance.dataset(str(path)), delete_unverified=True)
        now[kind] = int(lance.dataset(str(path)).version)
    return now


def drop(lance_dir: Path, run_id: str) -> None:
    """Remove all of a run's tables and pins."""
    pins.remove(lance_dir, run_id)
    for path in lance_dir.glob(f"{run_id}.*.lance"):
        if path.name.removesuffix(".lance").rpartition(".")[0] == run_id:
            shutil.rmtree(path)


def optimize(lance_dir: Path, run_id: str, kinds: Iterable[str], *, compact: bool = True) -> dict[str, int]:
    """Compact tables of a run, index their image ids, remove what was replaced `KEEP` ago; their versions.

    The zone map is what makes a query on `image_id` read one image's rows. Files keep their rows' order.
    """
    versions = {}
    for kind in kinds:
        path = tables.location(lance_dir, run_id, kind)
        if not path.is_dir():
            continue
        dataset = lance.dataset(str(path))
        pins.clean(lance_dir, run_id, kind, KEEP)
        _clean(dataset)  # before the rest: what that replaces may be open in a shell
        if compact and len(dataset.get_fragments()) > 1:
            dataset.optimize.compact_files(batch_size=BATCH_ROWS)
        if kind in tables.PUBLIC and dataset.count_rows():
            _index_images(dataset)
        versions[kind] = int(lance.dataset(str(path)).version)
    return versions


def _clean(dataset: Any, delete_unverified: bool = False) -> None:
    """Remove the versions that another replaced longer than `KEEP` ago, with the files of theirs alone."""
    found = sorted((version["version"], version["timestamp"]) for version in dataset.versions())
    until = datetime.now() - KEEP  # Lance's times are local ones
    gone = [version for (version, _), (_, next_at) in pairwise(found) if next_at < until]
    if gone or delete_unverified:
        which = {"versions": gone} if gone else {"older_than": timedelta(days=36500)}
        dataset.cleanup_old_versions(delete_unverified=delete_unverified, **which)


def _index_images(dataset: Any) -> None:
    if any(index.field_names == ["image_id"] for index in dataset.describe_indices()):
        dataset.optimize.optimize_indices()
    else:
        dataset.create_scalar_index("image_id", "ZONEMAP")
