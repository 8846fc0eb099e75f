"""SQL for people: parameters, analyses, errors that show the SQL."""

from __future__ import annotations

import pytest

from kvstore import query, recipes
from kvstore.errors import QueryError, UnknownNameError, UsageError


def test_values_are_parameters_and_never_sql(make_store):
    store = make_store().store
    text = "select $name as name, count(*) as n from run where run_id = $name"
    for name, count in (("run", 1), ("x' or 1=1 --", 0)):
        assert query.run_sql(store, text, {"name": name}).to_pylist() == [{"name": name, "n": count}]


def test_the_last_of_several_statements_gives_the_rows(make_store):
    text = "create temp table t as select $a as a; select a + $b as c from t"
    assert query.run_sql(make_store().store, text, {"a": 1, "b": 2}).to_pylist() == [{"c": 3}]


def test_a_parameter_that_an_analysis_is_not_given_means_all(make_store):
    store = make_store(runs=("a", "b")).store
    assert query.run_analysis(store, "runs")["run_id"].to_pylist() == ["a", "b"]
    assert query.run_analysis(store, "runs", {"run": "b"})["run_id"].to_pylist() == ["b"]


def test_unknown_names_are_answered_with_the_nearest(make_store):
    store = make_store().store
    with pytest.raises(UnknownNameError, match="did you mean 'storage'"):
        query.run_analysis(store, "storag")
    with pytest.raises(UnknownNameError, match="did you mean 'run'"):
        query.run_analysis(store, "runs", {"runs": "a"})
    with pytest.raises(UsageError, match="-p x=VALUE"):
        query.run_sql(store, "select $x")
    with pytest.raises(UsageError, match="no statement"):
        query.run_sql(store, "-- nothing")


def test_parameters_by_number_are_asked_for_as_they_are_given(make_store):
    store = make_store().store
    for text, words in (
        ("select ? as a", "has a \\? as its parameter 1; give it with -p 1=VALUE"),
        ("select $2 as a, $1 as b", "names \\$1; give it with -p 1=VALUE"),
    ):
        with pytest.raises(UsageError, match=words):
            query.run_sql(store, text)
    assert query.run_sql(store, "select ? as a", {"1": 5}).to_pylist() == [{"a": 5}]
    assert query.run_sql(store, "select ? as a, ? as b", {"1": 5, "2": "x"}).to_pylist() == [
        {"a": 5, "b": "x"}
    ]
    assert query.run_sql(store, "select $2 as a, $1 as b", {"1": 5, "2": 6}).to_pylist() == [{"a": 6, "b": 5}]


def test_half_a_surrogate_in_sql_or_a_value_is_told(make_store):
    store = make_store().store
    with pytest.raises(UsageError, match="the SQL is no Unicode text"):
        query.run_sql(store, "select '\udce9'")
    for value in ("\ud800", ["\ud800"], {"a": "\ud800"}):
        with pytest.raises(UsageError, match=r"the value of \$x is no Unicode text"):
            query.run_sql(store, "select $x", {"x": value})
    with pytest.raises(QueryError, match="too large for 128-bit"):
        query.run_sql(store, "select $x", {"x": 10**60})


@pytest.mark.parametrize(
    "text",
    [
        "select nothing from run where run_id = $name",  # does not bind
        "select * frm run",  # does not parse
        "select error($name) from run",  # fails while it runs
        "select case when range < 50000 then 1 else error('late') end from range(100000)",  # in mid-stream
        "delete from run",  # read-only
    ],
)
def test_sql_that_fails_is_shown_with_its_parameters(make_store, text):
    values = {"name": "the value"} if "$" in text else {}
    with pytest.raises(QueryError) as caught:
        query.run_sql(make_store().store, text, values)
    assert text in str(caught.value)
    assert ("$name = 'the value'" in str(caught.value)) == bool(values)


def test_python_variables_are_not_tables(make_store):
    import pyarrow

    secret = pyarrow.table({"a": [1]})
    with pytest.raises(QueryError, match="secret does not exist"):
        query.run_sql(make_store().store, "from secret")
    assert secret.num_rows == 1


def test_every_analysis_says_what_a_row_is_and_runs_on_any_store(make_store):
    store = make_store(runs=("a", "b")).store
    for name, grain in query.analyses().items():
        assert grain.startswith("one row"), name
        query.run_analysis(store, name)


def test_every_sql_file_takes_its_values_as_parameters_only():
    for kind in ("sql/analyses", "sql/checks"):
        for name, path in recipes.listing(kind, ".sql").items():
            text = path.read_text(encoding="utf-8")
            assert text.splitlines()[0].startswith(f"-- {name}: one row per "), path
            assert "{{" not in text, path
            assert "{%" not in text, path


def test_storage_and_images(make_store):
    store = make_store(images=2, grid=(3, 4)).store
    with store.publish() as con:
        con.execute("update run set bytes = 3000000, rows = 96")
    row = query.run_analysis(store, "storage").to_pylist()[0]
    assert (row["megabytes"], row["megabytes_per_image"], row["share"]) == (3.0, 1.5, 1.0)
    rows = query.run_analysis(store, "images").to_pylist()
    assert [(r["image_id"], r["names"], r["grids"], r["patches"]) for r in rows] == [
        (1, ["1.png"], ["3 x 4"], 12),
        (2, ["2.png"], ["3 x 4"], 12),
    ]
