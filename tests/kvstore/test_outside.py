"""The boundary to libraries: whatever they raise over a user's file is one printable line."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from kvstore.errors import DatasetError, ImageError, KvstoreError, QueryError, UnknownNameError, UsageError
from kvstore.lines import one_line, shortened
from kvstore.outside import local_path, reason, sentence, told


class PanicException(BaseException):
    """As pyo3 raises it: no Exception."""


LONG = "x" * 100_000
MANY = "Unrecognized processor. Should be one of:\n" + ", ".join(f"Some{n}Processor" for n in range(5000))
FOREIGN = [
    ValueError(LONG),
    ValueError(MANY),
    ValueError("first\x1b[31m red \x1b]0;title\x07\nsecond\r\n\n\nthird"),
    KeyError("model_type"),
    OSError(errno.ENOENT, "No such file or directory", "/data/half\udcfc"),
    RecursionError("maximum recursion depth exceeded"),
    RuntimeError("in /opt/venv/lib/python3.11/site-packages/transformers/models/auto.py: no"),
    OSError("LanceError(IO): wrong magic, /home/ci/.cargo/registry/src/lance-14.0/src/io/reader.rs:123:45"),
    UnicodeDecodeError("utf-8", b"\xff" * 5, 0, 1, "invalid start byte"),
    Exception(),
    PanicException("called `Result::unwrap()` on an `Err` value\nstack backtrace:\n 0: rust_begin_unwind"),
]


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_whatever_a_library_raises_is_one_line_with_file_and_remedy(error):
    with (
        pytest.raises(DatasetError) as caught,
        told("/data/a.json cannot be read", "unpack it again", DatasetError),
    ):
        raise error
    line = str(caught.value)
    assert caught.value.__cause__ is error
    assert line.startswith("/data/a.json cannot be read: ")
    assert line.endswith("; unpack it again")
    assert len(line) <= 290
    assert line.isprintable()
    for unwanted in ("site-packages", ".rs:", "backtrace", "[31m", "title"):
        assert unwanted not in line


def test_a_reason_keeps_what_tells():
    missing = OSError(errno.ENOENT, "No such file or directory", "/d/half\udcfc")
    rust = OSError("LanceError(IO): wrong magic, /h/.cargo/lance-14/src/reader.rs:12:4")
    said = {
        "KeyError: 'model_type'": KeyError("model_type"),
        "No such file or directory: /d/half\\udcfc": missing,
        "in auto.py: no": RuntimeError("in /opt/venv/lib/python3.11/site-packages/transformers/auto.py: no"),
        "LanceError(IO): wrong magic": rust,
        "first red second": ValueError("first\x1b[31m red\nsecond\n\nthird"),
        "StopIteration": StopIteration(),
        "not enough memory": MemoryError(),
    }
    assert {text: reason(error) for text, error in said.items()} == {text: text for text in said}
    duckdb_says = 'Binder Error: column "b" not found!\nCandidates: "a"\n\nLINE 1: select b from t\n        ^'
    assert reason(ValueError(duckdb_says)) == 'Binder Error: column "b" not found! Candidates: "a"'


def test_the_remedy_stays_whole_where_the_reason_is_long():
    line = sentence("/m/" + "n" * 400, ValueError(LONG), "download it again")
    assert (len(line) <= 290, line[:5], line[-19:]) == (True, "/m/nn", "; download it again")


def test_what_kvstore_raises_passes_the_boundary_as_it_is():
    for error in (UsageError("mine"), ImageError("empty", "mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, told("a file", "mend it"):
            raise error
        assert caught.value is error
    with told("a file"):
        pass


def test_one_line_is_printable_and_keeps_both_ends():
    assert one_line("a\tb\r\n  c\x1b[0m \ud800 \u202e") == r"a b c\x1b[0m \ud800 \u202e"
    assert shortened("abcdefghijklmnop", 12) == "abcde ... op"
    for text in ("word " * 100_000 + "end", LONG + "end", "\ud800" * 100_000 + "end"):
        assert len(one_line(text)) == 300
        assert one_line(text).endswith("end")


def test_names_and_sql_of_any_length_leave_a_line():
    error = UnknownNameError("run", LONG, [f"run-number-{n}" for n in range(500)], "Hint at the end.")
    assert len(str(error)) <= 290
    assert str(error).endswith("run-number-109, ... Hint at the end.") or ", .... Hint at the end." in str(
        error
    )
    error = QueryError("Binder Error: no column", f"select {LONG}", {"run": LONG})
    assert len(str(error)) <= 290
    assert str(error).startswith("Binder Error: no column; SQL: select xxx")
    assert "$run = 'xxx" in str(error)
    assert error.details == f"SQL:\nselect {LONG}\n  $run = {LONG!r}"
    assert isinstance(error, KvstoreError)


@pytest.mark.parametrize(
    "given", ["s3://bucket/x", "s3:/bucket/x", "gs://b", "https://host/a b", "hf://datasets/x", "S3://b", "file:///x"]
)  # fmt: skip
def test_a_url_is_no_path(given):
    with pytest.raises(UsageError, match="is a URL"):
        local_path(given)


def test_a_file_url_is_answered_with_its_path():
    for given in ("file:///data/x", "file:/data/x"):
        with pytest.raises(UsageError, match=r"as a path: /data/x$"):
            local_path(given)


@pytest.mark.parametrize("given", ["/a/s3:/b", "./s3:/b", "C:/data", "a:b", "kvdata", "~/x", "a?b#c", "1:/2"])
def test_what_only_looks_like_a_url_is_a_path(given):
    assert str(local_path(given)) == str(Path(given))


def test_the_boundary_reads_a_real_librarys_error(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DatasetError, match=r"a\.json is broken: Expecting property name"):  # noqa: SIM117
        with told(f"{tmp_path / 'a.json'} is broken", kind=DatasetError):
            json.loads((tmp_path / "a.json").read_text())
