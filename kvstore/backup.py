"""A copy of a store while others write: one snapshot, which is a store of its own and shares no file.

The catalog is copied first, one snapshot since it is never written in place; then of each Lance table exactly
the files of the version that this catalog names; what is committed meanwhile is not in it. All is written in
a folder beside the new one, held to the checksums of its rows there, and renamed. A backup that was ended
before goes on there: files of vectors are named at random and never changed, so that whole ones stay.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from kvstore import disk, durable, interrupts, locks, pins, verify
from kvstore.errors import NoSpaceError, StoreError, UsageError
from kvstore.progress import track
from kvstore.repair import tasks
from kvstore.store import UNFINISHED, Store, usable
from kvstore.vectors.schema import KEY_MOMENT, PUBLIC

#: Bytes that are copied at a time: signals are heard, and the bar moves, between two.
CHUNK = 64 << 20
_MB = 1_000_000
#: What `copy_file_range` says where it cannot: between some disks, in some file systems, in old systems.
_CANNOT = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


class _Unfinished(Store):
    """A store that is being made, whose catalog has another name so that nobody takes it for one."""

    @property
    def catalog(self) -> Path:
        return self.root / UNFINISHED


@dataclass(frozen=True)
class Copied:
    """What was copied: bytes, and what the checksums say of each run."""

    size: int
    verdicts: list[verify.Verdict]


@dataclass(frozen=True)
class _File:
    """A file of a run's table, and its copy; `summed` where the checksums of rows tell of its content."""

    run_id: str
    source: Path
    target: Path
    size: int
    summed: bool

    def is_there(self) -> bool:
        """Whether a backup that was ended before has copied it: no two data files have one name."""
        in_data = self.target.parent.name == "data"
        return in_data and self.target.is_file() and self.target.stat().st_size == self.size


def backup(store: Store, target: Path) -> Copied:
    """Copy `store` to `target`, a path where nothing is, whole or not at all; progress on stderr.

    What was broken in the store is copied as it is, and named in the verdicts. Ended before its end, by a
    signal or an error, it goes on when called again, in the folder ``.NAME.backup`` beside `target`.

    Raises `UsageError` for a target that is there or lies in the store, `NoSpaceError` where it would not
    fit, `StoreBusyError` while another process makes the same, `StoreError` for files that are broken beyond
    reading or went away meanwhile, and where the copy differs.
    """
    target = _vacant(store, target)
    copy = _Unfinished(target.with_name(f".{target.name}.backup"))
    lock, words = copy.root / "locks" / "backup.lock", "name a folder elsewhere"
    with disk.errors(target.parent, words), locks.hold(lock, f"the backup {target}"):
        _vacant(store, target)
        try:
            with disk.errors(target.parent, words):
                done = _copied(store, copy)
        except NoSpaceError:
            shutil.rmtree(copy.root, ignore_errors=True)
            raise
        with interrupts.shielded():
            shutil.rmtree(copy.root / "locks")
            copy.catalog.rename(copy.root / store.catalog.name)
            durable.sync(Path(home) for home, _, _ in os.walk(copy.root))
            copy.root.rename(target)
            durable.sync([target.parent])
    return done


def _vacant(store: Store, target: Path) -> Path:
    """The path, absolute; `UsageError` where a backup cannot appear there."""
    target = target.expanduser().absolute()
    if os.path.lexists(target):
        raise UsageError(f"{target} is there already; name a new folder, nothing is overwritten")
    usable(target)
    if target.resolve().is_relative_to(store.root.resolve()):
        raise UsageError(f"{target} lies in the store; name a folder outside of it")
    return target


def _copied(store: Store, copy: Store) -> Copied:
    copy.lance.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(copy.lance / pins.FOLDER, ignore_errors=True)
    copy.catalog.unlink(missing_ok=True)
    _copy(store.catalog, copy.catalog, lambda size: None)
    files = list(_files(store, copy))
    _make_room(files, copy)
    size = sum(file.size for file in files)
    with track("copying", size // _MB, "MB") as advance:
        tell = _megabytes(advance)
        for file in files:
            if file.is_there():
                tell(file.size)
            else:
                _copy(file.source, file.target, tell)
    todo, made = tasks(copy), list[Path]()
    for task in todo:
        for kind, version in task.versions.items():
            pins.pin(copy.lance, task.run_id, kind, version, made)
    pins.sync(made)
    with track("verifying", sum(task.parts for task in todo), "block") as advance:
        verdicts = [verify.verify(task, advance) for task in todo]
    _compare(files, {verdict.run_id for verdict in verdicts if verdict.broken or verdict.unsummed})
    return Copied(size + copy.catalog.stat().st_size, verdicts)


def _files(store: Store, copy: Store) -> Iterator[_File]:
    """The files of the tables as of the versions that the copied catalog names."""
    for run in copy.runs():
        for kind, version in run["versions"].items():
            name = run["run_id"], kind, version
            try:
                manifest, others = pins.files(store.lance, *name)
                home = store.lance / pins.table(*name[:2])
                places = {pins.versioned(copy.lance, *name): manifest}
                places |= {copy.lance / home.name / path.relative_to(home): path for path in others}
                for target, source in places.items():
                    summed = kind in PUBLIC and source in others and source.parent.name == "data"
                    yield _File(run["run_id"], source, target, source.stat().st_size, summed)
            except FileNotFoundError as error:
                if kind != KEY_MOMENT:  # which is made anew where it is missing
                    raise _gone(Path(error.filename)) from error


def _make_room(files: list[_File], copy: Store) -> None:
    """Remove what an earlier attempt left and this one cannot use; `NoSpaceError` where it would not fit."""
    kept = {file.target for file in files if file.is_there()}
    for path in copy.lance.rglob("*"):
        if path not in kept and not path.is_dir():
            path.unlink()
    due = sum(file.size for file in files if file.target not in kept)
    free = shutil.disk_usage(copy.root).free
    if due > free:
        raise NoSpaceError(
            f"the backup takes {due / 1e9:.3f} GB more, and {copy.root.parent} has {free / 1e9:.3f} GB free;"
            " free some, or name a folder on another disk"
        )


def _compare(files: list[_File], doubtful: set[str]) -> None:
    """`StoreError` where a copy is not what was copied: of files without checksums, and of doubtful runs."""
    for file in files:
        if file.summed and file.run_id not in doubtful:
            continue
        try:
            same = filecmp.cmp(file.source, file.target, shallow=False)
        except FileNotFoundError as error:
            raise _gone(file.source) from error
        if not same:
            file.target.unlink()
            raise StoreError(
                f"{file.target} is not what was copied: is its disk sound? Or name another folder"
            )


def _gone(path: Path) -> StoreError:
    return StoreError(
        f"{path} went away while it was copied (a run that was dropped?); the same command goes on"
    )


# ------------------------------------------------------------------------------------------------ bytes


def _megabytes(advance: Callable[[int], None]) -> Callable[[int], None]:
    """What is told of bytes, and advances a bar of megabytes."""
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        advance((done + size) // _MB - done // _MB)
        done += size

    return tell


def _copy(source: Path, target: Path, tell: Callable[[int], None]) -> None:
    """Copy a file's bytes, on disk at the end; where the file system shares blocks by itself, it does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    if source.is_symlink():
        raise StoreError(f"{source} is a link; put the file that it leads to in its place")
    try:
        old = source.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise _gone(source) from error
    with old, part.open("wb", buffering=0) as new:
        while count := _chunk(old, new):
            tell(count)
        os.fsync(new.fileno())
    part.rename(target)


def _chunk(old: FileIO, new: FileIO) -> int:
    """Copy the next bytes; how many, 0 at the end. Both files stand where they were read and written to."""
    if hasattr(os, "copy_file_range"):
        try:
            if count := os.copy_file_range(old.fileno(), new.fileno(), CHUNK):
                return count
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    data = old.read(CHUNK)
    return new.write(data) if data else 0
