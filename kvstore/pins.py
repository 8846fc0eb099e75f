"""Pins: a Lance table as of one version, in a folder of its own that opens as a table.

DuckDB's `lance` extension scans a table's newest version and no other, but the catalog names a version of
each table, and Lance commits first. So a publish pins the versions that it names: a folder
`lance/at/<run>.<kind>.<version>.lance` holds that version's manifest, and links to the table's files. Views
and readers open the pin: whatever is committed later, they see the vectors of the images that their catalog
has. The links are relative, so that a store can be moved. Where links cannot be made, the table itself is
opened.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from kvstore import durable, seals
from kvstore.errors import StoreError
from kvstore.lines import shortened
from kvstore.names import unfit

#: Folder of the pins, below the Lance tables.
FOLDER = "at"
_LINKED = ("data", "_indices", "_deletions")
_LAST = 2**64 - 1  # Lance names manifests by version, counted down from here


def table(run_id: str, kind: str) -> str:
    """The folder of a run's Lance table, below the Lance tables; `StoreError` for names that leave them."""
    return _fit(f"{run_id}.{kind}.lance")


def folder(run_id: str, kind: str, version: int) -> str:
    """The pin of a version of a run's table, below the Lance tables; `StoreError` as of `table`."""
    return f"{FOLDER}/{_fit(f'{run_id}.{kind}.{version}.lance')}"


def _fit(name: str) -> str:
    """A folder's name made of the catalog's, which may be anything in a store that somebody sent."""
    if why := unfit(name):
        raise StoreError(f"the catalog names a table {shortened(name, 90)!r}, which can be no folder: {why}")
    return name


def manifest(version: int) -> str:
    """The file in a table's folder that says what a version is."""
    return f"_versions/{_LAST - version}.manifest"


def versions(home: Path) -> list[int]:
    """The versions that a table's folder has a manifest of, whole or not, the newest first."""
    names = [path.stem for path in home.glob("_versions/*.manifest")]
    return sorted((_LAST - int(name) for name in names if name.isdecimal()), reverse=True)


def pin(lance: Path, run_id: str, kind: str, version: int, made: list[Path]) -> str:
    """Pin a version if need be; what to open, below `lance`: where that cannot be done, the table itself.

    A pin that is made is added to `made`, to be brought to the disk with others (`sync`).
    """
    theirs = versioned(lance, run_id, kind, version)
    ours = lance / folder(run_id, kind, version) / manifest(version)
    if _same(ours, theirs):
        return folder(run_id, kind, version)
    if not theirs.is_file():  # cleaned up since: a pin that was made in time still has it
        return folder(run_id, kind, version) if ours.is_file() else table(run_id, kind)
    try:
        _make(ours, theirs, table(run_id, kind))
    except OSError:
        return table(run_id, kind)
    made.append(ours.parents[1])
    return folder(run_id, kind, version)


def sync(made: Iterable[Path]) -> None:
    """Wait until pins that were made are on disk."""
    for_each = ((home, *home.glob("_versions"), *home.glob("*.json"), *home.parents[:2]) for home in made)
    durable.sync(path for paths in for_each for path in paths)


def at(lance: Path, run_id: str, kind: str, version: int) -> str:
    """What to open of a version, below `lance`, as things are: its pin, or the table where there is none.

    Not a table that lost the version and has none after it: its newest may have fewer rows.
    """
    unpinned = find(lance, run_id, kind, version) is None
    has_it = unpinned and newest(lance, run_id, kind) >= version
    return table(run_id, kind) if has_it else folder(run_id, kind, version)


def newest(lance: Path, run_id: str, kind: str) -> int:
    """The newest version that a run's table has a manifest of; 0 where it has none."""
    return next(iter(versions(lance / table(run_id, kind))), 0)


def is_pin(path: str) -> bool:
    """Whether what `at` or `pin` said to open is a pin."""
    return path.startswith(f"{FOLDER}/")


def find(lance: Path, run_id: str, kind: str, version: int) -> Path | None:
    """The pin of a version, if there is one."""
    found = lance / folder(run_id, kind, version)
    return found if (found / manifest(version)).is_file() else None


def files(lance: Path, run_id: str, kind: str, version: int) -> tuple[Path, list[Path]]:
    """The manifest of a version, and the other files that it needs, below the folder of its table.

    Raises `FileNotFoundError` for a version that is gone, `StoreError` for one whose manifest is broken.
    """
    home = lance / table(run_id, kind)
    if link := next((home / part for part in _LINKED if (home / part).is_symlink()), None):
        raise StoreError(f"{link} is a link; put the folder that it leads to in its place")
    said = (find(lance, run_id, kind, version) or home) / manifest(version)
    try:
        data, indices = seals.named(said.read_bytes())
    except ValueError as error:
        raise StoreError(f"{said} is not what was stored ({error}); kvstore repair {run_id}") from error
    found = [home / "data" / _fit(name) for name in data]
    for part in (*(f"_indices/{uuid}" for uuid in indices), "_deletions"):
        found += [path for path in sorted((home / part).rglob("*")) if path.is_file()]
    return said, found


def versioned(lance: Path, run_id: str, kind: str, version: int) -> Path:
    """Where a table has the manifest of a version."""
    return lance / table(run_id, kind) / manifest(version)


def remove(lance: Path, run_id: str, kind: str | None = None) -> None:
    """Remove the pins of a run, or of one of its tables."""
    for name, path in _pins(lance):
        if name[0] == run_id and kind in (None, name[1]):
            shutil.rmtree(path, ignore_errors=True)


def pinned(lance: Path, run_id: str, kind: str) -> set[int]:
    """The versions of a run's table that are pinned."""
    home = lance / table(run_id, kind)
    found = {name[2]: path for name, path in _pins(lance) if name[:2] == (run_id, kind)}
    return {
        version
        for version, path in found.items()
        if (theirs := home / manifest(version)).is_file() and _is(path / manifest(version), theirs)
    }


def remove_lost(lance: Path, run_id: str, kind: str) -> None:
    """Remove the pins of versions that a table has not, or no longer under their number."""
    sound = pinned(lance, run_id, kind)
    for name, path in _pins(lance):
        if name[:2] == (run_id, kind) and name[2] not in sound:
            shutil.rmtree(path, ignore_errors=True)


def clean(lance: Path, run_id: str, kind: str, keep: timedelta) -> None:
    """Remove the pins of a table that a later one replaced longer than `keep` ago."""
    found = sorted((name[2], path) for name, path in _pins(lance) if name[:2] == (run_id, kind))
    until = (datetime.now() - keep).timestamp()
    for (_, path), (_, follower) in pairwise(found):
        if follower.stat().st_mtime < until:
            shutil.rmtree(path, ignore_errors=True)


def _same(ours: Path, theirs: Path) -> bool:
    """Whether a pin is whole and of this manifest, not of one that a removed table had under the number.

    Where the table's own manifest is broken or gone, a pin whose seal holds is better than it.
    """
    home = ours.parents[1]
    if not ours.is_file() or not all((home / part).is_symlink() for part in _LINKED):
        return False
    if theirs.is_file() and _is(ours, theirs):
        return True
    return seals.fault(home) == ""


def _is(ours: Path, theirs: Path) -> bool:
    """Whether a pin's manifest is the table's."""
    return ours.is_file() and (ours.samefile(theirs) or ours.read_bytes() == theirs.read_bytes())


def _make(ours: Path, theirs: Path, name: str) -> None:
    home = ours.parents[1]
    if home.parent.is_symlink():
        raise FileExistsError(f"{home.parent} is a link: what is made there would lie elsewhere")
    shutil.rmtree(home, ignore_errors=True)
    ours.parent.mkdir(parents=True)
    for part in _LINKED:
        (home / part).symlink_to(f"../../{name}/{part}")
    try:  # the manifest last: a pin is whole when it has one
        os.link(theirs, ours)
    except OSError:
        shutil.copyfile(theirs, ours)
    with suppress(OSError, ValueError):  # of what is broken by now nothing is promised: it has no seal
        seals.seal(home, ours)


def _pins(lance: Path) -> Iterator[tuple[tuple[str, str, int], Path]]:
    for path in (lance / FOLDER).glob("*.lance"):
        parts = re.fullmatch(r"(.+)\.(\w+)\.(\d+)\.lance", path.name)
        if parts:
            yield (parts[1], parts[2], int(parts[3])), path
