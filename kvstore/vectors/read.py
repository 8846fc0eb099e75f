"""Reading a run's vectors by image and layer, straight from the pages of Lance's files.

A (image, layer) block is a stretch of consecutive rows, and raw float16 vectors lie in a Lance page one after
another, so a block is one slice of a memory map. Pages that are not raw (an older file, a changed encoding)
are read through Lance itself; the result is the same.
"""

from __future__ import annotations

import mmap
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import lance
import numpy as np
from lance.file import LanceFileReader

from kvstore import left_out, pins, received, seals, warehouse
from kvstore.contracts import Site
from kvstore.errors import StoreError, UnknownNameError
from kvstore.vectors import schema as tables

Array = np.ndarray[Any, np.dtype[np.float16]]

_NOT_RAW = re.compile(r"bits_rep: [1-9]|bits_def: [1-9]|has_validity: true")


class _Column:
    """One vector column of one Lance table, addressed by row."""

    def __init__(self, dataset: Any, column: str) -> None:
        self.dataset = dataset
        field = self.dataset.schema.field(column)
        self.column, self.width = column, int(field.type.list_size)
        self.fragments = self.dataset.get_fragments()
        self.starts = [0, *accumulate(int(fragment.physical_rows) for fragment in self.fragments)]
        self.pages: dict[int, _Pages | None] = {}

    def rows(self, first: int, count: int) -> Array:
        """Rows [first, first + count) as float16 [count, width]; a read-only view where pages are raw."""
        index = bisect_right(self.starts, first) - 1
        pages = self._pages(index)
        found = pages.rows(first - self.starts[index], count) if pages else None
        return found if found is not None else self._through_lance(first, count)

    def _pages(self, index: int) -> _Pages | None:
        if index not in self.pages:
            self.pages[index] = _Pages.of(self.dataset.uri, self.fragments[index], self.column, self.width)
        return self.pages[index]

    def _through_lance(self, first: int, count: int) -> Array:
        table = self.dataset.to_table(columns=[self.column], offset=first, limit=count)
        flat = table.column(0).combine_chunks().flatten()
        return np.asarray(flat.to_numpy(zero_copy_only=False), np.float16).reshape(count, self.width)


class _Pages:
    """The raw pages of one column of one data file, memory-mapped."""

    def __init__(self, data: mmap.mmap, starts: list[int], positions: list[int], width: int) -> None:
        self.data, self.starts, self.positions, self.width = data, starts, positions, width

    @classmethod
    def of(cls, uri: str, fragment: Any, column: str, width: int) -> _Pages | None:
        """None unless every page is a single buffer of bare float16 vectors."""
        files = fragment.data_files()
        path = Path(uri, "data", files[0].path)
        if len(files) != 1 or fragment.metadata.deletion_file is not None or not path.is_file():
            return None
        reader = LanceFileReader(str(path))
        metadata = reader.metadata()
        names = [field.name for field in metadata.schema]
        pages = metadata.columns[names.index(column)].pages
        if len(metadata.columns) != len(names) or not all(_is_raw(page, width) for page in pages):
            return None
        sizes = [page.buffers[0].size // (2 * width) for page in pages]
        if sum(sizes) != metadata.num_rows:
            return None
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(data, [0, *accumulate(sizes)], [page.buffers[0].position for page in pages], width)

    def rows(self, first: int, count: int) -> Array | None:
        """None when the rows reach past the page of the first."""
        page = bisect_right(self.starts, first) - 1
        if first + count > self.starts[page + 1]:
            return None
        offset = self.positions[page] + (first - self.starts[page]) * 2 * self.width
        flat = np.frombuffer(self.data, np.float16, count * self.width, offset)
        return flat.reshape(count, self.width)


def _is_raw(page: Any, width: int) -> bool:
    layout = str(page.encoding)
    return (
        len(page.buffers) == 1
        and "FullZipLayout" in layout
        and f"items_per_value: {width}," in layout
        and "bits_per_value: 16," in layout
        and layout.count("Some(\n") < 20
        and not _NOT_RAW.search(layout)
        and page.buffers[0].size % (2 * width) == 0
    )


def opened(
    lance_dir: Path, run_id: str, kind: str, versions: Mapping[str, int] | None = None, *, whole: bool = True
) -> Any:
    """A run's Lance table as of the version among `versions`; without any, the newest.

    The newest stands for a version that is gone, too: it was compacted away with no change of rows. Raises
    `StoreError` when the table cannot be opened, with `whole` also where its seal tells that it is broken.
    """
    path, version = tables.location(lance_dir, run_id, kind), (versions or {}).get(kind)
    pin = pins.find(lance_dir, run_id, kind, version) if version is not None else None
    for folder in filter(None, (path, pin)):
        received.refuse_links_in(lance_dir.parent, folder)
    why = seals.fault(pin) if pin is not None and whole else ""
    lost = pin is None and version is not None and pins.newest(lance_dir, run_id, kind) < version
    if lost and path.is_dir():  # else the run may have been dropped, as is said below
        why = f"the manifest of version {version} of {path} is not there"
    if why:
        raise StoreError(left_out.broken(left_out.LeftOut(run_id, kind, why)))
    with warehouse.reading(run_id, kind):
        dataset = lance.dataset(str(pin or path))
        there = pin is None and version in {found["version"] for found in dataset.versions()}
        dataset = lance.dataset(str(path), version=version) if there else dataset
    received.refuse_other_bases(f"{kind} of run '{run_id}'", dataset)
    return dataset


class Reader:
    """A run's vectors as of one moment: open once, read many blocks.

    `versions` are those of the tables, as column `versions` of table `run` names them; without any, the
    newest ones. Raises `StoreError` when the run has no tables or they cannot be read, `UnknownNameError` for
    a site, layer or image it lacks.
    """

    def __init__(self, lance_dir: Path, run_id: str, versions: Mapping[str, int] | None = None) -> None:
        path = tables.location(lance_dir, run_id, tables.PATCH_SPAN)
        if not path.is_dir():
            raise StoreError(f"run '{run_id}' has no vectors in {lance_dir}; see `kvstore runs`.")
        self.lance_dir, self.run_id, self.versions = lance_dir, run_id, versions
        span = self._read_spans()
        metadata = span.schema.metadata or {}
        self.heads = int(metadata[b"kvstore.heads"])
        self.layers = _numbers(metadata[b"kvstore.layers"])
        self.encoder_layers = _numbers(metadata[b"kvstore.encoder_layers"])
        rows = zip(*(span.column(c).to_pylist() for c in ("image_id", "first_patch", "patches")), strict=True)
        self.spans = {image: (first, patches) for image, first, patches in rows}
        self._columns: dict[Site, _Column] = {}

    def _read_spans(self) -> Any:
        dataset = opened(self.lance_dir, self.run_id, tables.PATCH_SPAN, self.versions)
        with warehouse.reading(self.run_id, tables.PATCH_SPAN):
            return dataset.to_table(columns=["image_id", "first_patch", "patches"])

    @property
    def image_ids(self) -> list[int]:
        """Images stored, in the order of their rows."""
        return list(self.spans)

    def rows_in(self, kind: str, patches: int) -> int:
        """Rows that an image of so many patches has in a table of images."""
        return tables.rows_in(kind, patches, len(self.layers) * self.heads, len(self.encoder_layers))

    def site(self, site: Site, layer: int, image_id: int) -> Array:
        """One image value (key, ...): float16 [heads, patches, width]; heads is 1 for input and encoder."""
        column = self._column(site)
        if image_id not in self.spans:
            raise UnknownNameError("image", str(image_id), map(str, list(self.spans)[:20]))
        first, patches = self.spans[image_id]
        layers, heads = self._order(site)
        if layer not in layers:
            raise UnknownNameError(f"stored layer of site '{site}'", str(layer), map(str, layers))
        block = heads * patches
        row = first * len(layers) * heads + layers.index(layer) * block
        with warehouse.reading(self.run_id, tables.column_of(site)[0]):  # fewer rows than due raise, too
            return column.rows(row, block).reshape(heads, patches, column.width)

    def _order(self, site: Site) -> tuple[tuple[int, ...], int]:
        if site == "input":
            return (0,), 1
        return (self.encoder_layers, 1) if site == "encoder" else (self.layers, self.heads)

    def _column(self, site: Site) -> _Column:
        if site not in self._columns:
            kind, name = tables.column_of(site)
            dataset = self._dataset(kind)
            if dataset is None or name not in dataset.schema.names:
                raise UnknownNameError(f"stored site of run '{self.run_id}'", site, self.sites())
            self._columns[site] = _Column(dataset, name)
        return self._columns[site]

    def _dataset(self, kind: str) -> Any:
        """A table, or None where the run has none of the kind."""
        if self.versions is not None:
            there = kind in self.versions
        else:
            there = tables.location(self.lance_dir, self.run_id, kind).is_dir()
        if not there:
            return None
        return opened(self.lance_dir, self.run_id, kind, self.versions)

    def sites(self) -> list[Site]:
        """The sites that this run stores."""
        found: list[Site] = []
        for site in ("value", "key", "input", "encoder"):
            kind, name = tables.column_of(site)
            dataset = self._dataset(kind)
            if dataset is not None and name in dataset.schema.names:
                found.append(site)
        return found


def _numbers(text: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in text.decode().split(",") if part)


def named(lance_dir: Path, run_id: str) -> dict[str, int] | None:
    """The versions of a run's tables that the catalog beside them names; None where there is no catalog.

    Raises `StoreError` when the catalog does not know the run.
    """
    catalog = lance_dir.parent / "catalog.duckdb"
    try:
        found = catalog.stat()
    except FileNotFoundError:
        return None
    runs = _named(catalog, found.st_ino, found.st_mtime_ns)
    if run_id not in runs:
        raise StoreError(f"run '{run_id}' is not in the store (was it dropped?); see `kvstore runs`.")
    return runs[run_id]


@lru_cache(maxsize=4)
def _named(catalog: Path, inode: int, modified: int) -> dict[str, dict[str, int]]:
    """By run, of one published catalog: publishing puts a new file in its place."""
    with warehouse.catalog_only(catalog) as con:
        return dict(con.execute("select run_id, versions from run").fetchall())


@lru_cache(maxsize=16)
def _reader(lance_dir: Path, run_id: str, versions: tuple[tuple[str, int], ...]) -> Reader:
    return Reader(lance_dir, run_id, dict(versions))


def reader(lance_dir: Path, run_id: str, versions: Mapping[str, int] | None = None) -> Reader:
    """A `Reader` as of `versions`, or of those that the catalog names now; kept for the next call."""
    versions = versions or named(lance_dir, run_id)
    if versions is None:
        return Reader(lance_dir, run_id)
    return _reader(lance_dir, run_id, tuple(versions.items()))


def read_site(
    lance_dir: Path,
    run_id: str,
    site: Site,
    layer: int,
    image_id: int,
    versions: Mapping[str, int] | None = None,
) -> Array:
    """float16 [heads, patches, width] of one image; heads is 1 for input (layer 0) and encoder.

    As of `versions` (see `Reader`), or of those that the catalog names now.
    """
    return reader(lance_dir, run_id, versions).site(site, layer, image_id)


def read_layer(
    lance_dir: Path, run_id: str, site: Site, layer: int, image_ids: Sequence[int]
) -> dict[int, Array]:
    """`read_site` of many images: {image_id: float16 [heads, patches, width]}."""
    source = reader(lance_dir, run_id)
    return {image_id: source.site(site, layer, image_id) for image_id in image_ids}
