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

    Another run that is being started under the name we would have taken is waited for until it stands in the
    catalog; then we take the next name. Raises `StoreBusyError` when the holder works on our own run, or has
    held that name for long.
    """
    holder = locks.Unchanged()
    while True:
        name = record.run_id(store.runs(), plan)
        with ExitStack() as stack:
            try:
                stack.enter_context(store.hold(name))
            except StoreBusyError as busy:
                known = {run["run_id"]: run["fingerprint"] for run in store.runs()}
                if known.get(name) == plan.fingerprint or holder.seconds(str(busy)) > locks.PATIENCE:
                    raise
                time.sleep(0.1)
                continue
            if name == record.run_id(store.runs(), plan):
                yield name
                return
