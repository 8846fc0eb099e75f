"""What a run keeps when versions that the catalog names are lost, as a power cut takes them.

Each table goes back to its newest version that is whole; then all are cut to the images that every one of
them has, in the order of their rows. So a version that is missing loses nothing where a newer one, as a
compaction makes it, proves to hold the rows of all the catalog's images.

A power cut takes what was written in the moments before it. Where images would go that were stored longer
before the run's last commit, something else is the matter, and nothing is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from kvstore import pins
from kvstore.errors import StoreError
from kvstore.outside import told
from kvstore.vectors import schema as tables
from kvstore.vectors import whole, without, write

_OF_TEXTS = (tables.TEXT_CHECKSUM, *tables.TEXTS)
#: Seconds before a run's last commit in which all was written that a power cut can have taken.
RECENT = 600.0


@dataclass(frozen=True)
class Promised:
    """What the catalog says of a run: the versions of its tables, and the patches of its images."""

    run_id: str
    versions: Mapping[str, int]
    shape: tables.Shape
    patches: Mapping[int, int]

    def rows(self, kind: str, patches: int) -> int:
        """Rows of an image of so many patches in a table."""
        blocks = len(self.shape.layers) * self.shape.heads
        return tables.rows_in(kind, patches, blocks, len(self.shape.encoder_layers))


@dataclass(frozen=True)
class Salvaged:
    """The versions to note, and the images that must be made again; `why` names the first file lost."""

    versions: dict[str, int]
    gone: list[int]
    why: str


def complaints(lance_dir: Path, promised: Promised) -> dict[str, str]:
    """Why the versions that the catalog names are not whole, by table; empty when all are."""
    found = {}
    for kind, version in promised.versions.items():
        if kind != tables.KEY_MOMENT:  # made of the others, and made again where it is lost
            path = tables.location(lance_dir, promised.run_id, kind)
            why = whole.complaint(path, version) or _length(path, kind, version, promised)
            if why:
                found[kind] = why
    return found


def _length(path: Path, kind: str, version: int, promised: Promised) -> str:
    if kind not in (tables.PATCH_SPAN, *tables.PUBLIC):
        return ""
    there = whole.opened(path, version).count_rows()
    due = sum(promised.rows(kind, patches) for patches in promised.patches.values())
    return "" if there == due else f"it has {there} rows of {due}"


def salvage(lance_dir: Path, promised: Promised, lost: Mapping[str, str]) -> Salvaged:
    """Bring a run that is held back to what is whole; `lost` are its `complaints`.

    Raises `StoreError`, and changes nothing, where that would cost images that no power cut can have taken.
    """
    kinds = [kind for kind in promised.versions if kind != tables.KEY_MOMENT]
    paths = {kind: tables.location(lance_dir, promised.run_id, kind) for kind in kinds}
    base = {kind: _base(path, promised.versions[kind], lost.get(kind)) for kind, path in paths.items()}
    if tables.TEXT_CHECKSUM in lost:
        base |= {kind: None for kind in kinds if kind in _OF_TEXTS}
    kind, why = next(iter(lost.items()))
    images = {kind: path for kind, path in paths.items() if kind in tables.OF_IMAGES}
    with told(f"run '{promised.run_id}' cannot be brought back to what is whole", kind=StoreError):
        order = _kept(images, base, promised, lost)
        gone = sorted(promised.patches.keys() - order)
        if gone and not _recent(images, gone):
            raise StoreError(
                f"{kind} of run '{promised.run_id}' is broken: {why}, and no power cut at its last commit can"
                f" have done that; see kvstore check --deep, then kvstore repair {promised.run_id}"
            )
        for each in kinds:
            _go_back(lance_dir, promised, each, base[each], order)
        versions = write.settled(lance_dir, promised.run_id, kinds)
    return Salvaged(versions, gone, f"{kind}: {why}")


def _base(path: Path, named: int, lost: str | None) -> int | None:
    """The version to go back to: the one that the catalog names, or the newest that is whole."""
    if lost is None:
        return named
    return next((version for version in pins.versions(path) if not whole.complaint(path, version)), None)


def _kept(
    paths: Mapping[str, Path], base: Mapping[str, int | None], promised: Promised, lost: Mapping[str, str]
) -> dict[int, int]:
    """The images that every table has in its base, in the order of their rows, and their patches."""
    if any(base[kind] is None for kind in paths):
        return {}
    opened = {kind: whole.opened(path, base[kind] or 0) for kind, path in paths.items()}
    spans = opened[tables.PATCH_SPAN].to_table().to_pydict()
    found = zip(spans["image_id"], spans["patches"], strict=True)
    order = list(takewhile(lambda row: promised.patches.get(row[0]) == row[1], found))
    for kind, dataset in opened.items():
        if kind in tables.PUBLIC:
            order = order[: _whole_images(dataset, [promised.rows(kind, n) for _, n in order], order)]
    if tables.CHECKSUM in lost:
        summed = set(opened[tables.CHECKSUM].to_table(columns=["image_id"])["image_id"].to_pylist())
        last = max((at for at, (image, _) in enumerate(order) if image in summed), default=-1)
        order = order[: last + 1]
    return dict(order)


def _whole_images(dataset: Any, rows: Sequence[int], order: Sequence[tuple[int, int]]) -> int:
    """How many of the images lie at a table's beginning, each with all its rows."""
    ends = [end for end in accumulate(rows) if end <= dataset.count_rows()]
    if not ends:
        return 0
    at = [place for end, count in zip(ends, rows, strict=False) for place in (end - count, end - 1)]
    ids = dataset.take(at, columns=["image_id"])["image_id"].to_pylist()
    pairs = zip(ids[::2], ids[1::2], order, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1] == pair[2][0], pairs))


def _recent(paths: Mapping[str, Path], gone: Sequence[int]) -> bool:
    """Whether none of the images was stored long before the last commit, as far as one can see."""
    written = [file.stat().st_mtime for path in paths.values() for file in path.glob("_versions/*.manifest")]
    spans = paths[tables.PATCH_SPAN]
    for version in pins.versions(spans):
        manifest = spans / pins.manifest(version)
        if manifest.stat().st_mtime < max(written) - RECENT and not whole.complaint(spans, version):
            old = whole.opened(spans, version).to_table(columns=["image_id"])["image_id"].to_pylist()
            return not set(old) & set(gone)
    return any(1 in pins.versions(path) for path in paths.values())


def _go_back(
    lance_dir: Path, promised: Promised, kind: str, base: int | None, order: Mapping[int, int]
) -> None:
    """One table as of its base, cut to the images that stay; one without a base goes, and is made anew."""
    if not _restore(lance_dir, promised.run_id, kind, base):
        return
    path = tables.location(lance_dir, promised.run_id, kind)
    table = whole.opened(path, pins.versions(path)[0])
    if kind == tables.CHECKSUM:
        sums = table.to_table()
        stay = [image in order for image in sums["image_id"].to_pylist()]
        if not all(stay):
            write.replace(path, sums.filter(stay))
    elif kind in tables.OF_IMAGES:
        there, due = table.count_rows(), sum(promised.rows(kind, patches) for patches in order.values())
        if there != due:
            without.keep(path, [((0, due), True), ((due, there), False)])


def _restore(lance_dir: Path, run_id: str, kind: str, base: int | None) -> bool:
    """Make a version the newest; False where there is none, and the table is gone."""
    if base is None:
        write.remove(lance_dir, run_id, kind)
        return False
    write.restore(tables.location(lance_dir, run_id, kind), base)
    pins.remove_lost(lance_dir, run_id, kind)
    return True


def salvage_texts(lance_dir: Path, run_id: str) -> None:
    """Bring tables of texts back to their newest version that is whole: what they lack is made again.

    Where their checksums are lost, all go.
    """
    paths = {kind: tables.location(lance_dir, run_id, kind) for kind in _OF_TEXTS}
    lost = [kind for kind, path in paths.items() if path.is_dir() and whole.newest(path) is None]
    for kind in _OF_TEXTS if tables.TEXT_CHECKSUM in lost else lost:
        unsummed = tables.TEXT_CHECKSUM in lost
        _restore(lance_dir, run_id, kind, None if unsummed else _base(paths[kind], 0, "lost"))
