"""SQL reads its store and nothing else: neither `kvstore sql` nor `kvstore shell` writes a byte of it.

Where DuckDB's settings do not reach, in the functions of its `lance` extension, the kernel holds the promise;
in this process, which is not the program, statements alone are refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from kvstore import confined
from tests.stores import make_store

KVSTORE = [sys.executable, "-m", "kvstore"]
NO_LANDLOCK = pytest.mark.skipif(not confined.available(), reason="this kernel confines no process")
SECRET = "kept from everybody"

#: SQL that writes, or reads elsewhere; {s} is the store, {other} another one, {place} the folder of both.
REFUSED = [
    "attach '{s}/catalog.duckdb' as w",
    "attach '{s}/catalog.duckdb' as w (read_only); select * from w.run",
    "attach '{other}/catalog.duckdb' as w",
    "attach ':memory:' as w",
    "attach '{s}/lance' as w (type lance)",
    "use kvstore; attach '{s}/lance' (type lance)",
    "copy (select 1) to '{s}/catalog.duckdb'",
    "copy (select 1) to '{place}/out.csv'",
    "copy (select 1 as a) to '{s}/lance/new.lance' (format lance)",
    "copy run from '{place}/secret.txt'",
    "copy from database kvstore to memory",
    "export database '{place}/out'",
    "import database '{place}/out'",
    "explain analyze copy (select 1) to '{place}/out.csv'",
    "prepare p as copy (select 1) to '{place}/out.csv'; execute p",
    "select * from read_text('{place}/secret.txt')",
    "select * from '{place}/secret.txt'",
    "select * from read_csv('{place}/secret.txt')",
    "select * from read_text('{s}/../secret.txt')",
    "select * from query('select * from read_' || 'text(''{place}/secret.txt'')')",
    "select * from glob('{place}/*')",
    "select * from 'http://127.0.0.1:9/x.csv'",
    "create temp view v as select * from read_text('{place}/secret.txt'); from v",
    "create temp table t as select * from read_text('{place}/secret.txt'); from t",
    "create macro memory.main.f() as table from read_text('{place}/secret.txt'); from memory.main.f()",
    "install httpfs",
    "load httpfs",
    "update extensions",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "set allowed_directories = ['/']",
    "set temp_directory = '{place}'",
    "reset allowed_paths",
    "pragma profiling_output = '{place}/out.json'",
    "call enable_logging(storage = 'file', storage_path = '{place}/out')",
    "delete from run",
    "update run set images = 0",
    "insert into run select * from run",
    "drop table run",
    "drop view patch_kv",
    "create or replace view patch_kv as select 1",
    "create table mine as select 1",
    "alter table run add column x integer",
    "comment on table run is 'mine'",
    "optimize '{s}/lance/run.patch_kv.lance'",
    "vacuum lance '{s}/lance/run.patch_kv.lance'",
    "show indexes on '{s}/lance/run.patch_kv.lance'",
    "select * from __lance_compact_files('{s}/lance/run.patch_kv.lance', '')",
    "select * from __LANCE_cleanup_old_versions('{s}/lance/run.patch_kv.lance', '')",
    "select * from \"__lance_scan\"('{other}/lance/run.patch_kv.lance')",
]
#: What the kernel alone refuses: SQL that hides what it calls, or attaches.
HIDDEN = [
    "from '{other}/lance/run.patch_kv.lance'",
    "from query('from __lance' || '_scan(''{other}/lance/run.patch_kv.lance'')')",
    "set variable kvstore_lance = '{other}/lance'; from pooled_kv",
    "from lance_vector_search('{other}/lance/run.patch_kv.lance', 'key', [1, 0, 0, 0, 0, 0, 0, 0]::float[])",
    "vacuum lance '{s}/lance/run.patch_kv.lance'",
    "attach '{s}/lance' as w (type lance); drop table w.main.\"run.patch_kv\"",
    "attach '{s}/lance' as w1 (type lance); delete from w1.main.\"run.patch_kv\"",
    'attach \'{s}/lance\' as w2 (type lance); insert into w2.main."run.patch_kv" from w2.main."run.patch_kv"',
    "attach '{s}/lance' as w3 (type lance); create table w3.main.mine as select 1 as a",
    "attach '{other}/lance' as w4 (type lance); from w4.main.\"run.patch_kv\"",
    "copy (select 1 as a) to '{place}/out.lance' (format lance)",
    "from 's3://bucket/x.lance'",
]


class Place:
    """A folder with a store, `s`, another one, and a file with a secret."""

    def __init__(self, root: Path) -> None:
        self.root, self.s, self.other = root, root / "s", root / "other"
        for store in (self.s, self.other):
            make_store(store, images=1, layers=(0,), heads=1)
        (root / "secret.txt").write_text(SECRET)
        # Opened once: pins and locks are there.
        self.before = self.bytes()

    def bytes(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def sql(self, text: str) -> str:
        return text.format(s=self.s, other=self.other, place=self.root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Place:
    return Place(tmp_path_factory.mktemp("attacked"))


@pytest.fixture
def place(made: Place) -> Iterator[Place]:
    yield made
    assert made.bytes() == made.before


def process(*args: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    words = list(map(str, args))
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=120)


# ------------------------------------------------------------------------------------------ kvstore sql


@pytest.mark.parametrize("text", REFUSED)
def test_sql_that_does_not_read_the_store_is_refused_in_a_line(place, run, text):
    code, out, err = run("sql", place.sql(text), "--store", place.s)
    assert (code, out) == (2, "")
    assert err.startswith("kvstore: ")
    assert err.count("\n") == 1
    assert SECRET not in err
    assert not list(place.root.glob("out*"))


def test_the_two_lines_of_the_program(place):
    for text in ("attach '{s}/catalog.duckdb' as w", "select * from read_text('{place}/secret.txt')"):
        done = process(*KVSTORE, "sql", place.sql(text), "--store", place.s)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("kvstore: SQL reads its store and nothing else")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("select count(*) as n from patch_kv", "n\n12\n"),
        ("create temp table t as select 7 as n; update t set n = n + 1; from t", "n\n8\n"),
        ("set variable n = 5; select getvariable('n') as n", "n\n5\n"),
        ("set threads = 1; set timezone = 'UTC'; select 1 as n", "n\n1\n"),
        ("prepare p as select 3 as n; execute p", "n\n3\n"),
        ("select 'copy to, __lance' as n -- copy", 'n\n"copy to, __lance"\n'),
        ('select 1 as "copy"', "copy\n1\n"),
    ],
)
def test_what_reads_the_store_or_works_in_memory_is_run(place, run, text, answer):
    assert run("sql", text, "--store", place.s, "--format", "csv") == (0, answer, "")


SCRIPT = """
import json, sys
from kvstore import confined
from kvstore.store import Store
confined.program()
store = Store.open(sys.argv[1])
with confined.thread([store.root]) as submit, submit(store.connect).result() as con:
    for text in json.load(sys.stdin):
        try:
            print(json.dumps(["done", str(submit(lambda: con.execute(text).fetchall()).result())]))
        except Exception as error:
            print(json.dumps([type(error).__name__, str(error)]))
open(sys.argv[1] + "/free", "w").close()  # the other threads may do what they could
"""


@NO_LANDLOCK
def test_what_sql_hides_is_refused_by_the_kernel(place):
    texts = ["select count(*) from patch_kv", *map(place.sql, HIDDEN)]
    done = process(sys.executable, "-c", SCRIPT, place.s, stdin=json.dumps(texts))
    assert done.stderr == ""
    first, *found = map(json.loads, done.stdout.splitlines())
    assert first == ["done", "[(12,)]"]
    assert [text for text, (how, _) in zip(HIDDEN, found, strict=True) if how == "done"] == []
    (place.s / "free").unlink()


# -------------------------------------------------------------------------------------------- --allow-files


def test_files_are_read_and_exported_when_allowed(place, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("image_id,word\n1,one\n9,nine\n")
    text = "copy (select word from 'mine.csv' join image using (image_id)) to 'it''s.parquet'"
    assert run("sql", "--allow-files", text, "--store", place.s)[0] == 0
    with duckdb.connect() as con:
        assert con.execute("from 'it''s.parquet'").fetchall() == [("one",)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it's.parquet", "mine.csv"]
    assert run("sql", "--allow-files", "COPY (select 'é' a) TO 'it''s.parquet'", "--store", place.s)[0] == 0
    with duckdb.connect() as con:  # it takes the old one's place
        assert con.execute("from 'it''s.parquet'").fetchall() == [("é",)]


@pytest.mark.parametrize(
    "target",
    ["{s}/catalog.duckdb", "{s}/new.csv", "{s}/../s/lance/new.csv", "link.csv", "folder/new.csv", "hard.csv"],
)
def test_nothing_is_exported_into_a_store(place, run, tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    Path("link.csv").symlink_to(place.s / "catalog.duckdb")
    Path("folder").symlink_to(place.s / "lance")
    os.link(place.s / "catalog.duckdb", "hard.csv")
    text = place.sql(f"copy (select 1 as a) to '{target}' (use_tmp_file false)")
    code, out, err = run("sql", "--allow-files", text, "--store", place.s)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is in the store, which SQL only reads; name a file outside" in err


@pytest.mark.parametrize(
    "text",
    [
        "attach '{s}/catalog.duckdb' as w",
        "attach '{place}/out.duckdb' as w",
        "attach '{s}/lance' as w (type lance)",
        "export database '{place}/out'",
        "explain analyze copy (select 1) to '{s}/out.csv'",
        "prepare p as copy (select 1) to '{s}/out.csv'; execute p",
        "copy (select 1) to e'{s}/out.csv'",
        "copy (select 1) to $file",
        "copy (select 1) to '{place}'",
        "copy (select 1) to '{place}/nowhere/out.csv'",
        "call enable_logging(storage = 'file', storage_path = '{place}/out')",
        "load httpfs",
        "select * from 'http://127.0.0.1:9/x.csv'",
        "optimize '{s}/lance/run.patch_kv.lance'",
    ],
)
def test_files_allowed_do_not_allow_all(place, run, text):
    code, out, err = run("sql", "--allow-files", place.sql(text), "-p", "file=x", "--store", place.s)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not list(place.root.glob("out*"))


def test_an_export_that_fails_leaves_what_was_there(place, run, tmp_path):
    (tmp_path / "out.csv").write_text("before")
    text = f"copy (select error('no') from image) to '{tmp_path}/out.csv'"
    assert run("sql", "--allow-files", text, "--store", place.s)[0] == 2
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


# ---------------------------------------------------------------------------------------------- the shell

DOTS = [
    ".shell touch {place}/out",
    ".system touch {place}/out",
    ".output {place}/out",
    ".once {place}/out",
    ".once |touch {place}/out",
    ".excel",
    ".read {place}/secret.txt",
    ".import {place}/secret.txt t",
    ".open {place}/out",
    ".log {place}/out",
    ".pager 'touch {place}/out'",
]


@NO_LANDLOCK
@pytest.mark.parametrize("allowed", [(), ("--allow-files",)], ids=["store only", "files"])
def test_the_shell_writes_nothing_and_runs_nothing(place, allowed):
    texts = [place.sql(text) for text in (*REFUSED, *HIDDEN, *DOTS)]
    if allowed:  # then reading is
        texts = [text for text in texts if str(place.other) not in text and "secret" not in text]
    texts.sort(key=lambda text: "logging" in text)  # no query is made after that
    texts.insert(-1, "select 6 * 7")
    lines = [text if text.startswith(".") else f"{text};" for text in texts]
    done = process(
        *KVSTORE, "shell", "--store", place.s, *allowed, "-csv", "-noheader", stdin="\n".join(lines)
    )
    assert "\n42\n" in done.stdout
    assert SECRET not in done.stdout
    assert not list(place.root.glob("out*"))


@NO_LANDLOCK
def test_the_shell_reads_files_when_allowed(place):
    done = process(
        *(*KVSTORE, "shell", "--store", place.s, "--allow-files", "-csv", "-noheader"),
        stdin=place.sql("select content from read_text('{place}/secret.txt');"),
    )
    assert (done.stdout, done.stderr) == (f"{SECRET}\n", "")


def test_duckdb_itself_is_closed_in_the_shell_on_any_system(place):
    texts = ("select * from read_text('{place}/secret.txt');", ".shell echo pwned", "select getenv('HOME');")
    done = process(*KVSTORE, "shell", "--store", place.s, stdin=place.sql("\n".join(texts)))
    assert done.stdout == ""
    assert "file system operations are disabled" in done.stderr
    assert "cannot be used in -safe mode" in done.stderr
    assert "getenv is disabled" in done.stderr
