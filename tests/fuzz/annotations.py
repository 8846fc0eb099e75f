"""Replaces each field of each small annotation file by what it cannot be, and loads the data set.

    python -m tests.fuzz.annotations [--drawn] [--sample N] [--seed S] [DATASET ...]

The files are exports of `shapes`, and real samples where they are (`tests/samples.py`). What must hold:
the load ends well or with a `KvstoreError` of one line, what it tells is a few lines of at most 300
characters, and an object, mask, keypoint, caption, expression, pair or frame that is there no more, or twice,
is told by a note or by its image's place in quarantine.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import duckdb

from kvstore import datasets, recipes, warehouse
from kvstore.contracts import Grid, Layout, Note
from kvstore.errors import KvstoreError
from kvstore.export import export
from kvstore.lines import LINE
from kvstore.notes import told
from kvstore.prefill import annotate
from kvstore.prefill.survey import Seen, survey

LONG = "x" * 100_000
#: What a field becomes; `GONE` takes it away.
GONE = object()
VALUES: dict[str, Any] = {
    "null": None,
    "text": "text",
    "list": [],
    "object": {},
    "-1": -1,
    "1e400": float("inf"),
    "NaN": float("nan"),
    "surrogate": "\ud83d",
    "long": LONG,
    "true": True,
    "nothing": GONE,
}
#: Data set -> splits of `shapes` whose exports it reads.
EXPORTS = {
    "coco": "test",
    "spair71k": "test",
    "refcoco": "test",
    "davis2017": "clips",
    "pascal5i": "test",
    "imagenet_s": "test",
    "msrc": "test",
}
#: Real samples: folder -> data set.
SAMPLES = {"coco": "coco", "SPair-71k": "spair71k", "DAVIS": "davis2017"}
TABLES = ("object", "keypoint", "caption", "expression", "void", "pair", "pair_keypoint", "frame", "category")


@dataclass(frozen=True)
class World:
    """A data set's folder to break things in, and what of it is in the catalog when nothing is broken."""

    name: str
    root: Path
    split: str | None
    whole: Counter[str]


@dataclass(frozen=True)
class Case:
    """One field of one file, and what it becomes."""

    world: World
    file: Path
    path: tuple[Any, ...]
    value: str

    def __str__(self) -> str:
        place = "/".join(map(str, self.path))
        return f"{self.world.name} {self.file.relative_to(self.world.root)} {place} = {self.value}"


# --------------------------------------------------------------------------------------- worlds and cases


def worlds(folder: Path, names: list[str], *, real: bool) -> Iterator[World]:
    """Small data sets, each in a folder of its own below `folder`."""
    for name, split in EXPORTS.items():
        if not names or name in names:
            export("shapes", name, folder / name, split=split, limit=3)
            yield _world(name, folder / name)
    samples = Path(os.environ.get("KVSTORE_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    for sample, name in SAMPLES.items() if real else ():
        if (samples / sample).is_dir() and (not names or name in names):
            shutil.copytree(samples / sample, folder / f"real-{sample}")
            yield _world(name, folder / f"real-{sample}")


def _world(name: str, root: Path) -> World:
    """With the first split of the recipe that has anything in `root`."""
    said: KvstoreError | None = None
    for split in recipes.load("ingest/datasets", name).SPLITS or (None,):
        try:
            return World(name, root, split, loaded(World(name, root, split, Counter())).counts)
        except KvstoreError as error:
            said = error
    raise said or KvstoreError(f"{name} has no split")


def cases(world: World) -> Iterator[Case]:
    """Every field of every file that is not an image."""
    for file in sorted(path for path in world.root.rglob("*") if path.suffix in READERS):
        for path in _paths(READERS[file.suffix][0](file)):
            values = (
                VALUES
                if file.suffix in (".json", ".p")
                else [v for v in VALUES if v not in ("list", "object")]
            )
            yield from (Case(world, file, path, value) for value in values)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each value in nested ones; of a list only the first two items and the last."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list | tuple):
        for place in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from _paths(value[place], (*path, place))


def _put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    if new is GONE:
        del value[path[-1]]
    else:
        value[path[-1]] = new


# ----------------------------------------------------------------------------------------------- files


def _read_lines(file: Path) -> Any:
    return [line.split(" ") for line in file.read_text(encoding="utf-8").splitlines()]


def _write_lines(file: Path, lines: Any) -> None:
    words = (" ".join(map(_word, line)) if isinstance(line, list) else _word(line) for line in lines)
    file.write_text("".join(f"{line}\n" for line in words), encoding="utf-8", errors="surrogatepass")


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def _read_xml(file: Path) -> Any:
    tree = ElementTree.parse(file).getroot()
    return [element.text for element in tree.iter()]


def _write_xml(file: Path, texts: Any) -> None:
    root = ElementTree.parse(file).getroot()
    for element, text in zip(root.iter(), texts, strict=False):
        element.text = _word(text).encode("utf-8", "replace").decode()
    ElementTree.ElementTree(root).write(file)


Reader, Writer = Callable[[Path], Any], Callable[[Path, Any], object]
READERS: dict[str, tuple[Reader, Writer]] = {
    ".json": (
        lambda file: json.loads(file.read_text(encoding="utf-8")),
        lambda file, value: file.write_text(json.dumps(value)),
    ),
    ".p": (
        lambda file: pickle.loads(file.read_bytes()),  # noqa: S301 (made by us)
        lambda file, value: file.write_bytes(pickle.dumps(value, 2)),
    ),
    ".txt": (_read_lines, _write_lines),
    ".xml": (_read_xml, _write_xml),
}


# --------------------------------------------------------------------------------------------- loading


@dataclass(frozen=True)
class Loaded:
    """Rows of the catalog by table, whether anything was said to be missing or mended, and the lines told."""

    counts: Counter[str]
    lost: int
    mended: int
    lines: list[str]


def loaded(world: World) -> Loaded:
    """Load, look at and annotate a data set as an ingest does, into a catalog in memory."""
    dataset = datasets.load(world.name, world.root, world.split)
    datasets.fingerprint(dataset)
    seen: list[Seen] = survey(
        dataset.images, lambda size: Layout((Grid(1, 1, (0, 0, *size)),), 1), 1, lambda n: None
    )
    rows, judged = annotate.collect(dataset, seen, set())
    faults = sum(image.fault is not None for image in judged)
    ids = {image.name: number for number, image in enumerate(judged) if image.fault is None}
    rows = {table: [row for row in found if row.get("file") in (None, *ids)] for table, found in rows.items()}
    with _catalog() as con:
        con.execute(
            "insert into dataset (dataset_id, name, split, fingerprint, images)"
            " values ('set', 'set', '', '', $n)",
            {"n": len(judged)},
        )
        for place, (name, image) in enumerate(ids.items()):
            con.execute(
                "insert into dataset_image values ('set', $name, $image, $place)",
                {"name": datasets.sound(name), "image": image, "place": place},
            )
        annotate.store(con, "set", dataset, rows, ids)
        counts = Counter({table: _count(con, f"from {table}") for table in TABLES})
        counts["mask"] = _count(con, "from object where mask is not null")
        found = con.execute("select kind, place, count, lost from load_note").fetchall()
    notes = [Note(*row) for row in found]
    lost = faults + sum(note.count for note in notes if note.lost)
    return Loaded(counts, lost, sum(note.count for note in notes if not note.lost), told(notes))


@contextmanager
def _catalog() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty catalog; what is put into it goes again."""
    con = _made()
    con.begin()
    try:
        yield con
    finally:
        con.rollback()


@cache
def _made() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:")
    warehouse.create_tables(con)
    return con


def _count(con: duckdb.DuckDBPyConnection, what: str) -> int:
    return int((con.execute(f"select count(*) {what}").fetchone() or (0,))[0])


def verdict(case: Case) -> str:
    """What is wrong with how a case ends; empty when nothing is."""
    read, write = READERS[case.file.suffix]
    before = case.file.read_bytes()
    whole = read(case.file)
    broken = copy.deepcopy(whole)
    _put(broken, case.path, VALUES[case.value])
    try:
        write(case.file, broken)
        return _judged(case.world, shorter=_shorter(case, whole))
    finally:
        case.file.write_bytes(before)


def _shorter(case: Case, whole: Any) -> bool:
    """Whether what comes of it only says less, as it may have been written."""
    optional = case.file.suffix in (".txt", ".xml") or {"segmentation", "keypoints", "kps"} & {
        *case.path[-2:]
    }
    blank = bool(optional) and case.value in ("null", "nothing")
    emptied = case.value == "list" and isinstance(reduce(getitem, case.path, whole), list)
    return blank or emptied or (case.value == "nothing" and isinstance(case.path[-1], int))


def _judged(world: World, *, shorter: bool) -> str:
    try:
        found = loaded(world)
    except KvstoreError as error:
        line = str(error).replace(str(world.root), "DIR")  # the folder of a test has a long name
        return "" if len(line.splitlines()) == 1 and len(line) < LINE else f"no line: {line[:200]!r}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:120]!r} in {Path(place.filename).name}:{place.lineno}"
    if any(len(line) > LINE or not line.isprintable() for line in found.lines):
        return f"lines too long: {[len(line) for line in found.lines]}"
    lacks, more = world.whole - found.counts, found.counts - world.whole
    if lacks and not found.lost and not shorter:
        return f"lost without a word: {dict(lacks)}"
    return f"more than there is: {dict(more)}" if more and not found.mended + found.lost else ""


def tried(
    folder: Path, names: list[str], sample: int | None, seed: int, *, real: bool
) -> Iterator[tuple[Case, str]]:
    """Each case, or a random sample of them, with its verdict."""
    found = [case for world in worlds(folder, names, real=real) for case in cases(world)]
    chosen = random.Random(seed).sample(found, min(sample, len(found))) if sample else found
    for case in chosen:
        yield case, verdict(case)


def main() -> int:
    """Try all; print what is wrong, by kind; 1 when anything is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", help=f"of {', '.join(EXPORTS)}; default all")
    parser.add_argument("--sample", type=int, help="only so many, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drawn", action="store_true", help="exports of shapes alone, no real samples")
    asked = parser.parse_args()
    count, wrong = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for case, told_ in tried(
            Path(folder), asked.datasets, asked.sample, asked.seed, real=not asked.drawn
        ):
            count += 1
            if told_:
                wrong += 1
                print(f"{case}: {told_}", flush=True)
    print(f"{count} tried, {wrong} wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
