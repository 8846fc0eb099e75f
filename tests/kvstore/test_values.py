"""Values that SQL has and Python, JSON or Arrow lack: in all formats as DuckDB's own program shows them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kvstore import cli

DUCKDB = Path(sys.executable).parent / "duckdb"

#: SQL -> its value in JSON; in csv it is what the duckdb program prints, unless it is nested.
VALUES: dict[str, Any] = {
    "'infinity'::double": "Infinity",
    "'-infinity'::float": "-Infinity",
    "'nan'::double": "NaN",
    "date 'infinity'": "infinity",
    "date '290000-01-01'": "290000-01-01",
    "date '0044-03-15 (BC)'": "0044-03-15 (BC)",
    "timestamp '-infinity'": "-infinity",
    "timestamp '290000-01-01 01:02:03'": "290000-01-01 01:02:03",
    "timestamp '2026-01-02 03:04:05.678'": "2026-01-02 03:04:05.678",
    "timestamp_ns '2024-01-01 00:00:00.123456789'": "2024-01-01 00:00:00.123456789",
    "timestamptz 'infinity'": "infinity",
    "timestamptz '2024-01-02 03:04:05+02'": "2024-01-02 01:04:05+00",
    "timetz '12:34:56+02'": "12:34:56+02",
    "time '12:34:56.789'": "12:34:56.789",
    "interval '1 month 2 days 3.5 seconds'": "1 month 2 days 00:00:03.5",
    "interval '-1 year'": "-1 year",
    "1234567890123456789012.123456789::decimal(38, 9)": Decimal("1234567890123456789012.123456789"),
    "1.50::decimal(4, 2)": Decimal("1.50"),
    "170141183460469231731687303715884105727::hugeint": 170141183460469231731687303715884105727,
    "340282366920938463463374607431768211455::uhugeint": "340282366920938463463374607431768211455",
    "18446744073709551615::ubigint": 18446744073709551615,
    r"'\xAA\x00a'::blob": r"\xAA\x00a",
    "'101'::bit": "101",
    "uuid '00000000-0000-0000-0000-000000000001'": "00000000-0000-0000-0000-000000000001",
    "'x'::enum('x', 'y')": "x",
    "union_value(num := 2)": "2",
    "true": True,
    "null": None,
    "''": "",
    "1e300": 1e300,
    "0.1::float": 0.1,
    "'half \U0001f600'": "half \U0001f600",
    "[1.5, null]": [Decimal("1.5"), None],
    "[[1], [2, 3], null]": [[1], [2, 3], None],
    "[1, 2]::int[2]": [1, 2],
    "[date 'infinity', null]": ["infinity", None],
    "['infinity'::double]": ["Infinity"],
    "map {[1, 2]: 'a', [3]: null}": {"[1, 2]": "a", "[3]": None},
    "map {date '2024-01-01': 1}": {"2024-01-01": 1},
    "{'b': [null, {'c': null, 'd': interval '1 day'}]}": {"b": [None, {"c": None, "d": "1 day"}]},
    "{'say \"x\", ''y''': 'infinity'::timestamp}": {"say \"x\", 'y'": "infinity"},
    "[map {'k': map {1: 'infinity'::float}}]": [{"k": {"1": "Infinity"}}],
}  # fmt: skip


@pytest.fixture
def sql(make_store: Any, capfd: Any, monkeypatch: Any) -> Any:
    """`sql(text, format)`: what `kvstore sql` prints, in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    store = make_store(images=1).store.root

    def call(text: str, form: str) -> str:
        with pytest.raises(SystemExit) as caught:
            cli.main(["sql", text, "--store", str(store), "--format", form])
        said = capfd.readouterr()
        assert (caught.value.code, said.err) == (0, ""), said.err
        return str(said.out)

    return call


QUERY = "select " + ", ".join(f"{text} as c{place}" for place, text in enumerate(VALUES))


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_json_is_valid_and_says_every_value(sql):
    records = json.loads(sql(QUERY, "json"), parse_float=Decimal, parse_constant=refuse)
    found = dict(zip(VALUES, records[0].values(), strict=True))
    wanted = {text: Decimal(str(v)) if isinstance(v, float) else v for text, v in VALUES.items()}
    assert found == wanted


def test_csv_says_what_the_duckdb_program_says(sql):
    flat = [text for text, value in VALUES.items() if not isinstance(value, list | dict)]
    query = "select " + ", ".join(f"{text} as c{place}" for place, text in enumerate(flat))
    ours = list(csv.reader(io.StringIO(sql(query, "csv"), newline="")))
    command = [DUCKDB, "-csv", "-nullvalue", "", "-c", f"set timezone = 'UTC'; {query}"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ours == list(csv.reader(io.StringIO(theirs, newline="")))


def test_csv_has_what_is_nested_as_json(sql):
    for text in ("map {[1, 2]: 'a'}", "[date 'infinity', null]", "['nan'::double, 1]", "[true]", "[1.50]"):
        (_, (cell,)) = csv.reader(io.StringIO(sql(f"select {text} as x", "csv"), newline=""))
        record = json.loads(sql(f"select {text} as x", "json"), parse_float=Decimal)[0]
        assert json.loads(cell, parse_float=Decimal, parse_constant=refuse) == record["x"]


def test_a_table_shows_every_value(sql):
    for text in VALUES:
        out = sql(f"select {text} as x", "table")
        assert len(out.splitlines()) == 3
    assert (
        sql("select date 'infinity' as d, 1.50::decimal(4, 2) as n", "table").splitlines()[2]
        == "infinity  1.50"
    )


def test_arrow_has_its_own_types_and_text_for_what_it_lacks(sql, make_store, tmp_path):
    from kvstore.cli import values
    from kvstore.query import stream
    from kvstore.store import Store

    store = Store.open(tmp_path / "store")
    with stream(store, QUERY, lossless=True) as rows, values.shown(rows, text=False) as shown:
        table = shown.read_all()
    kinds = dict(zip(VALUES, table.schema.types, strict=True))
    assert kinds["true"] == pa.bool_()
    assert kinds["date 'infinity'"] == pa.date32()
    assert kinds["[1, 2]::int[2]"] == pa.list_(pa.field("", pa.int32()), 2)
    found = dict(zip(VALUES, table.columns, strict=True))
    for text in ("'101'::bit", "timetz '12:34:56+02'", "340282366920938463463374607431768211455::uhugeint"):
        assert found[text].to_pylist() == [VALUES[text]]


def test_moments_are_shown_in_the_zone_that_the_sql_sets(sql):
    text = "set timezone = 'Asia/Tokyo'; select timestamptz '2024-01-02 03:04:05+00' as t"
    assert json.loads(sql(text, "json")) == [{"t": "2024-01-02 12:04:05+09"}]


def test_no_rows_and_names_twice_are_printed_in_every_format(sql):
    assert sql("select 1 as a, 2 as a", "json") == '[{"a": 1, "a_1": 2}]\n'
    assert sql("select 1 as a, interval '1 day' as b where false", "csv") == "a,b\n"
    assert sql("select interval '1 day' as b where false", "json") == "[]\n"
