"""Breaks each file of small data sets in each of many ways, one at a time, and loads them.

    python -m tests.fuzz.annotations [--drawn] [--sample N] [--seed S] [--skip N] [DATASET ...]

Each value of an annotation file is replaced by what it cannot be, each file is cut, emptied or taken away,
each map redrawn (`tests/fuzz/breaking.py`), in exports of `shapes` and in real samples
(`tests/fuzz/worlds.py`). What must hold: the load ends well or with a `KvstoreError` of one line, in seconds;
what it tells is a few lines of at most 300 characters; and an object, mask, keypoint, caption, expression,
pair or frame that is there no more, or twice, is told by a note or by its image's place in quarantine.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kvstore.errors import KvstoreError
from kvstore.lines import LINE
from tests.fuzz import breaking
from tests.fuzz.loading import Loaded, loaded
from tests.fuzz.worlds import DRAWN, REAL, World, worlds

#: Files that a data set may lack: then what they would say is not said.
OPTIONAL = (
    "captions_val2017.json",
    "person_keypoints_val2017.json",
    "refcocos_test.json",
    "classes.txt",
)
#: Keys whose value may be left out or empty: then an object has no mask, or no keypoints.
MAY_LACK = {"segmentation", "keypoints", "kps"}
#: Seconds in which a load of three images ends, however busy the machine is.
PATIENCE = 20


@dataclass(frozen=True)
class Case:
    """One value of one file, or with an empty path the file, and what becomes of it."""

    world: World
    file: Path
    path: tuple[Any, ...]
    way: str

    def __str__(self) -> str:
        place = "/".join(map(str, self.path))
        return f"{self.world.label} {self.file.relative_to(self.world.root)} {place} = {self.way}"


def cases(world: World) -> Iterator[Case]:
    """Every value of every annotation file, then files as a whole: of each folder's images only the first."""
    files = sorted(path for path in world.root.rglob("*") if path.is_file())
    for file in (path for path in files if path.suffix in breaking.READERS):
        for path in breaking.places(file):
            yield from (Case(world, file, path, way) for way in breaking.values(file, path))
        yield from (Case(world, file, (), way) for way in breaking.BYTES)
    images = {path.parent: path for path in reversed(files) if path.suffix in breaking.ENDINGS}
    for file in images.values():
        yield from (Case(world, file, (), way) for way in (*breaking.BYTES, *breaking.PICTURES))


def verdict(case: Case) -> str:
    """What is wrong with how a case ends; empty when nothing is."""
    whole = _whole(case.world)
    shorter, before, begun = _shorter(case), case.file.read_bytes(), time.monotonic()
    data = breaking.broken(case.file, case.path, case.way)
    try:
        case.file.unlink()
        if data is not None:
            case.file.write_bytes(data)
        wrong = _judged(case.world, whole, shorter=shorter)
    finally:
        case.file.write_bytes(before)
    took = time.monotonic() - begun
    return wrong or (f"took {took:.0f} s" if took > PATIENCE else "")


@cache
def _whole(world: World) -> Loaded:
    """What of a world is in the catalog while nothing is broken."""
    return loaded(world)


def _shorter(case: Case) -> bool:
    """Whether what comes of it only says less, as it may have been written."""
    lines = case.file.suffix in (".txt", ".xml")
    if not case.path:
        may_lack = case.file.name in OPTIONAL or case.world.name == "folder"  # what is there, is all there is
        return (case.way == "missing" and may_lack) or (case.way == "cut" and lines)
    optional = lines or bool(MAY_LACK & {*case.path[-2:]})
    if case.way in ("null", "nothing", "list", "object") and optional:
        return True
    if case.way == "list":
        return isinstance(breaking.value_at(case.file, case.path), list)
    if "empty_case" in case.path:  # where it is true, the file says itself that an expression has no object
        return case.way == "true"
    return case.way == "nothing" and isinstance(case.path[-1], int)


def _judged(world: World, whole: Loaded, *, shorter: bool) -> str:
    try:
        found = loaded(world)
    except KvstoreError as error:
        line = str(error).replace(str(world.root), "DIR")  # the folder of a test has a long name
        single = len(line.splitlines()) == 1 and len(line) < LINE
        return "" if single else f"no line: {line[:200]!r}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:120]!r} in {Path(place.filename).name}:{place.lineno}"
    if any(len(line) > LINE or not line.isprintable() for line in found.lines):
        return f"lines too long: {[len(line) for line in found.lines]}"
    lacks, more = whole.counts - found.counts, found.counts - whole.counts
    lost, mended = found.lost > whole.lost, found.mended > whole.mended
    only_numbers = mended and lacks.keys() == {"category"}  # of a category whose objects have its name
    if lacks and not lost and not shorter and not only_numbers:
        return f"lost without a word: {dict(lacks)}"
    return f"more than there is: {dict(more)}" if more and not mended and not lost else ""


def tried(
    folder: Path, names: list[str], sample: int | None, seed: int, *, real: bool, skip: int = 0
) -> Iterator[tuple[Case, str]]:
    """Each case, or a random sample of them, with its verdict."""
    found = [case for world in worlds(folder, names, real=real) for case in cases(world)]
    chosen = random.Random(seed).sample(found, min(sample, len(found))) if sample else found
    for case in chosen[skip:]:
        yield case, verdict(case)


def main() -> int:
    """Try all; print what is wrong, by kind; 1 when anything is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    labels = ", ".join((*DRAWN, *REAL))
    parser.add_argument("datasets", nargs="*", help=f"of {labels}, or data sets' names; default all")
    parser.add_argument("--sample", type=int, help="only so many, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="the first so many were tried before")
    parser.add_argument("--drawn", action="store_true", help="exports of shapes alone, no real samples")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, over cut files
    count, wrong = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for case, told in tried(
            Path(folder), asked.datasets, asked.sample, asked.seed, real=not asked.drawn, skip=asked.skip
        ):
            count[case.world.label] += 1
            if told:
                wrong[case.world.label] += 1
                print(f"{case}: {told}", flush=True)
            if count.total() % 500 == 0:
                print(f"{asked.skip + count.total()} tried", file=sys.stderr, flush=True)
    for label, tries in count.items():
        print(f"{label}: {tries} tried, {wrong[label]} wrong", file=sys.stderr)
    print(f"{count.total()} tried, {wrong.total()} wrong", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
