"""SQL with `run_id = ...` with 100 small runs in the store, against the same with one run.

A small run: 25 images by a tiny model, 8 layers x 2 heads x 196 patches (78,400 rows). The floor of the view
is DuckDB's own: a union of 100 plain DuckDB tables takes it about 0.1 ms a table to plan. `run_vectors` names
the run outside the filter, so that nothing else is planned.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from kvstore.prefill import ingest
from kvstore.prefill.options import Options
from kvstore.store import Store
from tests.bench.figure import Figure, in_turn

RUNS, IMAGES, ROUNDS = 100, 25, 9
QUERIES = {
    "mean key norm by layer": (
        "select layer, avg(sqrt(list_dot_product(key, key))) from patch_kv where run_id = $run group by layer"
    ),
    "one (image, layer) of values": (
        "select head, patch, value from patch_kv where run_id = $run and image_id = 3 and layer = 5"
    ),
    "the same by run_vectors": (
        "select head, patch, value from run_vectors($run, 'patch_kv') where image_id = 3 and layer = 5"
    ),
}


def measure() -> list[Figure]:
    """Two queries, each on both stores in turn, on open connections."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    try:
        one = _store(folder / "one", 1)
        many = _store(folder / "many", RUNS)
        return [_figure(name, query, many, one) for name, query in QUERIES.items()]
    finally:
        shutil.rmtree(folder)


def _figure(name: str, query: str, many: Store, one: Store) -> Figure:
    with many.connect() as a, one.connect() as b:
        run = {"run": "run"}
        times = in_turn(
            lambda: a.execute(query, run).fetchall(), lambda: b.execute(query, run).fetchall(), ROUNDS
        )
    note = f"{name}: {1e3 * times[0]:.1f} against {1e3 * times[1]:.1f} ms"
    return Figure("SQL with 100 runs / with 1 run", times[2], "x", "at most 2", times[2] <= 2, note)


def _store(folder: Path, runs: int) -> Store:
    """One run ingested, the others copies of it under other names."""
    store = Store.open(folder, create=True)
    plan = ingest.plan(Options("shapes", "tiny-onevision", limit=IMAGES, sites=("value", "key"), run="run"))
    meter = ingest.Meter()
    ingest.ingest(store, plan, ingest.look(plan, meter), meter)
    with store.publish() as con:
        for number in range(1, runs):
            name = f"run{number:03d}"
            for path in store.lance.glob("run.*.lance"):
                shutil.copytree(path, store.lance / path.name.replace("run.", f"{name}.", 1))
            con.execute(
                "insert into run select * replace "
                "($name as run_id, $name as fingerprint, $identity as identity) "
                "from run where run_id = 'run'",
                {"name": name, "identity": json.dumps({"copy": number})},
            )
            con.execute(
                "insert into token_grid select * replace ($name as run_id) "
                "from token_grid where run_id = 'run'",
                {"name": name},
            )
    return store
