"""Who may read and write a store's files, how large they may be, and what lies where a lock belongs."""

from __future__ import annotations

import os
import resource
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kvstore import locks
from kvstore.errors import StoreError
from kvstore.report.published import Published, replace
from kvstore.store import Store
from kvstore.vectors import schema as tables
from kvstore.vectors import write
from tests import stores

NOBODY = 65534
MakeStore = Callable[..., stores.Made]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def no_root() -> Iterator[None]:
    """As a user whom modes bind: root is nobody meanwhile, whoever else stays who they are."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------------------------------------------- modes


def test_a_publish_leaves_the_catalog_to_those_who_may_read_it(make_store: MakeStore) -> None:
    store = make_store().store
    group = NOBODY if os.geteuid() == 0 else store.catalog.stat().st_gid
    for wanted in (0o644, 0o660, 0o600, 0o444):
        store.catalog.chmod(wanted)
        os.chown(store.catalog, -1, group)
        with umask(0o077 if wanted != 0o600 else 0), store.publish() as con:
            con.execute("update run set device = 'x'")
        assert mode(store.catalog) == wanted
        assert store.catalog.stat().st_gid == group


def test_a_report_stays_with_its_readers_and_a_new_one_follows_the_umask(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    with umask(0o027):
        replace(page, b"old")
    assert mode(page) == 0o640
    page.chmod(0o664)
    with umask(0o077):
        replace(page, b"new")
    assert (mode(page), page.read_bytes()) == (0o664, b"new")


def test_a_new_catalog_and_its_locks_follow_the_umask(tmp_path: Path) -> None:
    for mask, wanted in ((0o002, 0o664), (0o077, 0o600)):
        with umask(mask):
            store = Store.open(tmp_path / f"{mask:o}", create=True)
        found = [store.catalog, store.root / "locks" / "catalog.lock"]
        assert [mode(path) for path in found] == [wanted] * 2


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that all may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="kvstore-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_catalog_that_may_not_be_read_is_told_as_such(passable: Path) -> None:
    store = Store.open(passable / "s", create=True)
    store.catalog.chmod(0)
    told = rf"^{store.catalog} cannot be read: permission denied; "
    with no_root():
        for look in (lambda: Store.open(store.root), store.connect, store.runs):
            with pytest.raises(StoreError, match=told):
                look()


def test_a_lock_that_may_not_be_written_is_named(passable: Path) -> None:
    store = Store.open(passable / "s", create=True)
    lock = store.root / "locks" / "run.run.lock"
    lock.parent.chmod(0o777)
    lock.touch()
    lock.chmod(0)
    with (
        no_root(),
        pytest.raises(StoreError, match=rf"^{lock} cannot be written \(Permission denied\)"),
        store.hold("run"),
    ):
        pass


# ------------------------------------------------------------------------------------------ large files


def test_a_file_that_may_not_grow_so_large_is_told_in_a_line(make_store: MakeStore) -> None:
    store = make_store().store
    before = store.catalog.read_bytes()
    with (
        largest_file(len(before) // 2),
        pytest.raises(StoreError, match=r"larger than this process.*ulimit -f unlimited"),
        store.publish(),
    ):
        pass
    assert store.catalog.read_bytes() == before
    reports = Published(store.root)
    with (
        largest_file(1000),
        pytest.raises(StoreError, match=r"larger than this process"),
        reports.builder(),
    ):
        reports.publish("r", {"key": "key"}, {"a.png": b"a" * 2000}, b"page")
    assert reports.build("r") is None
    assert sorted(store.root.glob("*.tmp*")) + sorted(reports.root.rglob("*.tmp")) == []


def test_vectors_that_may_not_grow_so_large_are_told_in_a_line(tmp_path: Path) -> None:
    schema = tables.schemas(tables.Shape((), 0, 0, 0, 64, 0, ()))[tables.PATCH_INPUT]
    write.create(tmp_path, "run", {tables.PATCH_INPUT: schema})
    path, count = tables.location(tmp_path, "run", tables.PATCH_INPUT), 4096
    flat = write.vectors(np.ones((count, 64), np.float16))
    columns: list[Any] = [
        pa.array(np.ones(count, np.int64)),
        pa.array(np.arange(count, dtype=np.int32)),
        flat,
    ]
    rows = pa.RecordBatch.from_arrays(columns, schema=schema)
    with largest_file(100_000), pytest.raises(StoreError, match=r"larger than this process") as told:
        write.write_fragment(path, schema, [rows])
    assert len(str(told.value)) < 300


# -------------------------------------------------------------------------------------- places of locks


@pytest.mark.parametrize("name", ["catalog.lock", "catalog.json", "catalog.queue", ""])
def test_a_link_where_a_lock_belongs_is_not_followed(
    make_store: MakeStore, tmp_path: Path, name: str
) -> None:
    store = make_store().store
    theirs = tmp_path / "theirs"
    place = store.root / "locks" / name
    if name in ("catalog.queue", ""):
        theirs.mkdir()
        (theirs / "0").write_text("thesis")
        (place.parent if name else store.root).mkdir(exist_ok=True)
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        place.rmdir()
    else:
        theirs.write_text("thesis")
        place.unlink(missing_ok=True)
    place.symlink_to(theirs)
    with (
        pytest.raises(StoreError, match=rf"{place} is a link, where a lock belongs; remove it"),
        store.publish(),
    ):
        pass
    content = theirs / "0" if theirs.is_dir() else theirs
    assert content.read_text() == "thesis"
    assert [path.name for path in theirs.parent.rglob("*") if theirs in path.parents] in ([], ["0"])


def test_a_folder_where_a_lock_belongs_is_told(tmp_path: Path) -> None:
    for name in ("a.lock", "b.json"):
        (tmp_path / name).mkdir()
        lock = (tmp_path / name).with_suffix(".lock")
        with (
            pytest.raises(StoreError, match=rf"{name} is a folder, where a lock belongs"),
            locks.hold(lock, "a", 1),
        ):
            pass
