"""What is published under ``<store>/reports``: builds, pages, and the record of the last failure.

reports/index.html
reports/<name>.html             the page of the last good build, on its own
reports/<name>/build.json       which build that is, what it read and made; renamed into place last
reports/<name>/failure.json     the last attempt, when it failed
reports/<name>/<key>/           page.html, <chart>.png, <analysis>.parquet
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from kvstore import disk, durable, interrupts, locks
from kvstore.errors import StoreError
from kvstore.names import unfit


class Published:
    """The folder of built reports of one store."""

    def __init__(self, store: Path) -> None:
        self.root = store / "reports"
        self._lock = store / "locks" / "reports.lock"

    @contextmanager
    def builder(self) -> Iterator[None]:
        """One builder at a time; who comes later waits as long as builders come and go.

        What killed builders left aside is removed first.
        Raises `StoreBusyError` when one builds for long, `StoreError` for a folder that cannot be written,
        `NoSpaceError` for a full disk.
        """
        with disk.errors(self.root.parent):
            _make(self.root)
            with locks.hold(self._lock, f"the folder {self.root}", locks.PATIENCE):
                self._sweep_killed()
                yield

    def build(self, name: str) -> dict[str, Any] | None:
        """The record of the last good build, or None: also where it or a file of the build is not whole."""
        record = _read(self.root / name / "build.json")
        if record is None or not _is_record(record):
            return None
        folder = self.folder(name, record["key"])
        whole = _sum(self.page(name)) == record["page"] and all(
            _sum(folder / file) == sha256 for file, sha256 in record["files"].items()
        )
        return record if whole else None

    def is_begun(self, name: str) -> bool:
        """Whether anything of a build is there, whole or not."""
        return os.path.lexists(self.root / name / "build.json") or os.path.lexists(self.page(name))

    def failure(self, name: str) -> dict[str, Any] | None:
        """The last attempt when it failed, else None."""
        record = _read(self.root / name / "failure.json")
        return record if record and isinstance(record.get("error"), str) else None

    def page(self, name: str) -> Path:
        """``<name>.html``."""
        return self.root / f"{name}.html"

    def folder(self, name: str, key: str) -> Path:
        """Where a build's files lie."""
        return self.root / name / key

    def publish(self, name: str, record: dict[str, Any], files: dict[str, bytes], page: bytes) -> None:
        """Put a whole build in place; whoever reads meanwhile sees the last build or this one.

        `record` is kept with the sums of the files and the page, by which `build` knows that they are whole.
        """
        folder = self.folder(name, record["key"])
        sums = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        record = record | {"files": sums, "page": hashlib.sha256(page).hexdigest()}
        told = json.dumps(record, indent=1).encode()
        _make(folder.parent)
        # All is on disk before the first is put in place: a disk that fills up leaves the last build whole.
        # Each is in place for good before the next: a power cut leaves no record of files that it took.
        with (
            interrupts.shielded(),
            _folder(folder, files) as folder_aside,
            _file(self.page(name), page) as page_aside,
            _file(self.root / name / "build.json", told) as record_aside,
        ):
            _remove(folder)  # left by a build that was killed before its record, or not whole any more
            durable.replace(folder_aside, folder)
            durable.replace(page_aside, self.page(name))
            durable.replace(record_aside, self.root / name / "build.json")
        self.forgive(name)
        self._sweep(name, record["key"])

    def fail(self, name: str, record: dict[str, Any]) -> None:
        """Keep why an attempt failed; the last good build stays."""
        _make(self.root / name)
        replace(self.root / name / "failure.json", json.dumps(record, indent=1).encode())

    def forgive(self, name: str) -> None:
        """Forget the last failure."""
        (self.root / name / "failure.json").unlink(missing_ok=True)

    def _sweep(self, name: str, key: str) -> None:
        """Remove older builds."""
        for entry in (self.root / name).iterdir():
            if entry.is_dir() and entry.name != key:
                _remove(entry)

    def _sweep_killed(self) -> None:
        """Remove what killed builders left aside: under the lock, all that lies there is a dead process's."""
        for folder in (self.root, *self.root.iterdir()):
            if folder.is_dir() and not folder.is_symlink():
                for entry in folder.glob(".*.tmp"):
                    _remove(entry)


def _make(folder: Path) -> None:
    """Make a folder; `StoreError` for a link, by which a store that somebody sent would reach elsewhere."""
    if folder.is_symlink():
        raise StoreError(
            f"{folder} is a link, and reports are written through none; put a folder in its place"
        )
    durable.make_folder(folder)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------- records

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_record(record: dict[str, Any]) -> bool:
    """Whether a record says all that is read of it: it may be of an older kvstore, or anybody's."""
    return (
        all(_is_sum(record.get(part)) for part in ("key", "page"))
        and _is_time(record.get("built_at"))
        and all(_is_sums(record.get(part)) for part in ("files", "pictures"))
        and isinstance(record.get("calls"), list)
        and all(_is_call(call) for call in record["calls"])
        and isinstance(record.get("missing"), list)
        and all(isinstance(what, str) for what in record["missing"])
        and (record.get("thumbnail") is None or str(record["thumbnail"]).startswith("data:image/"))
    )


def _is_call(value: object) -> bool:
    """Whether it is a part of `Query.state`."""
    if not isinstance(value, dict):
        return False
    asked = isinstance(value.get("analysis"), str) and isinstance(value.get("params"), dict)
    return isinstance(value.get("absent"), str) or asked


def _is_sum(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_sums(value: object) -> bool:
    return isinstance(value, dict) and all(
        not unfit(name) and _is_sum(sha256) for name, sha256 in value.items()
    )


def _is_time(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _sum(path: Path) -> str | None:
    """sha256 of a file; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


# ----------------------------------------------------------------------------- written aside, then renamed


def replace(path: Path, content: bytes) -> None:
    """Write aside, flush to disk, rename; after an error nothing is left aside."""
    with interrupts.shielded(), _file(path, content) as aside:
        durable.replace(aside, path)


@contextmanager
def _file(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` with this content, on disk; it is gone at the end."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(content)
        durable.sync([aside])
        yield aside
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _folder(path: Path, files: dict[str, bytes]) -> Iterator[Path]:
    """A folder beside `path` with these files; it is gone at the end."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.mkdir()
    try:
        for name, content in files.items():
            (aside / name).write_bytes(content)
        durable.sync([*aside.iterdir(), aside])
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
