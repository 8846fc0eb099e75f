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

from kvstore.errors import StoreBusyError, StoreError

_WAIT = 30.0  # seconds that a second builder waits for the first


class Published:
    """The folder of built reports of one store."""

    def __init__(self, store: Path) -> None:
        self.root = store / "reports"
        self._lock = self.root / ".lock"

    @contextmanager
    def builder(self) -> Iterator[None]:
        """One builder at a time; `StoreBusyError` after half a minute, `StoreError` if it cannot write."""
        from filelock import FileLock, Timeout

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._lock, timeout=_WAIT)
            lock.acquire()
        except Timeout as error:
            raise StoreBusyError(
                f"another process builds reports in {self.root.parent}; try again"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot write reports into {self.root}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

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
        folder = self.folder(name, record["key"])
        aside = folder.with_name(f".{record['key']}.{os.getpid()}.tmp")
        aside.mkdir(parents=True)
        try:
            for file, content in files.items():
                (aside / file).write_bytes(content)
            if folder.exists():  # left by a build that was killed before its record
                shutil.rmtree(folder)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        replace(self.page(name), page)
        replace(self.root / name / "build.json", json.dumps(record, indent=1).encode())
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
    """Write aside, flush to disk, rename."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
