"""What a run stores: its sites and their layers, with the nearest valid name for a wrong one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvstore.contracts import SITES, Site
from kvstore.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    import duckdb


def only_run(con: duckdb.DuckDBPyConnection, run_id: str | None) -> str:
    """The run asked for, or the store's only one."""
    runs = [str(name) for (name,) in con.execute("select run_id from run order by run_id").fetchall()]
    if run_id is None and len(runs) == 1:
        return runs[0]
    if not runs:
        raise UsageError("the store has no run yet; `kvstore ingest shapes` makes one.")
    if run_id is None:
        raise UsageError(f"the store has {len(runs)} runs; choose with --run: {', '.join(runs)}.")
    if run_id not in runs:
        raise UnknownNameError("run", run_id, runs, "See `kvstore runs`.")
    return run_id


def stored_layers(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[Site, list[int]]:
    """The layers of each site that a run stores; input has layer 0 only. Raises `UnknownNameError`."""
    only_run(con, run_id)
    sites, layers, encoder = con.execute(
        "select sites, layers, encoder_layers from run where run_id = $run", {"run": run_id}
    ).fetchall()[0]
    own = {"value": layers, "key": layers, "input": [0], "encoder": encoder}
    return {site: sorted(own[site]) for site in SITES if site in sites}


def check_site(run_id: str, site: str, stored: Iterable[Site]) -> Site:
    """`site`, when it is one that the run stores; `UnknownNameError` else."""
    if site not in SITES:
        raise UnknownNameError("site", site, SITES)
    known = {str(name): name for name in stored}
    if site not in known:
        hint = f"Run '{run_id}' does not store it: ingest with --sites {site}."
        raise UnknownNameError("stored site", site, known, hint)
    return known[site]


def check_layer(run_id: str, layer: int, known: Iterable[int]) -> None:
    """Raises `UsageError` that names the nearest layer when `layer` is not one of them."""
    there = sorted(set(known))
    if layer not in there:
        near = min(there, key=lambda other: (abs(other - layer), other))
        listed = ", ".join(map(str, there))
        raise UsageError(
            f"run '{run_id}' stores no layer {layer} there; the nearest is {near}. Stored: {listed}."
        )
