"""Blocks of vectors read from Lance's pages, against the arrays that were written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from kvstore.errors import StoreError, UnknownNameError
from kvstore.vectors import Reader, optimize, read_layer, read_site, write
from kvstore.vectors import read as reading
from kvstore.vectors import schema as tables

LAYERS, HEADS, WIDTH = (2, 5, 9), 2, 16
SHAPE = tables.Shape(LAYERS, HEADS, WIDTH, WIDTH, 8, 0, ())
PATCHES = {7: 12, 3: 20, 11: 12, 4: 1}  # image_id -> patches, in the order of their rows

Written = dict[int, dict[str, Any]]


def _rows(kind: str, schema: pa.Schema, image: int, first: int, arrays: dict[str, Any]) -> pa.RecordBatch:
    patches = PATCHES[image]
    if kind == tables.PATCH_SPAN:
        columns = [np.array([image]), np.array([first]), np.array([patches], np.int32)]
    elif kind == tables.PATCH_INPUT:
        columns = [np.full(patches, image), np.arange(patches, dtype=np.int32), arrays["input"]]
    else:
        layer, head, patch = np.indices((len(LAYERS), HEADS, patches)).reshape(3, -1)
        numbers = [np.asarray(LAYERS, np.int16)[layer], head.astype(np.int16), patch.astype(np.int32)]
        flat = [arrays[name].reshape(-1, WIDTH) for name in ("key", "value")]
        columns = [np.full(len(patch), image), *numbers, *flat]
    made = [write.vectors(c) if c.ndim == 2 else pa.array(c) for c in columns]
    return pa.RecordBatch.from_arrays(made, schema=schema)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """Four images in two commits of one fragment each."""
    random = np.random.default_rng(0)
    arrays: Written = {
        image: {
            "key": random.standard_normal((len(LAYERS), HEADS, n, WIDTH)).astype(np.float16),
            "value": random.standard_normal((len(LAYERS), HEADS, n, WIDTH)).astype(np.float16),
            "input": random.standard_normal((n, 8)).astype(np.float16),
        }
        for image, n in PATCHES.items()
    }
    schemas = {k: s for k, s in tables.schemas(SHAPE).items() if k not in (tables.POOLED_KV, tables.CHECKSUM)}
    write.create(tmp_path, "run", schemas)
    first = dict(zip(PATCHES, np.cumsum([0, *PATCHES.values()]), strict=False))
    for images in ((7, 3), (11, 4)):
        for kind, schema in schemas.items():
            path = tables.location(tmp_path, "run", kind)
            rows = [_rows(kind, schema, image, int(first[image]), arrays[image]) for image in images]
            write.commit(path, write.write_fragment(path, schema, rows))
    yield arrays
    reading._reader.cache_clear()


def assert_all_equal(folder: Path, arrays: Written) -> None:
    reader = Reader(folder, "run")
    assert reader.image_ids == list(PATCHES)
    for image, made in arrays.items():
        for row, layer in enumerate(LAYERS):
            assert np.array_equal(reader.site("key", layer, image), made["key"][row])
            assert np.array_equal(reader.site("value", layer, image), made["value"][row])
        assert np.array_equal(reader.site("input", 0, image)[0], made["input"])


def test_blocks_are_what_was_written_before_and_after_compaction(tmp_path: Path, written: Written) -> None:
    assert_all_equal(tmp_path, written)
    optimize(tmp_path, "run", tables.PUBLIC)
    assert len(lance.dataset(str(tables.location(tmp_path, "run", "patch_kv"))).get_fragments()) == 1
    assert_all_equal(tmp_path, written)


def test_pages_are_read_raw_and_through_lance_alike(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(tmp_path, "run")
    reader.site("value", 5, 3)
    assert reader._columns["value"]._pages(0) is not None  # raw, as written
    monkeypatch.setattr(reading, "_is_raw", lambda page, width: False)
    assert Reader(tmp_path, "run")._column("value")._pages(0) is None
    assert_all_equal(tmp_path, written)


def test_a_table_with_other_encoding_is_read_all_the_same(tmp_path: Path, written: Written) -> None:
    path = tables.location(tmp_path, "run", "patch_kv")
    table = lance.dataset(str(path)).to_table()
    plain = pa.schema([pa.field(f.name, f.type) for f in table.schema], table.schema.metadata)
    lance.write_dataset(table.cast(plain), str(path), mode="overwrite", data_storage_version="2.0")
    assert Reader(tmp_path, "run")._column("value")._pages(0) is None
    assert_all_equal(tmp_path, written)


def test_many_images_at_once(tmp_path: Path, written: Written) -> None:
    found = read_layer(tmp_path, "run", "value", 9, [4, 7])
    assert list(found) == [4, 7]
    assert np.array_equal(found[4], written[4]["value"][2])
    assert np.array_equal(read_site(tmp_path, "run", "value", 9, 7), found[7])


def test_what_is_not_stored_is_named(tmp_path: Path, written: Written) -> None:
    reader = Reader(tmp_path, "run")
    assert reader.sites() == ["value", "key", "input"]
    for site, layer, image, told in (
        ("encoder", 0, 7, "value"),
        ("value", 3, 7, "Known: 2, 5, 9"),
        ("value", 2, 8, "no image named '8'"),
    ):
        with pytest.raises(UnknownNameError, match=told):
            reader.site(site, layer, image)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="kvstore runs"):
        Reader(tmp_path, "other")


def test_commits_that_the_catalog_never_heard_of_are_taken_back(tmp_path: Path, written: Written) -> None:
    kinds = (tables.PATCH_KV, tables.PATCH_INPUT, tables.PATCH_SPAN)
    now = write.rewind(tmp_path, "run", dict.fromkeys(kinds, 2))  # version 1 is empty, 2 has two images
    reader = Reader(tmp_path, "run")
    assert reader.image_ids == [7, 3]
    assert np.array_equal(reader.site("value", 2, 3), written[3]["value"][0])
    assert write.rewind(tmp_path, "run", now) == now
