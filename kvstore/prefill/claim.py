"""A run's name, and the right to work on it, among processes that start at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from kvstore import locks
from kvstore.errors import StoreBusyError
from kvstore.prefill import record
from kvstore.prefill.plan import Plan

if TYPE_CHECKING:
    from kvstore.store import Store


@contextmanager
def claim(store: Store, plan: Plan) -> Iterator[str]:
    """Hold the run of these inputs, or one of a new name; yields the name.

    The inputs are held, too: so a name that is held and not in the catalog is that of other inputs, whose run
    is being started, and we take the next name. One that `--run` asks for is waited for. Raises
    `StoreBusyError` when another process works on our own run, or has held that name for long.
    """
    holder, taken = locks.Unchanged(), set[str]()
    what = f"run {record.run_id(store.runs(), plan)}"
    with store.hold_inputs(plan.fingerprint, what):
        while True:
            name = record.run_id(store.runs(), plan, taken)
            with ExitStack() as stack:
                try:
                    stack.enter_context(store.hold(name))
                except StoreBusyError as busy:
                    ours = {run["run_id"]: run["fingerprint"] for run in store.runs()}.get(name)
                    if ours == plan.fingerprint or holder.seconds(str(busy)) > locks.PATIENCE:
                        raise
                    if plan.options.run is None:
                        taken.add(name)
                    else:
                        time.sleep(0.1)
                    continue
                if name == record.run_id(store.runs(), plan, taken):
                    yield name
                    return
