"""Windows to disk beside the prefill: some threads write fragments, one thread commits them in order.

A writer gives its buffer back when the window is written, and then waits for the disk; so some threads wait
while others write, and the disk is never idle. A commit makes fragments visible in Lance first and then
publishes the catalog; what is visible in Lance only is taken back by the next session.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import pyarrow as pa

from kvstore.prefill.blocks import Buffer
from kvstore.prefill.record import Progress
from kvstore.prefill.rows import Layers, Stored, record_batches
from kvstore.vectors import schema as tables
from kvstore.vectors.checksums import Sums
from kvstore.vectors.write import commit, settled, sync, write_fragment

WRITERS = 4
#: Windows in memory: one being filled, one being finished by the device, one being written.
BUFFERS = 3
#: Seconds between commits at least; and so many times what the last took, where committing is slow.
INTERVAL, PATIENCE = 2.0, 20.0


@dataclass
class Window:
    """A window on its way to disk: what is written, and what the catalog is to be told."""

    buffer: Buffer
    images: list[Stored]
    progress: Progress
    fragments: dict[str, list[Any]] = field(default_factory=dict)


class Writer:
    """Takes filled windows, gives empty buffers, commits in order.

    publish   called after each Lance commit, with what was stored and the tables' versions
    busy      seconds that writers worked, all together
    """

    def __init__(
        self,
        lance_dir: Path,
        run_id: str,
        schemas: Mapping[str, pa.Schema],
        layers: Layers,
        buffers: list[Buffer],
        publish: Callable[[Progress, dict[str, int]], None],
    ) -> None:
        self.lance_dir, self.run_id, self.schemas, self.layers = lance_dir, run_id, schemas, layers
        self.publish = publish
        self.busy = 0.0
        self._free: Queue[Buffer] = Queue()
        for buffer in buffers:
            self._free.put(buffer)
        self._pool = ThreadPoolExecutor(WRITERS, "write")
        self._committer = ThreadPoolExecutor(1, "commit")
        self._written: deque[Future[Window]] = deque()
        self._commit: Future[None] | None = None
        self._next = time.monotonic() + INTERVAL

    def buffer(self) -> Buffer:
        """An empty buffer, waited for when all are being written; raises what a writer met."""
        buffer = self._free.get()  # a writer that fails gives its buffer back, too
        self.raise_errors()
        return buffer

    def put(self, window: Window) -> None:
        """Write a window; commit those before it when it is time to."""
        self._written.append(self._pool.submit(self._write, window))
        if time.monotonic() >= self._next:
            self._start_commit()

    def raise_errors(self) -> None:
        """Raise what a writer or the committer met."""
        for future in (*self._written, self._commit):
            if future is not None and future.done() and (error := future.exception()):
                raise error

    def close(self) -> None:
        """Wait for all windows and commit them. After an error: commit the windows before the failed one."""
        try:
            if self._commit is not None:
                self._commit.result()
            self._commit_windows(self._take_written(wait=True))
            self.raise_errors()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._committer.shutdown()

    # ------------------------------------------------------------------------------- writing

    def _write(self, window: Window) -> Window:
        start = time.perf_counter()
        try:
            sums = Sums()
            for kind, schema in self.schemas.items():
                if kind == tables.CHECKSUM:
                    blocks = sums.batches()
                else:
                    blocks = sums.seen(kind, record_batches(kind, schema, window.images, self.layers))
                path = tables.location(self.lance_dir, self.run_id, kind)
                window.fragments[kind] = write_fragment(path, schema, blocks) if window.images else []
        finally:
            self._free.put(window.buffer)
        for kind in tables.LARGE & window.fragments.keys():
            sync(tables.location(self.lance_dir, self.run_id, kind), window.fragments[kind])
        self.busy += time.perf_counter() - start
        return window

    # ------------------------------------------------------------------------------ committing

    def _start_commit(self) -> None:
        if self._commit is not None and not self._commit.done():
            return
        self.raise_errors()
        self._commit = self._committer.submit(self._commit_windows, self._take_written(wait=False))

    def _take_written(self, wait: bool) -> list[Window]:
        """The windows written so far, up to the first that is not (or failed)."""
        taken = []
        while self._written:
            future = self._written[0]
            if not (wait or future.done()) or future.exception():
                break
            taken.append(self._written.popleft().result())
        return taken

    def _commit_windows(self, windows: list[Window]) -> None:
        if not windows:
            return
        start = time.monotonic()
        for kind in self.schemas:
            fragments = [part for window in windows for part in window.fragments[kind]]
            commit(tables.location(self.lance_dir, self.run_id, kind), fragments)
        # Small files only now: each sync makes a journal wait for all else.
        versions = settled(self.lance_dir, self.run_id, self.schemas)
        self.publish(_sum([window.progress for window in windows]), versions)
        self._next = time.monotonic() + max(INTERVAL, PATIENCE * (time.monotonic() - start))


def _sum(parts: list[Progress]) -> Progress:
    return Progress(
        grids=[grid for part in parts for grid in part.grids],
        faults=[fault for part in parts for fault in part.faults],
        tokens=sum(part.tokens for part in parts),
        rows=sum(part.rows for part in parts),
        bytes=sum(part.bytes for part in parts),
    )
