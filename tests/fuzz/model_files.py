"""Each field of a tiny model's settings replaced by what does not belong there: equal vectors, or a line.

`python -m tests.fuzz.model_files [--sample N] [--skip N] [MODEL ...]` tries all, 2,400, and prints those that
are neither, or take too long, or end the process; the sample that runs with the tests is in
tests/ingest/test_model_fields.py.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstore import pretrained
from kvstore.errors import KvstoreError
from kvstore.lines import LINE
from tests import tiny
from tests.capturing import assert_as_plain
from tests.fuzz.worker import Worker

MODELS = ("tiny-onevision", "tiny-next", "tiny-qwen", "tiny-encoder")
FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "generation_config.json",
)
#: JSON text by name; nothing takes the field out.
VALUES = {
    "null": "null",
    "text": '"text"',
    "list": '["x"]',
    "object": '{"a": 1}',
    "-1": "-1",
    "1e400": "1e400",
    "true": "true",
    "nothing": "",
}
#: Seconds for one case, however busy the machine is; most take 1.
PATIENCE = 120
_PLACE = "@@here@@"


@dataclass(frozen=True)
class Case:
    """One field of one file of one model, and what stands there instead."""

    model: str
    file: str
    way: tuple[str, ...]
    value: str

    def __str__(self) -> str:
        return f"{self.model} {self.file} {'.'.join(self.way)} = {self.value}"


def cases(model: str) -> list[Case]:
    """All replacements in the files of a tiny model, fields of inner objects too."""
    folder = tiny.loaded(model).folder
    return [
        Case(model, file, way, value)
        for file in FILES
        if (folder / file).is_file()
        for way in _ways(json.loads((folder / file).read_text()))
        for value in VALUES
    ]


def _ways(whole: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in whole.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from _ways(value, (*before, name))


def write(case: Case, folder: Path) -> Path:
    """The model's folder with the one field replaced."""
    made = Path(shutil.copytree(tiny.loaded(case.model).folder, folder / "model"))
    whole = inner = json.loads((made / case.file).read_text())
    for step in case.way[:-1]:
        inner = inner[step]
    inner[case.way[-1]] = _PLACE
    if case.value == "nothing":
        del inner[case.way[-1]]
    text = json.dumps(whole, indent=2).replace(f'"{_PLACE}"', VALUES[case.value])
    (made / case.file).write_text(text)
    return made


def fault(case: Case) -> str | None:
    """What is wrong: None where vectors are plain transformers', or a line says that there are none."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pretrained.tokenizer.cache_clear()
        said, reference = io.StringIO(), None
        if case.file == "processor_config.json" and case.value in ("null", "nothing"):
            # older folders lack what it says: config.json says the same, which transformers does not look up
            reference = tiny.loaded(case.model).folder
        try:
            with contextlib.redirect_stderr(said):
                assert_as_plain(write(case, Path(folder)), tiny.noise((150, 90)), reference)
        except KvstoreError as error:
            told = str(error)
            single = len(told) <= LINE and told.isprintable()
            return None if single else f"not one line of {LINE} characters: {told!r}"
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def main() -> int:
    """Try all cases of some models, print the faults, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; default all")
    parser.add_argument("--sample", type=int, help="only so many, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="the first so many were tried before")
    asked = parser.parse_args()
    every = [case for model in asked.models or MODELS for case in cases(model)]
    if asked.sample:
        every = random.Random(asked.seed).sample(every, min(asked.sample, len(every)))
    found, worker = 0, Worker(fault, PATIENCE)
    for number, case in enumerate(every[asked.skip :], asked.skip + 1):
        if problem := worker.ask(case):
            found += 1
            print(f"{case}\n    {problem}", flush=True)
        if number % 100 == 0 or number == len(every):
            print(f"{number} of {len(every)} tried, {found} wrong", file=sys.stderr, flush=True)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
