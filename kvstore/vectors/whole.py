"""Which versions of a Lance table are whole: the manifest can be read, and every file that it names is there.

This looks at names, lengths and the last bytes of files, as a power cut leaves them wrong. What else a disk
can do to a file is for the checksums to find (`kvstore.verify`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance

from kvstore import pins
from kvstore.errors import StoreError
from kvstore.outside import told

#: What manifests, data files and indices end with.
_MAGIC = b"LANC"


def newest(path: Path) -> Any | None:
    """A table as of its newest version; None where that is not whole, or there is no table."""
    found = pins.versions(path)
    return opened(path, found[0]) if found and not complaint(path, found[0]) else None


def torn(path: Path) -> list[Path]:
    """The manifests of a table that are cut short."""
    return [
        file for version in pins.versions(path) if _complaint(file := path / pins.manifest(version), None)
    ]


def complaint(path: Path, version: int) -> str:
    """Why a version of a table is not whole, in a few words that name the file; empty when it is."""
    try:
        needed = files(path, opened(path, version))
    except StoreError as error:
        return str(error)
    return next((why for file, size in needed.items() if (why := _complaint(file, size))), "")


def opened(path: Path, version: int) -> Any:
    """A table as of a version; `StoreError` when the manifest is missing or cannot be read."""
    manifest = path / pins.manifest(version)
    if why := _complaint(manifest, None):
        raise StoreError(why)
    with told(f"{manifest.name} cannot be read", kind=StoreError):
        dataset = lance.dataset(str(path), version=version)
        dataset.schema  # noqa: B018  else read when it is first needed
    if dataset.version != version:
        raise StoreError(f"{manifest.name} is of version {dataset.version}")
    return dataset


def files(path: Path, dataset: Any) -> dict[Path, int | None]:
    """The data files and indices that a version names, with their bytes where it says so."""
    found: dict[Path, int | None] = {
        path / "data" / file.path: file.file_size_bytes
        for fragment in dataset.get_fragments()
        for file in fragment.metadata.files
    }
    for index in dataset.describe_indices():
        for segment in index.segments:
            folder = path / "_indices" / str(segment.uuid)
            inside = [file for file in folder.glob("*") if file.is_file()]
            if len(inside) == 1:
                found[inside[0]] = segment.size_bytes
            else:
                found |= dict.fromkeys(inside or [folder / "zonemap.lance"])
    return found


def _complaint(file: Path, size: int | None) -> str:
    """Why a file is not what was written: not there, of another length than `size`, or without its end."""
    try:
        with file.open("rb") as opened_file:
            there = opened_file.seek(0, 2)
            opened_file.seek(max(0, there - len(_MAGIC)))
            end = opened_file.read()
    except FileNotFoundError:
        return f"{file.name} is missing"
    if size and there != size:
        return f"{file.name} has {there} of {size} bytes"
    return "" if end == _MAGIC else f"{file.name} is cut short"
