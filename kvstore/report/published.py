"""What is published under ``<store>/reports``: builds, pages, and the record of the last failure.

reports/index.html
reports/<name>.html             the page of the last good build, on its own
reports/<name>/build.json       which build that is, and what it read; renamed into place last
reports/<name>/failure.json     the last attempt, when it failed
reports/<name>/<key>/           page.html, <chart>.png, <analysis>.parquet
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvstore import disk, interrupts, locks


class Published:
    """The folder of built reports of one store."""

    def __init__(self, store: Path) -> None:
        self.root = store / "reports"
        self._lock = store / "locks" / "reports.lock"

    @contextmanager
    def builder(self) -> Iterator[None]:
        """One builder at a time; who comes later waits as long as builders come and go.

        Raises `StoreBusyError` when one builds for long, `StoreError` for a folder that cannot be written,
        `NoSpaceError` for a full disk.
        """
        with disk.errors(self.root.parent):
            self.root.mkdir(parents=True, exist_ok=True)
            with locks.hold(self._lock, f"the folder {self.root}", locks.PATIENCE):
                yield

    def build(self, name: str) -> dict[str, Any] | None:
        """The last good build, or None; a build whose files are gone counts as none."""
        record = _read(self.root / name / "build.json")
        if record is None or not (self.page(name).is_file() and self.folder(name, record["key"]).is_dir()):
            return None
        return record

    def failure(self, name: str) -> dict[str, Any] | None:
        """The last attempt when it failed, else None."""
        return _read(self.root / name / "failure.json")

    def page(self, name: str) -> Path:
        """``<name>.html``."""
        return self.root / f"{name}.html"

    def folder(self, name: str, key: str) -> Path:
        """Where a build's files lie."""
        return self.root / name / key

    def publish(self, name: str, record: dict[str, Any], files: dict[str, bytes], page: bytes) -> None:
        """Put a whole build in place; whoever reads meanwhile sees the last build or this one."""
        folder, told = self.folder(name, record["key"]), json.dumps(record, indent=1).encode()
        folder.parent.mkdir(exist_ok=True)
        # All is on disk before the first is put in place: a disk that fills up leaves the last build whole.
        with (
            interrupts.shielded(),
            _folder(folder, files) as folder_aside,
            _file(self.page(name), page) as page_aside,
            _file(self.root / name / "build.json", told) as record_aside,
        ):
            if folder.exists():  # left by a build that was killed before its record
                shutil.rmtree(folder)
            folder_aside.rename(folder)
            page_aside.replace(self.page(name))
            record_aside.replace(self.root / name / "build.json")
        self.forgive(name)
        self._sweep(name, record["key"])

    def fail(self, name: str, record: dict[str, Any]) -> None:
        """Keep why an attempt failed; the last good build stays."""
        (self.root / name).mkdir(exist_ok=True)
        replace(self.root / name / "failure.json", json.dumps(record, indent=1).encode())

    def forgive(self, name: str) -> None:
        """Forget the last failure."""
        (self.root / name / "failure.json").unlink(missing_ok=True)

    def _sweep(self, name: str, key: str) -> None:
        """Remove older builds and what killed builders left."""
        for entry in (self.root / name).iterdir():
            if entry.is_dir() and entry.name != key:
                shutil.rmtree(entry, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def replace(path: Path, content: bytes) -> None:
    """Write aside, flush to disk, rename; after an error nothing is left aside."""
    with interrupts.shielded(), _file(path, content) as aside:
        aside.replace(path)


@contextmanager
def _file(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` with this content, on disk; it is gone at the end."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
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
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
