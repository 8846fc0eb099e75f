"""How a command ends: one line for each exception, its exit code, and what becomes of the three streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstore.cli import ending
from kvstore.errors import KvstoreError, QueryError
from tests.ingesting import pictures

KVSTORE = Path(sys.executable).parent / "kvstore"


def bash(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONUNBUFFERED": "", **env}  # else each print meets what stdout refuses
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env, check=False)


def raising(monkeypatch: Any, error: BaseException) -> None:
    """Make `kvstore ls` raise `error`."""
    from kvstore import catalogue

    def entries(kind: str | None) -> None:
        raise error

    monkeypatch.setattr(catalogue, "entries", entries)


class PanicException(BaseException):
    """As pyo3 raises it."""


# ------------------------------------------------------------------------------------- exceptions


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KvstoreError("a\nb\x1b[31m" + "x" * 100_000 + " the remedy"), 2, r"kvstore: a b\x1b[31mxxx"),
        (ZeroDivisionError("of us"), 70, "this is a fault of kvstore"),
        (PanicException("of Rust"), 70, "this is a fault of kvstore"),
        (PermissionError(13, "Permission denied", "/d/x"), 2, "the system refuses: Permission denied: /d/x"),
        (MemoryError(), 2, "not enough memory; take a smaller --batch"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_exception_is_a_line_and_a_code(run, monkeypatch, error, code, words):
    raising(monkeypatch, error)
    got, out, err = run("ls")
    assert (got, out) == (code, "")
    assert words in err
    assert err.count("\n") == (1 if words else 0)
    assert len(err) <= 301
    assert err.strip().isprintable()


def test_a_fault_of_ours_says_where_and_how_to_see_more(run, monkeypatch):
    raising(monkeypatch, ZeroDivisionError("of us"))
    code, _, err = run("ls")
    assert code == 70
    assert "kvstore/cli/ls.py, line " in err
    assert err.endswith("ZeroDivisionError: of us; run it again with --debug for all of it\n")


@pytest.mark.parametrize("args", [("--debug", "ls"), ("ls", "--debug"), ("ls", "models", "--debug")])
def test_debug_shows_the_traceback_and_the_whole_message(run, monkeypatch, args):
    error = QueryError("no such column", "select " + "x" * 1000, {"run": "y" * 1000})
    error.__cause__ = ValueError("what DuckDB said")
    raising(monkeypatch, error)
    code, _, err = run(*args)
    assert code == 2
    for words in ("Traceback", "what DuckDB said", "select " + "x" * 1000, "$run = '" + "y" * 1000):
        assert words in err


def test_debug_comes_from_the_environment_too_and_not_from_after_two_dashes(run, monkeypatch):
    raising(monkeypatch, KvstoreError("short"))
    assert run("ls", "--", "--debug") == (2, "", "kvstore: short\n")
    monkeypatch.setenv("KVSTORE_DEBUG", "0")
    assert run("ls")[2] == "kvstore: short\n"
    monkeypatch.setenv("KVSTORE_DEBUG", "1")
    assert "Traceback" in run("ls")[2]


def test_a_users_recipe_that_raises_is_told_with_its_file_and_line(run, tmp_path, monkeypatch):
    from kvstore import recipes

    monkeypatch.setattr(recipes, "__path__", list(recipes.__path__))
    folder = tmp_path / "ingest/datasets"
    folder.mkdir(parents=True)
    broken = {
        "mine1": (
            "SPLITS = ()\n\ndef load(root, split):\n    return {}['no such key']\n",
            "line 4: KeyError",
        ),
        "mine2": ("SPLITS = (\n", "line 1: '(' was never closed"),
        "mine3": ("import numpyy\n", "line 1: No module named 'numpyy'"),
        "mine4": ("SPLITS = ()\ndef load(root, split):\n    raise ValueError('x' * 10**5)\n", "line 3: xxx"),
    }
    for name, (text, words) in broken.items():
        (folder / f"{name}.py").write_text(text)
        code, _, err = run("ingest", name, "--recipes", tmp_path, "--model", "tiny-qwen", "--root", tmp_path)
        assert (code, err.count("\n"), len(err) <= 301) == (2, 1, True), err
        assert f"ingest/datasets/{name}.py, {words}" in err
        assert "mend it (--debug shows the traceback)" in err


RECIPE = """
from kvstore.contracts import Dataset, ImageRecord
SPLITS = ()
def load(root, split):
    path = root / "00.png"
    return Dataset("mine", "", [ImageRecord("a", path.read_bytes, lambda w, h, o: None)], root)
"""


def test_a_users_recipe_that_makes_something_else_is_told_with_what_it_made(run, tmp_path, monkeypatch):
    from kvstore import recipes

    monkeypatch.setattr(recipes, "__path__", list(recipes.__path__))
    folder = tmp_path / "ingest/datasets"
    folder.mkdir(parents=True)
    pictures(tmp_path / "images", [(60, 60)])
    cases = {
        "none": (
            "SPLITS = ()\ndef load(root, split): ...\n",
            "none.py: load returned a NoneType, not a Dataset",
        ),
        "list": (
            "SPLITS = ()\ndef load(root, split): return []\n",
            "list.py: load returned a list, not a Dataset",
        ),
        "bare": (
            "def load(root, split): ...\n",
            "bare.py has no SPLITS, which a data set's recipe needs; add it",
        ),
        "made": (
            RECIPE.replace("[Im", "iter([Im").replace("None)]", "None)])"),
            "made.py, line 6: TypeError: Dataset.images",
        ),
        "text": (
            RECIPE.replace("read_bytes", "as_posix"),
            "recipe: read returned a str, not bytes (a); mend it",
        ),
        "void": (RECIPE, "recipe of mine: annotate returned a NoneType, not Annotations (a); mend it"),
    }
    for name, (text, words) in cases.items():
        (folder / f"{name}.py").write_text(text)
        asked = ("--recipes", tmp_path, "--model", "tiny-qwen-untrained", "--root", tmp_path / "images")
        code, _, err = run("ingest", name, *asked, "--store", tmp_path / "s")
        assert code == 2, err
        assert words in err.splitlines()[-1], err


def test_an_option_of_100_000_letters_is_told_in_a_line(run):
    for args in (["ls", "--format", "x" * 10**5], ["x" * 10**5], ["ls", "x" * 10**5], ["ls", "--\x1b[31m"]):
        code, _, err = run(*args)
        assert (code, err.count("\n"), len(err) <= 301) == (2, 1, True)
        assert err.strip().isprintable()


# ------------------------------------------------------------------------------- words of libraries


def test_warnings_and_logs_of_libraries_stay_silent_without_debug(run, monkeypatch):
    import logging
    import warnings

    from kvstore import catalogue

    def entries(kind: str | None) -> list[dict[str, str]]:
        warnings.warn("in site-packages", UserWarning, stacklevel=1)
        logging.getLogger("transformers").warning("advice")
        logging.getLogger("lance").error("more advice")
        return []

    monkeypatch.setattr(catalogue, "entries", entries)
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(sys.stderr))
    assert run("ls")[2] == ""
    assert logging.root.manager.disable == 0
    with pytest.warns(UserWarning, match="in site-packages"):
        run("ls", "--debug")


# ------------------------------------------------------------------------------------------ streams


def test_a_stdout_that_cannot_be_written_is_told_in_a_line():
    for command in ("ls", "ls models --format json", "--version", "ls --format csv"):
        for stdout, reason in (("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
            done = bash(f"{KVSTORE} {command} {stdout}")
            told = f"kvstore: standard output cannot be written: {reason}\n"
            assert (done.returncode, done.stderr) == (2, told), command


def test_a_full_stdout_in_the_middle_of_many_rows_is_told_in_a_line(make_store):
    store = make_store().store.root
    for kind in ("csv", "json", "arrow"):
        done = bash(f"{KVSTORE} sql --store {store} 'from range(100000)' --format {kind} > /dev/full")
        told = "kvstore: standard output cannot be written: No space left on device\n"
        assert (done.returncode, done.stderr) == (2, told)


def test_a_reader_that_leaves_gets_silence_and_the_code_of_a_broken_pipe(make_store):
    store = make_store().store.root
    command = (
        f"{KVSTORE} sql --store {store} 'from range(1000000)' --format csv | head -2; echo ${{PIPESTATUS[0]}}"
    )
    done = bash(command)
    assert (done.stdout, done.stderr) == (f"range\n0\n{ending.READER_LEFT}\n", "")


def test_closed_streams_are_no_traceback_and_lend_their_number_to_no_file(make_store):
    store = make_store(runs=("a",)).store.root
    done = bash(f"{KVSTORE} runs --store {store} --format csv <&- 2>&-")
    assert (done.returncode, done.stdout.splitlines()[1].split(",")[0]) == (0, "a")
    done = bash(f"{KVSTORE} drop a --store {store} <&-")
    assert (done.returncode, "--yes" in done.stderr, done.stderr.count("\n")) == (2, True, 1)
    done = bash(f"{KVSTORE} sql - --store {store} <&-")
    assert (done.returncode, done.stderr) == (2, "kvstore: standard input holds no SQL\n")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert bash(f"{KVSTORE} sql 'from run' --store {store} >&-").returncode == 2
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
