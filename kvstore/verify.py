"""`kvstore check --deep`: is every stored row what was written? Reads all of a run's tables.

Each image's rows of each table are held to their checksum, the tables' lengths and the images' places to the
catalog, and what the zone map finds of an image to what is there. A process of its own reads: what broken
files do to Lance, an abort included, ends the reading of one part, and another process goes on with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lance

from kvstore import apart, vectors
from kvstore.errors import KvstoreError
from kvstore.lines import shortened
from kvstore.outside import told
from kvstore.vectors import schema as tables
from kvstore.vectors.checksums import checksum, of_texts, of_values


@dataclass(frozen=True)
class Broken:
    """An image's rows of one table, or with no image the table, that are not what was stored, and why."""

    kind: str
    image_id: int | None
    why: str


@dataclass(frozen=True)
class Verdict:
    """What was found of a run: its images, how many rows of tables have no checksum, and what is broken."""

    run_id: str
    images: int
    unsummed: int = 0
    broken: tuple[Broken, ...] = ()

    @property
    def broken_images(self) -> list[int]:
        """The images of which something is broken, in order."""
        return sorted({part.image_id for part in self.broken if part.image_id is not None})

    @property
    def first(self) -> str:
        """Where the first broken part is, why, and the way out; empty where nothing is broken."""
        if not self.broken:
            return ""
        part = self.broken[0]
        where = part.kind if part.image_id is None else f"image {part.image_id} in {part.kind}"
        remedy = f"; kvstore repair {self.run_id}"
        return f"{where}: {part.why.removesuffix(remedy)}{remedy}"

    @property
    def doubt(self) -> str:
        """What cannot be told of the run, in a line; empty where all has checksums."""
        if not self.unsummed:
            return ""
        untold = "were stored before kvstore kept checksums: whether they are what was stored cannot be told"
        return f"run {self.run_id}: {self.unsummed} blocks of rows {untold}"


@dataclass
class Task:
    """What to read: a run's tables as of `versions`; `patches` are the catalog's, by image."""

    lance: Path
    run_id: str
    versions: Mapping[str, int]
    patches: Mapping[int, int]
    first: int = 0  # parts before this one are done
    unsummed: int = 0
    broken: list[Broken] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """The tables of images that the run has."""
        return [kind for kind in (tables.PATCH_SPAN, *tables.PUBLIC) if kind in self.versions]

    @property
    def parts(self) -> int:
        """How many there are to read, about: one for each image and table."""
        return len(self.patches) * len(self.kinds)


def verify(task: Task, advance: Callable[[int], None] = lambda count: None) -> Verdict:
    """Read all that the run has, by processes of their own; `advance` is told of parts as they are done."""
    before, at = -1, Broken(tables.PATCH_SPAN, None, "")
    while before < task.first:  # else a process ended that had begun no further part: the next would, too
        before = task.first
        try:
            for message in apart.messages(read, task):
                if isinstance(message, int):
                    task.unsummed = message
                elif message.why:
                    task.broken.append(message)
                else:
                    at = message
                    task.first += 1
                    advance(1)
            break
        except apart.EndedError as ended:
            rest = "" if before < task.first else "; what comes after it is not read"
            image_id = at.image_id if before < task.first else None
            task.broken.append(Broken(at.kind, image_id, f"reading it ended the process {ended}{rest}"))
    return Verdict(task.run_id, len(task.patches), task.unsummed, tuple(task.broken))


# ------------------------------------------------------------------------------- in the other process

#: The first parts, the images' places and the checksums, are what all others are held to.
_GROUND = 2


def read(task: Task) -> Iterator[Broken | int]:
    """Each part that is not done yet, with no reason as it is begun and with one where it is broken.

    At the end the number of parts that have no checksum.
    """
    parts = _Parts(task)
    for number, (kind, image_id, look) in enumerate(parts):
        new = number >= task.first
        if new:
            yield Broken(kind, image_id, "")
        why = _looked(look) if new or number < _GROUND else ""
        if why and new:
            yield Broken(kind, image_id, why)
    yield parts.unsummed


def _looked(look: Callable[[], str]) -> str:
    try:
        with told("it cannot be read"):
            return look()
    except KvstoreError as error:
        return str(error)


def _by_index(dataset: Any, image_id: int) -> int | None:
    """How many rows the index finds of an image; None where it is broken."""
    try:
        return int(dataset.count_rows(filter=f"image_id = {image_id}"))
    except Exception:
        return None


Part = tuple[str, int | None, Callable[[], str]]


class _Parts:
    """The parts of a run in a fixed order, each with what looks at it and says what is wrong."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.unsummed = 0
        self.reader: Any = None
        self.sums: dict[tuple[int, str], int] = {}

    def __iter__(self) -> Iterator[Part]:
        yield tables.PATCH_SPAN, None, self._spans
        if self.reader is None:
            return
        yield tables.CHECKSUM, None, self._read_sums
        for kind in tables.TEXTS:
            if kind in self.task.versions:
                yield kind, None, lambda kind=kind: self._texts(kind)  # type: ignore[misc]
        yield tables.KEY_MOMENT, None, self._moments
        for kind in self.task.kinds:
            dataset = self._open(kind)
            yield kind, None, lambda kind=kind, dataset=dataset: self._whole(kind, dataset)  # type: ignore[misc]
            if dataset is None:
                continue
            first = 0
            for image_id, (_, patches) in self.reader.spans.items():
                rows = self.reader.rows_in(kind, patches)
                yield kind, image_id, self._image(kind, dataset, image_id, first, rows)
                first += rows

    def _dataset(self, kind: str) -> Any:
        return vectors.opened(self.task.lance, self.task.run_id, kind, self.task.versions, whole=False)

    def _open(self, kind: str) -> Any:
        try:
            return self._dataset(kind)
        except Exception:
            return None

    def _spans(self) -> str:
        """The spans are those of the catalog's images, one after another."""
        self.reader = vectors.Reader(self.task.lance, self.task.run_id, self.task.versions)
        first = 0
        for image_id, (start, patches) in self.reader.spans.items():
            if start != first or patches != self.task.patches.get(image_id):
                return (
                    f"image {image_id} has {patches} patches from {start} on, which the catalog does not say"
                )
            first += patches
        missing = self.task.patches.keys() - self.reader.spans.keys()
        return f"it lacks image {min(missing)} of the catalog" if missing else ""

    def _read_sums(self) -> str:
        if tables.CHECKSUM not in self.task.versions:
            return ""
        dataset = self._open(tables.CHECKSUM)
        if dataset is None:
            return "it cannot be opened"
        found = dataset.to_table().to_pydict()
        self.sums = dict(zip(zip(found["image_id"], found["kind"], strict=True), found["sum"], strict=True))
        return ""

    def _texts(self, kind: str) -> str:
        """Each text's rows are held to its checksum."""
        sums = {}
        if tables.TEXT_CHECKSUM in self.task.versions:
            found = self._dataset(tables.TEXT_CHECKSUM).to_table().to_pylist()
            sums = {row["text"]: row["sum"] for row in found if row["kind"] == kind}
        for text, number in of_texts(self._dataset(kind).to_batches()):
            self.unsummed += text not in sums
            if sums.get(text, number) != number:
                return f"its rows of text '{shortened(text, 60)}' differ from those that were stored"
        return ""

    def _moments(self) -> str:
        """The sums that key statistics are made of are held to their checksum; an older kvstore kept none."""
        path = tables.location(self.task.lance, self.task.run_id, tables.KEY_MOMENT)
        rows = lance.dataset(str(path)).to_table().to_pylist() if path.is_dir() else []
        broken = any(row.pop("sum") != of_values(row) for row in rows if row.get("sum") is not None)
        return "it differs from what was stored" if broken else ""

    def _whole(self, kind: str, dataset: Any) -> str:
        if dataset is None:
            return "it cannot be opened"
        there = sum(fragment.count_rows() for fragment in dataset.get_fragments())
        due = sum(self.reader.rows_in(kind, patches) for _, patches in self.reader.spans.values())
        return "" if there == due else f"it has {there} rows, and its images {due}"

    def _image(self, kind: str, dataset: Any, image_id: int, first: int, rows: int) -> Callable[[], str]:
        due = self.sums.get((image_id, kind))
        self.unsummed += due is None

        def look() -> str:
            table = dataset.to_table(offset=first, limit=rows)
            if due is not None and checksum(table) != due:
                return "its rows differ from those that were stored"
            if kind in tables.PUBLIC and _by_index(dataset, image_id) != rows:
                return "its index on image_id does not find its rows"
            return ""

        return look
