"""README and help cannot drift: their commands parse, their examples run, their files exist."""

from __future__ import annotations

import csv
import functools
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore import cli, recipes
from tests import tiny

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
KVSTORE = Path(sys.executable).parent / "kvstore"
#: Recipes in the README: the line that names the file, then its block.
EXAMPLES = dict(re.findall(r"^`mine/([\w/.]+)`.*?:\n\n```\w+\n(.*?)```", README, re.MULTILINE | re.DOTALL))


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every ``kvstore ...`` in lines of shell."""
    for line in text.splitlines():
        words = shlex.split(line)
        for place, word in enumerate(words):
            if word == "kvstore":
                rest = words[place + 1 :]
                ends = [i for i, other in enumerate(rest) if other in ("|", "&&", ">", "2>&1")]
                yield rest[: ends[0]] if ends else rest


SHOWN = [
    *re.findall(r"^    \$ (.*kvstore .*)$", README, re.MULTILINE),
    *re.findall(r"`(kvstore .*?)`", README),
]
WRITTEN = [args for line in SHOWN for args in commands(line)]


@pytest.fixture
def accept(monkeypatch: Any, tmp_path: Path) -> Callable[[list[str]], int]:
    """`accept(args)`: the exit code of a command line whose command does nothing."""

    def idle(function: Any) -> Any:
        return functools.wraps(function)(lambda *args, **kwargs: None)

    for name in cli.COMMANDS:
        module = importlib.import_module(f"kvstore.cli.{name}")
        if hasattr(module, "command"):
            monkeypatch.setattr(module, "command", idle(module.command))
        for registered in module.app.registered_commands if hasattr(module, "app") else ():
            monkeypatch.setattr(registered, "callback", idle(registered.callback))
    monkeypatch.setattr(recipes, "lay_over", lambda folder: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()

    def run(args: list[str]) -> int:
        with pytest.raises(SystemExit) as caught:
            cli.main(args)
        return int(caught.value.code or 0)

    return run


def test_a_command_line_that_is_wrong_is_not_accepted(accept):
    wrong = (["ingest"], ["ingest", "shapes", "--modle", "x"], ["report", "bild"], ["sql", "--format", "xml"])
    assert [accept(args) for args in wrong] == [2, 2, 2, 2]


def test_the_readmes_commands_are_accepted(accept):
    assert len(WRITTEN) > 10
    assert [args for args in WRITTEN if accept(args) != 0] == []


def test_every_help_is_whole_and_has_an_example_that_is_accepted(accept, capsys):
    for args in ([], *([name] for name in cli.COMMANDS), ["report", "build"], ["report", "status"]):
        accept([*args, "--help"])
        text = capsys.readouterr().out
        assert "..." not in text.partition("Commands:")[2], f"{args}: a summary is cut"
        example = re.search(r"Example: ((?:.+\n)+)", text)
        assert example, args
        assert [accept(found) for found in commands(" ".join(example[1].split()))] == [0], args


def test_the_readmes_tree_lists_what_is_there():
    tree = README.partition("## The files")[2].partition("```text\n")[2].partition("```")[0]
    paths = [line.split("  ")[0] for line in tree.splitlines()]
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = {f"kvstore/{path.name}" for path in (ROOT / "kvstore").glob("[!_]*.py")}
    assert modules - set(paths) == set()


def test_the_readmes_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


# ----------------------------------------------------------------------- the examples, really run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A folder with the README's recipes in `mine/`, four photographs, and their store `s/`."""
    root: Path = tmp_path_factory.mktemp("readme")
    for name, text in EXAMPLES.items():
        (root / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "mine" / name).write_text(text, encoding="utf-8")
    for number, category in enumerate(("rose", "rose", "rose", "tulip")):
        (root / "data" / "flowers" / category).mkdir(parents=True, exist_ok=True)
        tiny.noise((90, 60), number).save(root / "data" / "flowers" / category / f"{number}.jpg")
    call(root, "ingest", "flowers", "--root", "data/flowers", "--model", "tiny-onevision")
    return root


def call(root: Path, *args: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KVSTORE_S")}
    environment |= {"KVSTORE_RECIPES": "mine", "KVSTORE_STORE": "s"}
    done = subprocess.run(
        [KVSTORE, *args], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_example_is_one_file_of_at_most_25_lines():
    assert sorted(EXAMPLES) == [
        "ingest/datasets/flowers.py",
        "reports/norms.py",
        "sql/analyses/category_norm.sql",
    ]
    assert {name: len(text.splitlines()) for name, text in EXAMPLES.items() if text.count("\n") > 25} == {}


def test_the_examples_work(folder):
    rows = list(csv.DictReader(io.StringIO(call(folder, "sql", "category_norm", "--format", "csv"))))
    assert [(row["category"], row["layer"], row["images"]) for row in rows] == [
        (category, str(layer), images)
        for category, images in (("rose", "3"), ("tulip", "1"))
        for layer in range(8)
    ]
    page = Path(call(folder, "report", "build", "norms").splitlines()[0])
    assert "Norms of image values by category" in page.read_text(encoding="utf-8")


def test_sql_in_the_readme_gives_the_columns_that_it_shows(folder):
    shown = re.findall(r"^    \$ kvstore sql (.*)\n    (\S.*)\n    -", README, re.MULTILINE)
    assert shown
    for line, header in shown:
        out = call(folder, "sql", *shlex.split(line)[:1], "--format", "csv")
        assert out.splitlines()[0].split(",") == header.split()


def test_the_readmes_python_prints_what_its_comment_says(folder):
    code = README.partition("From Python:\n\n```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "(2, 196, 32) float16\n"  # 2 KV heads, 14 x 14 patches
