"""The command line: formats, exit codes, errors in one line, the real DuckDB shell."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kvstore import __version__, cli
from kvstore.errors import UsageError
from kvstore.outside import local_path
from kvstore.store import Store

BIN = Path(sys.executable).parent
KVSTORE = BIN / "kvstore"
HOSTILE = [
    'a,b\n"c"',
    "=1+1",
    "\x1b[31mred",
    "é 漢字 \U0001f600",
    "'; drop table run; --",
    "",
    "null",
    "\\N\t|",
]


def process(*args: object, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, args)), input=stdin, capture_output=True, text=True, env=os.environ | env, check=False
    )


# -------------------------------------------------------------------------------------------- frame


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from kvstore import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'duckdb', 'lance', 'altair', 'pyarrow', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = process(sys.executable, "-c", code)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in cli.COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    "name", [n for n in cli.COMMANDS if (Path(cli.__file__).parent / f"{n}.py").exists()]
)
def test_every_command_has_help_with_an_example(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "Example" in out or name == "report"


def test_a_mistake_is_one_line_with_the_nearest_name_and_exit_code_2(run, tmp_path):
    for args, words in (
        (["sqll"], "did you mean 'sql'"),
        (["sql", "--store", tmp_path / "none", "select 1"], "no store at"),
        (["ls", "analysis"], "did you mean 'analyses'"),
        (["ls", "--formt", "csv"], "--formt"),
        (["sql"], "give either"),
        (["sql", "x", "-f", "y"], "give either"),
        (["sql", "-f", tmp_path / "no.sql"], "no such file"),
        (["runs", "--format", "xml"], "xml"),
        (["ls", "--recipes", tmp_path / "none"], "no such folder"),
    ):
        code, out, err = run(*args)
        assert (code, out) == (2, "")
        assert err.startswith("kvstore: ")
        assert err.count("\n") == 1
        assert words in err


def test_a_newcomers_mistakes_are_told_with_what_to_type_next(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVSTORE_DATA", raising=False)
    Store.open("empty", create=True)
    for args, words in (
        (["ingest", "cocoo"], "did you mean 'coco'?"),
        (["ingest", "coco"], "curl -O http://images.cocodataset.org/zips/val2017.zip"),
        (["ingest", "folder"], "--root DIR"),
        (
            ["ingest", "shapes", "--split", "foo"],
            "no split of shapes named 'foo'. Known: clips, test, train, val.",
        ),
        (["runs"], "`kvstore ingest ... --store "),
        (["probe", "correspondence", "--store", "empty"], "`kvstore ingest shapes` makes one"),
        (["search", "--image", "1", "--patch", "1", "--store", "empty"], "`kvstore ingest shapes` makes one"),
    ):
        code, _, err = run(*args)
        assert (code, err.count("\n")) == (2, 1), err
        assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_without_a_hub_one_line_says_how_to_try_it(tmp_path):
    command = (KVSTORE, "ingest", "shapes", "--model", "llava-onevision-7b", "--store", tmp_path / "s")
    done = process(*command, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "kvstore ingest shapes --model tiny-onevision" in done.stderr
    assert not (tmp_path / "s").exists()


def test_the_model_by_default_is_the_one_that_the_data_set_names(run, monkeypatch):
    from kvstore.prefill import ingest

    asked = []

    def plan(options):
        asked.append(options.model)
        raise UsageError("enough")

    monkeypatch.setattr(ingest, "plan", plan)
    assert [run("ingest", name)[0] for name in ("shapes", "coco")] == [2, 2]
    assert asked == ["tiny-onevision", "llava-onevision-7b"]


def test_version(run):
    assert run("--version") == (0, f"kvstore {__version__}\n", "")


URLS = ("s3://bucket/x", "s3:/bucket/x", "gs://b/x", "https://host/x", "file:///x")


def test_a_url_is_no_folder_in_any_option_or_variable(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("ingest", "folder", "--root", ".", "--model", "tiny-onevision")
    for url in URLS:
        for args in (
            (*words, "--store", url),
            ("ingest", "folder", "--root", url),
            ("runs", "--store", url),
            ("report", "schedule", "--store", url),
            ("ls", "--recipes", url),
            ("export", "shapes", "coco", url),
            ("export", "shapes", "coco", "out", "--root", url),
            ("probe", "correspondence", "--export", url),
            ("sql", "-f", url),
        ):
            code, out, err = run(*args)
            assert (code, out, err.count("\n")) == (2, "", 1), args
            assert f"{url} is a URL" in err, args
        for name, args in (
            ("KVSTORE_STORE", ("runs",)),
            ("KVSTORE_RECIPES", ("ls",)),
            ("KVSTORE_DATA", ("ingest", "coco", "--model", "tiny-qwen")),
        ):
            with monkeypatch.context() as patch:
                patch.setenv(name, url)
                code, _, err = run(*args)
            assert (code, err.count("\n"), "is a URL" in err) == (2, 1, True), (name, err)
    assert list(tmp_path.iterdir()) == []


def test_every_option_that_takes_a_path_refuses_urls():
    found = {}
    for name in cli.COMMANDS:
        module = importlib.import_module(f"kvstore.cli.{name}")
        grouped = [each.callback for each in module.app.registered_commands] if hasattr(module, "app") else []
        for function in grouped or [module.command]:
            for option, hint in typing.get_type_hints(function, include_extras=True).items():
                kind, *extras = typing.get_args(hint) or (None,)
                if kind is Path or Path in typing.get_args(kind):
                    found[name, option] = [getattr(extra, "parser", None) for extra in extras]
    assert {parser for parsers in found.values() for parser in parsers} == {local_path}
    assert {option for _, option in found} >= {"store", "recipes", "root", "folder", "export", "file"}


def test_an_argument_that_is_no_text_is_told(run, tmp_path):
    for args in (("ls", "caf\udce9"), ("sql", "select '\udce9'"), ("runs", f"--store={tmp_path}/s\udcfc")):
        code, _, err = run(*args)
        assert (code, err.count("\n"), "is not UTF-8 text, nor a file's name" in err) == (2, 1, True)


def test_a_folder_whose_name_is_no_utf_8_can_be_ingested(run, tmp_path):
    from PIL import Image

    folder = Path(f"{tmp_path}/M\udcfcller")
    folder.mkdir()
    Image.new("RGB", (64, 48), (9, 90, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(folder / "a.png")
    words = ("--model", "tiny-onevision", "--layers", "0", "--sites", "value", "--store", tmp_path / "s")
    assert run("ingest", "folder", "--root", folder, *words)[0] == 0
    out = run("sql", "select root, images from dataset", "--store", tmp_path / "s", "--format", "csv")[1]
    assert out == f"root,images\n{tmp_path}/M\\xfcller,1\n"


def test_a_broken_exif_block_is_passed_over_in_silence(run, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 48), (9, 90, 9)).save(tmp_path / "in/b.jpg", exif=exif)
    data = (tmp_path / "in/b.jpg").read_bytes()
    at = data.index(b"Exif\0\0") + 6
    (tmp_path / "in/b.jpg").write_bytes(data[: at + 4] + b"\xff\xff\xff\x7f" + data[at + 8 :])
    words = ("--model", "tiny-onevision", "--layers", "0", "--sites", "value", "--store", tmp_path / "s")
    code, _, err = run("ingest", "folder", "--root", tmp_path / "in", *words)
    assert (code, "Warning" in err, "site-packages" in err) == (0, False, False)


def test_the_store_may_come_from_the_environment(make_store, run, monkeypatch):
    monkeypatch.setenv("KVSTORE_STORE", str(make_store(runs=("from-env",)).store.root))
    assert "from-env" in run("runs")[1]


def test_a_reader_that_leaves_is_no_error(make_store):
    store = make_store().store.root
    command = f"{KVSTORE} sql --store {store} 'from range(1000000)' --format csv | head -2"
    done = process("bash", "-c", command)
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


def test_ctrl_c_ends_a_long_query_at_once_without_a_traceback(make_store):
    store = make_store().store.root
    command = [KVSTORE, "sql", "--store", store, "from range(10000000000000)", "--format", "csv"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout
        assert started.stdout.readline() == "range\n"  # it runs
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=30)
        assert started.returncode == -signal.SIGINT  # which a shell reports as 130
        assert err == ""
    finally:
        started.kill()


@pytest.fixture
def hostile(make_store: Any) -> Any:
    store = make_store().store
    with store.publish() as con:
        for number, text in enumerate(HOSTILE):
            con.execute("insert into caption values ('set', 1, ?, ?)", [number, text])
    return store.root


CAPTIONS = "select number, text from caption order by number"


def test_hostile_texts_come_back_from_csv_json_and_arrow(hostile, run):
    rows = list(
        csv.reader(io.StringIO(run("sql", "--store", hostile, CAPTIONS, "--format", "csv")[1], newline=""))
    )
    assert rows == [["number", "text"], *([str(i), text] for i, text in enumerate(HOSTILE))]
    records = json.loads(run("sql", "--store", hostile, CAPTIONS, "--format", "json")[1])
    assert records == [{"number": i, "text": text} for i, text in enumerate(HOSTILE)]
    done = subprocess.run(
        [KVSTORE, "sql", "--store", hostile, CAPTIONS, "--format", "arrow"], capture_output=True, check=True
    )
    assert pa.ipc.open_stream(done.stdout).read_all()["text"].to_pylist() == HOSTILE


def test_a_table_shows_nothing_that_a_terminal_obeys(hostile, run):
    out = run("sql", "--store", hostile, CAPTIONS)[1]
    assert "\x1b" not in out
    assert r"\x1b[31mred" in out
    assert len(out.splitlines()) == 2 + len(HOSTILE)


def test_only_a_table_is_cut_and_says_so(make_store, run):
    store = make_store().store.root
    _, out, err = run("sql", "--store", store, "select * from range(250)")
    assert len(out.splitlines()) == 2 + 100
    assert "first 100 rows" in err
    for format, lines in (("csv", 251), ("json", 250)):  # noqa: A001
        _, out, err = run("sql", "--store", store, "select * from range(250)", "--format", format)
        assert (len(out.splitlines()), err) == (lines, "")


def test_values_of_many_types_as_json(make_store, run):
    text = (
        "select 0.1::float as f, 'nan'::double as n, 170141183460469231731687303715884105727::hugeint as h,"
        " 1.50::decimal(4, 2) as d, date '2026-01-02' as t, [1, null] as l, map {'a': 1} as m,"
        " {'x': 1.5::float} as s, null as z, true as b, 'ab'::blob as y, 1 as a, 2 as a"
    )
    out = run("sql", "--store", make_store().store.root, text, "--format", "json")[1]
    assert json.loads(out) == [
        {"f": 0.1, "n": "NaN", "h": 170141183460469231731687303715884105727, "d": 1.5, "t": "2026-01-02",
         "l": [1, None], "m": {"a": 1}, "s": {"x": 1.5}, "z": None, "b": True, "y": "ab", "a": 1, "a_1": 2}
    ]  # fmt: skip


def test_sql_by_name_from_a_file_from_stdin_and_with_parameters(make_store, run, tmp_path):
    store = make_store(runs=("a", "b")).store.root
    out = run("sql", "--store", store, "runs", "-p", "run=b", "--format", "csv")[1]
    assert [line.split(",")[0] for line in out.splitlines()] == ["run_id", "b"]
    (tmp_path / "x.sql").write_text("select $n + 1 as m, $t as t, $u is null as u")
    params = ("-p", "n=2", "-p", "t=a=b", "-p", "u=null")
    assert (
        run("sql", "--store", store, "-f", tmp_path / "x.sql", *params, "--format", "csv")[1]
        == "m,t,u\n3,a=b,true\n"
    )
    done = process(KVSTORE, "sql", "--store", store, "-", "--format", "csv", stdin="\ufeffselect 7 as x")
    assert done.stdout == "x\n7\n"
    (tmp_path / "x.sql").write_text("\ufeffselect ? as x")  # as Windows saves it
    args = ("-f", tmp_path / "x.sql", "-p", "1=5", "--format", "csv")
    assert run("sql", "--store", store, *args)[1] == "x\n5\n"
    (tmp_path / "x.sql").write_bytes(b"select '\xe9'")
    code, _, err = run("sql", "--store", store, "-f", tmp_path / "x.sql")
    assert (code, err.count("\n"), "x.sql cannot be read" in err, "save it as UTF-8" in err) == (
        2,
        1,
        True,
        True,
    )
    code, _, err = run("sql", "--store", store, "select nope from run where run_id = $r", "-p", "r=a")
    assert code == 2
    assert "select nope" in err
    assert "$r = 'a'" in err


# ----------------------------------------------------------------------------------------- the shell


def test_the_shell_is_the_duckdb_cli_with_views_and_macros(make_store):
    store = make_store(runs=("a", "b"), layers=(0, 3)).store.root
    query = "select run_id, layer, count(*) as n from patch_kv group by all order by all limit 3;"
    done = process(KVSTORE, "shell", "--store", store, "-csv", stdin=query)
    assert done.stdout == "run_id,layer,n\na,0,72\na,3,72\nb,0,72\n"
    done = process(
        KVSTORE, "shell", "--store", store, "-csv", "-c", "select count(*) as n from patches('a', 1)"
    )
    assert (done.returncode, done.stdout) == (0, "n\n12\n")
    done = process(KVSTORE, "shell", "--store", store, "-c", "delete from run")
    assert done.returncode != 0
    assert "read-only" in done.stderr


def test_the_printed_init_opens_any_folder_in_a_bare_duckdb(make_store, tmp_path, run):
    store = make_store(images=1).store.root
    odd = store.rename(tmp_path / 'it\'s a "store"; --')
    (tmp_path / "init.sql").write_text(run("shell", "--store", odd, "--print-init")[1])
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [
            BIN / "duckdb",
            "-init",
            tmp_path / "init.sql",
            "-csv",
            "-noheader",
            "-c",
            "select count(*) from patch_kv",
        ],
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "48"


HARM = (
    'drop table kv.main."run.patch_kv"; drop table run; drop view patch_kv; delete from run; truncate run;'
    " insert into run select * from run; update run set images = 0; copy run from '/dev/null';"
    " delete from patch_kv; create table mine as select 1;"
)


def test_neither_shell_can_harm_the_store(make_store, tmp_path, run):
    store = make_store(images=1).store.root
    (tmp_path / "init.sql").write_text(run("shell", "--store", store, "--print-init")[1])
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    for shell in ((KVSTORE, "shell", "--store", store), (BIN / "duckdb", "-init", tmp_path / "init.sql")):
        done = process(
            *shell, "-csv", "-noheader", stdin=HARM.replace(";", ";\n") + "select count(*) from patch_kv;"
        )
        assert done.stdout.splitlines()[-1] == "48"
        assert done.stderr.count("Error:") == HARM.count(";")
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


# -------------------------------------------------------------------------- check, drop, optimize, ls


def test_check_tells_by_its_exit_code(make_store, run):
    store = make_store().store
    code, out, err = run("check", "--store", store.root, "--format", "json")
    assert (code, err) == (0, "")
    assert {record["ok"] for record in json.loads(out)} == {True}
    with store.publish() as con:
        con.execute("update run set images = 9")
    code, out, err = run("check", "--store", store.root)
    assert code == 1
    assert "run_images: 1 rows, first: run_id=run, images=9, images_in_token_grid=3" in err


def test_drop_asks_unless_told(make_store, run):
    store = make_store(runs=("a", "b")).store.root
    done = process(KVSTORE, "drop", "a", "--store", store, stdin="y\n")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert run("drop", "a", "--yes", "--store", store)[0] == 0
    assert run("drop", "a", "--yes", "--store", store)[0] == 2
    assert [r["run_id"] for r in json.loads(run("runs", "--store", store, "--format", "json")[1])] == ["b"]


def test_ls_tells_a_users_models_from_the_shipped_and_survives_a_damaged_one(run, tmp_path, monkeypatch):
    from kvstore import model_files, recipes

    configs = {
        "mine/ingest/tiny/same": '{"model_type": "llava_next"}',
        "mine/ingest/tiny/sees": '{"model_type": "gpt2"}',
        "mine/ingest/tiny/torn": "{",
        "mine/ingest/tiny/.half": "{}",
        "shipped/ingest/tiny/same": '{"model_type": "qwen2_5_vl"}',
        "shipped/ingest/tiny/theirs": '{"model_type": "qwen2_5_vl"}',
    }
    for folder, text in configs.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text(text)
    (tmp_path / "shipped/ingest/models").symlink_to(recipes.SHIPPED / "ingest/models")
    monkeypatch.setattr(recipes, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(recipes, "__path__", list(recipes.__path__))
    monkeypatch.setenv("KVSTORE_RECIPES", "")
    recipes.lay_over(tmp_path / "mine")
    assert model_files.shipped()["same"] == tmp_path / "mine/ingest/tiny/same"
    code, out, _ = run("ls", "models", "--format", "json")
    about = {entry["name"]: entry["about"] for entry in json.loads(out)}
    assert code == 0
    assert about["same"] == "built in, trained on shapes (llava_next)"
    assert about["theirs"] == "built in, trained on shapes (qwen2_5_vl)"
    assert about["sees"] == "no family reads its model type (gpt2)"
    assert "torn/config.json cannot be read" in about["torn"]
    assert ".half" not in about


def test_ls_finds_a_users_recipes_too(run, tmp_path, monkeypatch):
    (tmp_path / "sql" / "analyses").mkdir(parents=True)
    (tmp_path / "sql" / "analyses" / "mine.sql").write_text("-- mine: one row per thing\nselect 1 as x")
    from kvstore import recipes

    monkeypatch.setattr(recipes, "__path__", list(recipes.__path__))
    monkeypatch.setenv("KVSTORE_RECIPES", "")
    monkeypatch.delenv("KVSTORE_RECIPES")
    records = json.loads(run("ls", "analyses", "--recipes", tmp_path, "--format", "json")[1])
    os.environ.pop("KVSTORE_RECIPES", None)
    assert {"mine", "runs"} <= {record["name"] for record in records}
    assert next(r["about"] for r in records if r["name"] == "mine") == "one row per thing"
