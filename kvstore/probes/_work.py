"""The course of a probe's work: read one part after another, write its predictions, score the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from kvstore.devices import choose_device
from kvstore.geometry import Placed
from kvstore.matching import Heads
from kvstore.probes import Outcome, Part, Request, parts
from kvstore.probes._predictions import (
    POSITION,
    Done,
    Head,
    Writer,
    heads_of,
    is_scored,
    kinds,
    score,
    sizes,
)
from kvstore.probes._vectors import Places, Source, Stored
from kvstore.progress import track

if TYPE_CHECKING:
    from kvstore.store import Store


@dataclass(frozen=True, slots=True)
class At:
    """Where predictions belong: site, layer, values of column `head`; the floor of positions has no part."""

    site: str
    layer: int
    heads: list[Head]
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a probe states of its work.

    table      where its predictions go
    complete   SQL for the (site, layer, head) that have all of `items`; takes $run, $probe, $items
    grids      grid 0 of each image that it reads
    items      how many predictions make a part complete
    reads      images that `rows` takes from its source for one part
    rows       the predictions of one part from its vectors, or of the floor from positions
    """

    probe: str
    table: str
    complete: str
    grids: Mapping[int, Placed]
    items: int
    reads: int
    rows: Callable[[At, Source, Heads], pa.Table]

    def carry_out(self, store: Store, request: Request) -> Outcome:
        """Fill the table for the request, then `score` for the run; what is complete stays as it is."""
        run_id = request.run_id
        with store.tables() as con:
            wanted = parts(con, request)
            done = Done.of(con, self.complete, {"run": run_id, "probe": self.probe, "items": self.items})
            scored = is_scored(con, run_id, self.probe, done)
        found = sizes(store, run_id, wanted, next(iter(self.grids)))
        heads = {part: heads_of(part.site, request.heads, found[part.site]) for part in wanted}
        todo = [part for part in wanted if not set(heads[part]) <= done[part.site, part.layer]]
        writer = Writer(store, run_id, self.probe, self.table, ("run_id", "probe", "site", "layer", "head"))
        device = choose_device(request.device) if todo else None
        with track(self.probe, len(todo) * self.reads, "image") as advance:
            for part in todo:
                size = found[part.site]
                each = 2 * size.heads * size.width
                source = Stored(store, run_id, part, self.grids, each, device, advance)
                at = At(part.site, part.layer, heads[part], part)
                writer.add(self.rows(at, source, kinds(part.site, request.heads)))
        if not done[POSITION, 0]:
            writer.add(self.rows(At(POSITION, 0, [None]), Places(self.grids), "concat"))
        writer.flush()
        if writer.rows or not scored:
            score(store, run_id, self.probe)
        return Outcome(len(todo), len(wanted) - len(todo), writer.rows, self.items)
