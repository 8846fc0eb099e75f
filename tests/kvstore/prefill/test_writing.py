"""The writer behind the prefill: commits in order, errors that surface, and a disk that fills up."""

from __future__ import annotations

import errno
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lance
import numpy as np
import pytest

from kvstore.contracts import Grid, Layout
from kvstore.errors import NoSpaceError, StoreError
from kvstore.prefill import forecast, plan, writing
from kvstore.prefill.blocks import Buffer
from kvstore.prefill.record import Progress
from kvstore.prefill.writing import Window, Writer
from kvstore.store import Store
from kvstore.vectors import schema, write
from tests.ingesting import array, assert_clean, ingest, pictures, query, rows

RUN = "folder-tiny-onevision"
SHAPE = schema.Shape((4, 6), 2, 0, 8, 0, 0, ())
LAYOUT = Layout((Grid(2, 3, (0, 0, 3, 2)),), 6)


class Written:
    """A writer into an empty run "r", and what it published: image ids, in order."""

    def __init__(self, folder: Path) -> None:
        schemas = schema.schemas(SHAPE)
        self.folder, self.patches = folder, 0
        self.published: list[list[int]] = []
        write.create(folder, "r", schemas)
        buffers = [Buffer(SHAPE, "cpu") for _ in range(writing.BUFFERS)]
        self.writer = Writer(folder, "r", schemas, {"value": SHAPE.layers}, buffers, self.publish)

    def publish(self, progress: Progress, versions: dict[str, int]) -> None:
        self.published.append([grid["image_id"] for grid in progress.grids])

    def put(self, *image_ids: int) -> None:
        """A window of these images; every number of image i is i."""
        buffer = self.writer.buffer()
        images = []
        for image_id, blocks in zip(image_ids, buffer.blocks([LAYOUT] * len(image_ids)), strict=True):
            blocks.site["value"].fill_(image_id)
            blocks.pooled["value"].fill_(image_id)
            images.append((image_id, self.patches, blocks))
            self.patches += LAYOUT.patches
        progress = Progress(grids=[{"image_id": image_id} for image_id in image_ids])
        self.writer.put(Window(buffer, images, progress))

    def image_ids(self) -> list[int]:
        return [image_id for window in self.published for image_id in window]

    def put_until_it_fails(self, first: int, met: threading.Event | None = None) -> None:
        for image_id in range(first, 500):
            self.put(image_id)
            assert met is None or image_id != 3 or met.wait(10)

    def table(self, kind: str) -> Any:
        return lance.dataset(str(self.folder / f"r.{kind}.lance"))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_windows_are_fragments_in_the_order_they_were_put(written: Written) -> None:
    windows = [(5, 6), (7,), (8, 9), (10,), (11,), (12,)]
    for window in windows:
        written.put(*window)
    written.writer.close()
    for kind, rows_each in (("patch_kv", 24), ("pooled_kv", 4), ("patch_span", 1)):
        table = written.table(kind)
        assert [f.count_rows() for f in table.get_fragments()] == [rows_each * len(w) for w in windows]
        ids = table.to_table()["image_id"].to_numpy()
        assert ids.tolist() == list(np.repeat(range(5, 13), rows_each))
    stored = written.table("patch_kv").to_table()
    assert (array(stored, "value") == stored["image_id"].to_numpy()[:, None]).all()
    assert written.image_ids() == list(range(5, 13))


def failing(monkeypatch: pytest.MonkeyPatch, when: int, error: Exception) -> threading.Event:
    """Writing the fragment of pooled_kv of image `when` fails; the event says that it has."""
    met, whole = threading.Event(), writing.write_fragment

    def fails(path: Path, schema: Any, blocks: Any) -> Any:
        batches = list(blocks)
        if "pooled_kv" in path.name and batches[0]["image_id"][0].as_py() == when:
            met.set()
            raise error
        return whole(path, schema, batches)

    monkeypatch.setattr(writing, "write_fragment", fails)
    return met


def test_an_error_of_a_writer_surfaces_and_what_precedes_it_is_committed(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = failing(monkeypatch, 3, StoreError("the cable"))
    with pytest.raises(StoreError, match="the cable"):
        written.put_until_it_fails(1, met)
    with pytest.raises(StoreError, match="the cable"):
        written.writer.close()
    assert written.image_ids() == [1, 2]
    assert written.table("patch_kv").to_table()["image_id"].unique().to_pylist() == [1, 2]
    with pytest.raises(StoreError, match="the cable"):  # once more is no harm
        written.writer.close()


def test_an_error_of_a_commit_surfaces_and_nothing_is_committed_after_it(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "INTERVAL", 0.0)
    written.writer._next = 0.0

    def fails(progress: Progress, versions: dict[str, int]) -> None:
        raise StoreError("no catalog")

    written.writer.publish = fails
    with pytest.raises(StoreError, match="no catalog"):
        written.put_until_it_fails(1)
    after = written.table("patch_span").count_rows()
    with pytest.raises(StoreError, match="no catalog"):
        written.writer.close()
    assert written.table("patch_span").count_rows() == after


# ------------------------------------------------------------------------------------- a full disk


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("images"), [(60, 60)] * 8)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WINDOW_IMAGES", 2)
    monkeypatch.setattr(writing, "INTERVAL", 0.0)
    monkeypatch.setattr(writing, "PATIENCE", 0.0)


def test_too_little_space_is_refused_before_anything_is_made(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=70 << 20))
    ingest(tmp_path / "fits", images, limit=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 20))
    with pytest.raises(NoSpaceError, match=r"are needed and 0\.07 GB are free at .*--limit"):
        ingest(tmp_path / "full", images)
    assert Store.open(tmp_path / "full").runs() == []
    assert not list((tmp_path / "full" / "lance").iterdir())


@pytest.mark.parametrize(("place", "works"), [("write_fragment", 2), ("commit", 0)])
def test_a_disk_that_fills_up_keeps_what_was_committed_and_goes_on_later(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None, place: str, works: int
) -> None:
    whole, calls = getattr(writing, place), []

    def fails(path: Path, *arguments: Any) -> Any:
        if "pooled_kv" in path.name:
            calls.append(path)
        if len(calls) > works:
            raise write.as_store_error(OSError(errno.ENOSPC, "No space left on device"), path)
        return whole(path, *arguments)

    monkeypatch.setattr(writing, place, fails)
    with pytest.raises(NoSpaceError, match="what was committed is safe"):
        ingest(tmp_path, images)
    store = Store.open(tmp_path)
    state, stored = query(store, "select state, images from run")[0]
    assert state == "interrupted"
    assert stored < 8
    assert_clean(store)
    monkeypatch.setattr(writing, place, whole)
    _, outcome = ingest(tmp_path, images)
    assert (outcome.images, outcome.already) == (8 - stored, stored)
    assert query(store, "select count(distinct image_id) from patch_kv") == [(8,)]
    assert_clean(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_real_disk_that_is_full_in_the_middle(
    images: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    monkeypatch.setattr(forecast, "RESERVE", 0)
    wanted = {"layers": None, "sites": ("value", "key", "input", "encoder")}
    store, _ = ingest(small_disk / "s", images, **wanted, limit=2)
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    catalog = store.catalog.stat().st_size
    ballast.write_bytes(b"x" * (free - catalog - (3 << 20)))
    monkeypatch.setattr(forecast, "_free", lambda store: 1 << 40)
    with pytest.raises(NoSpaceError):
        ingest(small_disk / "s", images, **wanted)
    stored = query(store, "select images from run")[0][0]
    assert 2 <= stored < 8
    assert rows(store, RUN, "patch_kv").num_rows >= stored * 8 * 2 * 14 * 14
    ballast.unlink()
    _, outcome = ingest(small_disk / "s", images, **wanted)
    assert outcome.already + outcome.images == 8
    assert query(store, "select state, images from run") == [("done", 8)]
    assert_clean(store)
