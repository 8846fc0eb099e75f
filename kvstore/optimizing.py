"""`kvstore optimize`, by a process of its own, which broken files or a full disk may end.

Where that process ends before its work does, the run at hand has failed, and another goes on with the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kvstore import apart
from kvstore.errors import KvstoreError, NoSpaceError
from kvstore.store import Store

#: How what was done begins, of a run that could not be optimized.
FAILED = "failed: "


def optimize(store: Store) -> dict[str, str]:
    """Optimize each run, and remove what was dropped long ago; says per run what was done.

    Raises `NoSpaceError` when the disk is full: what is done stays, and the same call goes on.
    """
    left, done = [run["run_id"] for run in store.runs()], {}
    while left:
        try:
            for run_id, what in apart.messages(work, store.root, tuple(left)):
                done[run_id] = what
                left.remove(run_id)
        except apart.EndedError as ended:
            run_id = left.pop(0)
            done[run_id] = (
                f"{FAILED}the process at work on it ended {ended}: free some disk, or see kvstore check"
            )
    return done | store.remove_orphans()


def work(root: Path, runs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Optimize these runs in order; what was done of each."""
    store = Store.open(root)
    for run_id in runs:
        try:
            yield run_id, store.optimize_run(run_id)
        except NoSpaceError:
            raise
        except KvstoreError as error:
            yield run_id, f"{FAILED}{error}"
