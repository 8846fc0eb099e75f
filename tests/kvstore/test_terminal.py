"""A terminal shows text from data and obeys none of it; a pipe gets it as it is."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore import terminal
from kvstore.lines import in_json, printable, visible

#: An escape sequence, a C1 control, a bell, a line that is written over, and signs that turn the direction.
EVIL = "a\x1b[31mb\x9b2Jc\x07\rd\u202ee\u2066f\x7f"
SHOWN = r"a\x1b[31mb\x9b2Jc\x07\rd\u202ee\u2066f\x7f"

SCRIPT = """
import json, sys
from kvstore import cli
for args in json.loads(sys.argv[1]):
    try:
        cli.main(args)
    except SystemExit as ended:
        print("=====", flush=True)
"""


def on_terminal(*commands: list[str]) -> list[str]:
    """What each command shows on a terminal, standard output and error together; run by one process."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", SCRIPT, json.dumps(commands)]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # the other end is closed
            pass
        process.wait()
    os.close(ours)
    return said.decode().replace("\r\n", "\n").split("=====")


@pytest.fixture
def store(make_store: Callable[..., Any]) -> Path:
    made = make_store(images=1, layers=(0,), heads=1)
    with made.store.publish() as con:
        con.execute("update run set model_id = $evil, images = 9", {"evil": EVIL})
    return made.store.root


def test_no_command_lets_data_steer_a_terminal(store):
    quoted = '"' + EVIL + '"'
    text, at = f"select '{EVIL}' as {quoted}", ["--store", str(store)]
    table, in_csv, as_json, error, runs, check, missing, _ = on_terminal(
        *(["sql", text, "--format", fmt, *at] for fmt in ("table", "csv", "json")),
        ["sql", f"select {quoted}", *at],
        ["runs", *at],
        ["check", *at],
        ["sql", "select 1", "--store", f"{store}{EVIL.replace('/', '')}"],
    )
    for said in (table, in_csv, as_json, error, runs, check, missing):
        assert [c for c in said if not c.isprintable() and c != "\n"] == []
    assert table.split() == [SHOWN, "-" * len(SHOWN), SHOWN]
    assert in_csv.count(SHOWN) == 2
    assert json.loads(as_json.partition("\n")[2]) == [{EVIL: EVIL}]
    for said in (error, runs, missing):
        assert r"\x1b[31m" in said
    assert "run_images" in check


def test_a_pipe_gets_what_is_there(store):
    def piped(fmt: str) -> str:
        words = [sys.executable, "-m", "kvstore", "sql", f"select '{EVIL}' as a", "--store", str(store)]
        done = subprocess.run([*words, "--format", fmt], capture_output=True, check=True)
        return done.stdout.decode()

    assert list(csv.reader(io.StringIO(piped("csv"), newline=""))) == [["a"], [EVIL]]
    assert json.loads(piped("json")) == [{"a": EVIL}]
    assert "\u202e" in piped("json")


def test_what_is_shown_of_any_character():
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xE0001):
        assert printable(chr(code)).isascii()
        assert json.loads(f'"{in_json(chr(code))}"') == chr(code)
    assert visible("é\n\tb\r\x1b") == "é\n\tb\\r\\x1b"


def test_a_progress_bar_draws_with_its_own_sequences(monkeypatch):
    below = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal.Shown(below))
    print("\x1b[31m", file=sys.stderr)
    terminal.console().file.write("\x1b[32m")
    assert below.getvalue() == "\\x1b[31m\n\x1b[32m"
