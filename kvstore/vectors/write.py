"""Writing a run's Lance tables: fragments first, by any number of threads, then one commit.

Lance is fed batches of `BATCH_ROWS` rows: one thread writes 0.7 to 1.0 GB/s so (two cores, vectors of width
128) and 0.4 GB/s when it is handed a whole table at once, whose pages then lie in freshly mapped memory.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from kvstore import disk, durable, pins
from kvstore.errors import NoSpaceError, StoreError
from kvstore.outside import sentence, told
from kvstore.vectors import schema as tables
from kvstore.vectors import whole

BATCH_ROWS = 16384
#: What was replaced or dropped stays so long: a shell left open reads the versions that its catalog names.
KEEP = timedelta(days=1)
_WHOLE = 10**9  # rows: one fragment per call (numbers past 32 bits make a fragment of every batch)


def create(lance_dir: Path, run_id: str, schemas: Mapping[str, pa.Schema]) -> dict[str, int]:
    """Make the run's empty tables where they are missing; returns each one's version."""
    for kind, schema in schemas.items():
        path = tables.location(lance_dir, run_id, kind)
        if not (path / "_versions").is_dir():
            _make(path, schema, "create")
    return settled(lance_dir, run_id, schemas)


def begin(lance_dir: Path, run_id: str, schemas: Mapping[str, pa.Schema]) -> dict[str, int]:
    """The empty tables of a new run; returns each one's version.

    Tables of a dropped run of this name are emptied by a further version: whoever has that run open reads on.
    """
    remove(lance_dir, run_id, tables.KEY_MOMENT)
    for kind, schema in schemas.items():
        path = tables.location(lance_dir, run_id, kind)
        if (path / "_versions").is_dir():
            try:
                with told(f"{path} cannot be opened", kind=StoreError):
                    _make(path, schema, "overwrite")
            except StoreError:
                remove(lance_dir, run_id, kind)
    return create(lance_dir, run_id, schemas)


def remove(lance_dir: Path, run_id: str, kind: str) -> None:
    """Remove a run's table and its pins, if it is there; that it is gone is on disk when this returns."""
    pins.remove(lance_dir, run_id, kind)
    path = tables.location(lance_dir, run_id, kind)
    if path.exists():
        shutil.rmtree(path)
        durable.sync([lance_dir])


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
    if error.errno == errno.EFBIG or "File too large" in text:
        return disk.too_large(path.parent)
    return StoreError(sentence(f"cannot write {path}", error))


def settled(lance_dir: Path, run_id: str, kinds: Iterable[str]) -> dict[str, int]:
    """The newest versions of those of these tables that are there, once they are on disk.

    What the catalog is told of a table comes from here: it must not name what a power cut takes away.
    """
    found, unsynced = {}, list[Path]()
    for kind in kinds:
        path = tables.location(lance_dir, run_id, kind)
        if path.is_dir():
            dataset = lance.dataset(str(path))
            found[kind] = int(dataset.version)
            unsynced += _unsynced(path, dataset, pins.pinned(lance_dir, run_id, kind))
    try:
        durable.sync(unsynced)
    except OSError as error:
        raise as_store_error(error, lance_dir) from error
    return found


def _unsynced(path: Path, dataset: Any, pinned: Collection[int]) -> Iterator[Path]:
    """The files of a table and the folders of their names that may not be on disk: a pinned version is."""
    newest = max(pinned, default=0)
    if newest == dataset.version:
        return
    known = whole.files(path, lance.dataset(str(path), version=newest)) if newest else {}
    made = [file for file in whole.files(path, dataset) if file not in known and file.exists()]
    made += [path / pins.manifest(version) for version in pins.versions(path) if version > newest]
    made += [file for file in path.glob("_transactions/*.txn") if _read_version(file) >= newest]
    yield from made
    yield from (file.parent for file in made)
    yield from (folder for folder in (path / "_indices", path, path.parent) if folder.is_dir())


def _read_version(transaction: Path) -> int:
    """The version that a transaction began with: its file is named by it."""
    number = transaction.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def commit(path: Path, fragments: list[FragmentMetadata]) -> int:
    """Make fragments visible, in this order, all at once, and not yet on disk (`settled`); the version."""
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

    Hold the run: files that no version names, as killed writers leave them, are removed as well. Raises
    `StoreError` where a version is missing or cannot be read; `kvstore.vectors.salvage` can go further back.
    """
    kinds = [kind for kind in versions if kind != tables.KEY_MOMENT]
    for kind in kinds:
        path = tables.location(lance_dir, run_id, kind)
        try:
            whole.opened(path, versions[kind])
        except StoreError as error:
            raise StoreError(
                f"version {versions[kind]} of {kind} of run '{run_id}' is lost ({error}); the same"
                " `kvstore ingest` makes again what is lost"
            ) from error
        restore(path, versions[kind])
    return settled(lance_dir, run_id, kinds)


def restore(path: Path, version: int) -> None:
    """Make an older version of a table the newest, and remove what no version names.

    Manifests that are cut short go: Lance would open no version of the table but by its number.
    """
    for manifest in whole.torn(path):
        manifest.unlink()
    with told(f"{path} cannot be brought back to version {version}", kind=StoreError):
        if lance.dataset(str(path)).version != version:
            lance.dataset(str(path), version=version).restore()
        lance.dataset(str(path)).cleanup_old_versions(timedelta(days=36500), delete_unverified=True)


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
    there = [kind for kind in kinds if tables.location(lance_dir, run_id, kind).is_dir()]
    for kind in there:
        dataset = lance.dataset(str(tables.location(lance_dir, run_id, kind)))
        pins.clean(lance_dir, run_id, kind, KEEP)
        # Before the rest: what that replaces may be open in a shell.
        _clean(dataset, pins.pinned(lance_dir, run_id, kind))
        if compact and len(dataset.get_fragments()) > 1:
            dataset.optimize.compact_files(batch_size=BATCH_ROWS)
        if kind in tables.PUBLIC and dataset.count_rows():
            _index_images(dataset)
    return settled(lance_dir, run_id, there)


def _clean(dataset: Any, kept: Collection[int]) -> None:
    """Remove the versions that another replaced longer than `KEEP` ago, with the files of theirs alone.

    Those of `kept` stay: the catalog names one of them, whatever was committed after it.
    """
    found = sorted((version["version"], version["timestamp"]) for version in dataset.versions())
    until = datetime.now() - KEEP  # Lance's times are local ones
    old = [version for (version, _), (_, next_at) in pairwise(found) if next_at < until]
    if gone := [version for version in old if version not in kept]:
        dataset.cleanup_old_versions(versions=gone)


def _index_images(dataset: Any) -> None:
    if any(index.field_names == ["image_id"] for index in dataset.describe_indices()):
        dataset.optimize.optimize_indices()
    else:
        dataset.create_scalar_index("image_id", "ZONEMAP")
