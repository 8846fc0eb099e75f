"""`kvstore repair`: take what is broken out of a run, so that the same ingest makes it again.

Files that hold a broken image are written anew without it, from the rows that can be read; all others stay
as they are. What was made of the vectors, predictions, figures and key statistics, goes as well: nobody knows
which of it was made of broken ones.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore import pins, vectors, verify
from kvstore.errors import StoreError, UnknownNameError
from kvstore.outside import told
from kvstore.prefill import record
from kvstore.vectors import schema as tables
from kvstore.vectors import without, write

if TYPE_CHECKING:
    from kvstore.store import Store

#: Tables that a probe and an ingest make again where they are not there.
_MADE_WHEN_NEEDED = {*tables.TEXTS, tables.KEY_MOMENT}


@dataclass(frozen=True)
class Repaired:
    """Images taken out, tables whose index was made anew, and predictions and figures that went.

    `removed` are tables that are made again where they are needed: vectors of texts, and key moments.
    """

    images: list[int]
    indices: list[str]
    derived: int
    removed: list[str]


def tasks(store: Store, run_id: str | None = None) -> list[verify.Task]:
    """What there is to read of each run, or of one; `UnknownNameError` for a run that is not there."""
    runs = store.runs()
    if run_id is not None and run_id not in {run["run_id"] for run in runs}:
        raise UnknownNameError("run", run_id, [run["run_id"] for run in runs])
    with store.tables() as con:
        found = con.execute(
            "select run_id, image_id, sum(rows * columns)::bigint from token_grid group by run_id, image_id"
        ).fetchall()
    patches: dict[str, dict[int, int]] = {}
    for run, image, count in found:
        patches.setdefault(run, {})[image] = count
    return [
        verify.Task(store.lance, run["run_id"], run["versions"], patches.get(run["run_id"], {}))
        for run in runs
        if run_id in (None, run["run_id"])
    ]


def repair(store: Store, run_id: str) -> Repaired:
    """Take out the images of a run that `verify` finds broken, and make broken indices anew.

    Raises `UnknownNameError`, `StoreBusyError` while the run is being ingested, and `StoreError` where a
    table cannot be read at all, so that only a new ingest helps.
    """
    (task,) = tasks(store, run_id)
    remedy = f"kvstore drop {run_id} --now, and ingest it again"
    with told(f"run {run_id} cannot be repaired", remedy, StoreError), store.hold(run_id):
        made: list[Path] = []
        for kind, version in task.versions.items():
            pins.pin(store.lance, run_id, kind, version, made)
        pins.sync(made)
        vectors.rewind(store.lance, run_id, task.versions)
        verdict = verify.verify(task)
        lost = [
            part for part in verdict.broken if part.image_id is None and part.kind not in _MADE_WHEN_NEEDED
        ]
        if lost:
            raise StoreError(
                f"table {lost[0].kind} of run {run_id} is broken as a whole ({lost[0].why}); {remedy}"
            )
        return _mend(store, task, verdict)


def _mend(store: Store, task: verify.Task, verdict: verify.Verdict) -> Repaired:
    stale = {part.kind for part in verdict.broken if "index" in part.why}
    torn = {part.image_id for part in verdict.broken if part.image_id is not None and "index" not in part.why}
    versions, indices = without.indexed(store.lance, task.run_id, stale), sorted(stale)
    if torn:
        versions |= without.images(store.lance, task.run_id, task.versions, torn)
        write.remove(store.lance, task.run_id, tables.KEY_MOMENT)
    anew = sorted({part.kind for part in verdict.broken} & _MADE_WHEN_NEEDED)
    texts = [tables.TEXT_CHECKSUM, *tables.TEXTS] if set(anew) & set(tables.TEXTS) else []
    derived = _forget(store, task.run_id, torn, versions, texts)
    for kind in (*anew, *texts):
        write.remove(store.lance, task.run_id, kind)
    return Repaired(sorted(torn), indices, derived, anew)


def _forget(
    store: Store, run_id: str, images: Collection[int], versions: dict[str, int], gone_tables: Collection[str]
) -> int:
    """The catalog's side; how many predictions and figures went."""
    with store.publish() as con:
        gone = record.forget(con, run_id, images)
        if gone_tables and not images:
            gone = record.forget_made(con, run_id)
        record.set_versions(con, run_id, versions)
        con.execute(
            "update run set versions = map_from_entries(list_filter(map_entries(versions), "
            "lambda entry: not list_contains($gone::varchar[], entry.key))) where run_id = $run",
            {"gone": list(gone_tables), "run": run_id},
        )
    return gone
