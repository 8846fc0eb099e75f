"""Categories of a data set by its own numbers, in the catalog."""

from __future__ import annotations

from pathlib import Path

from kvstore.prefill import ingest
from kvstore.prefill.options import Options
from kvstore.store import Store


def test_categories_are_stored_once_with_their_numbers(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    for limit in (1, 2):
        plan = ingest.plan(Options("shapes", "tiny-onevision-untrained", limit=limit, layers="0"))
        meter = ingest.Meter()
        ingest.ingest(store, plan, ingest.look(plan, meter), meter)
    with store.connect() as con:
        rows = con.execute("select number, name from category order by number").fetchall()
        strange = con.execute("select count(*) from object where category not in (select name from category)")
        assert strange.fetchall() == [(0,)]
    assert [number for number, _ in rows] == list(range(1, 9))
    assert rows[0] == (1, "fish")
