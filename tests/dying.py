"""Readers that die as Lance does over a broken file, for tests; another process finds them by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kvstore import check, optimizing, verify
from kvstore.errors import NoSpaceError

AT = "patch_kv_complete"
#: The part of a run at which reading dies.
PART = ("patch_kv", 1)
_checks, _parts, _work = check.read, verify.read, optimizing.work


def checks(catalog: Path, lance: Path, files: Mapping[str, Path]) -> Iterator[check.Finding]:
    """All checks before `AT` are made; it aborts."""
    before = {name: path for name, path in files.items() if name < AT} if AT in files else files
    yield from _checks(catalog, lance, before)
    if AT in files:
        os.abort()


def parts(task: verify.Task) -> Iterator[verify.Broken | int]:
    """Reading is as it is, but for `PART`: it aborts."""
    for message in _parts(task):
        yield message
        if isinstance(message, verify.Broken) and (message.kind, message.image_id) == PART:
            os.abort()


def nothing(task: verify.Task) -> Iterator[verify.Broken | int]:
    """It aborts before the first part."""
    os.abort()
    yield 0


def runs(root: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Run 'a' aborts, as DuckDB may on a full disk; the others are optimized."""
    for name in names:
        if name == "a":
            os.abort()
        yield from _work(root, [name])


def full(root: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The disk is full at the second run."""
    yield names[0], "optimized"
    raise NoSpaceError("no space left on the disk")
