"""What ways of matching keypoints share: the course of the work, and rows of table `match`.

A way states how a source vector is taken, how its place in the target is found, and where that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from kvstore.contracts import Site
from kvstore.devices import choose_device
from kvstore.matching import Heads
from kvstore.pairs import Points, read_points
from kvstore.probes import Outcome, Part, Request, parts
from kvstore.probes._predictions import (
    POSITION,
    Done,
    Head,
    Size,
    Vectors,
    Writer,
    heads_of,
    is_scored,
    kinds,
    of_grid,
    score,
    sizes,
    tensor,
)
from kvstore.progress import track

if TYPE_CHECKING:
    import torch

    from kvstore.store import Store

#: Bytes of float16 vectors that a block of pairs may hold.
BLOCK_BYTES = 256 << 20

_COMPLETE = """
with expected as (
    select p.pair_id, k.name
    from run r
    join pair p using (dataset_id)
    join pair_keypoint k using (dataset_id, pair_id)
    where r.run_id = $run
      and p.source_image_id in (select image_id from token_grid where run_id = $run and grid = 0)
      and p.target_image_id in (select image_id from token_grid where run_id = $run and grid = 0)
)
select m.site, m.layer, m.head
from match m left join expected e using (pair_id, name)
where m.run_id = $run and m.probe = $probe
group by all
having count(*) = $points and count(e.pair_id) = $points and count(distinct (m.pair_id, m.name)) = $points
"""

Array = np.ndarray[Any, Any]


class Way(Protocol):
    """A way of matching some points; a place is a number whose meaning is the way's own."""

    @property
    def probe(self) -> str:
        """Its name in table `match`."""

    @property
    def same_place(self) -> Array:
        """The place in the target at each keypoint's relative place: int64 [points]."""

    def sources(self, vectors: Mapping[int, Vectors], at: slice) -> Array:
        """Source vectors [heads, points, width] of some points from images' [heads, patches, width]."""

    def nearest(
        self, source: torch.Tensor, target: torch.Tensor, image: int, heads: Heads
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Places and similarities [kinds, points] in a target image, [heads, patches, width]."""

    def places(self, place: Array) -> tuple[Array, Array, Array]:
        """x, y and the stored number of the patch of places [heads, points]."""


def match(store: Store, request: Request, made: Callable[[Points], Way]) -> Outcome:
    """Fill `match` for the request, then `score` for the run; what is complete stays as it is.

    Raises `UnknownNameError` and `UsageError` as `kvstore.probes.parts` and `kvstore.pairs.read_points` do.
    """
    run_id = request.run_id
    with store.tables() as con:
        wanted = parts(con, request)
        points = read_points(con, run_id)
        way = made(points)
        done = Done.of(con, _COMPLETE, {"run": run_id, "probe": way.probe, "points": len(points)})
        scored = is_scored(con, run_id, way.probe, done)
    work = _Work(store, request, points, way, sizes(store, run_id, wanted, int(points.target[0])))
    todo = [part for part in wanted if not set(work.heads_of(part)) <= done[part.site, part.layer]]
    work.run(todo, floor=not done[POSITION, 0])
    if work.writer.rows or not scored:
        score(store, run_id, way.probe)
    items = len(np.unique(points.pair_id))
    return Outcome(len(todo), len(wanted) - len(todo), work.writer.rows, items)


class _Work:
    """The matching of one request."""

    def __init__(
        self, store: Store, request: Request, points: Points, way: Way, sizes: Mapping[Site, Size]
    ) -> None:
        self.store, self.points, self.way, self.sizes = store, points, way, sizes
        self.run_id, self.heads, self.device = request.run_id, request.heads, request.device
        self.writer = Writer(
            store, self.run_id, way.probe, "match", ("run_id", "probe", "site", "layer", "head")
        )

    def heads_of(self, part: Part) -> list[Head]:
        """The values of column `head` that a part gets."""
        return heads_of(part.site, self.heads, self.sizes[part.site])

    def run(self, todo: list[Part], *, floor: bool) -> None:
        """Match part after part, the floor of positions too when asked for."""
        device = choose_device(self.device) if todo else None
        with track(self.way.probe, len(todo) * len(self.points), "keypoint") as advance:
            for part in todo:
                self.writer.add(self._match(part, device, advance))
        if floor:
            place = self.way.same_place[None]
            self.writer.add(self._rows(POSITION, 0, [None], place, np.zeros(place.shape, np.float32)))
        self.writer.flush()

    def _match(self, part: Part, device: Any, advance: Any) -> pa.Table:
        """The rows of `match` of one part, in the points' order, head by head."""
        heads = self.heads_of(part)
        size = self.sizes[part.site]
        place = np.empty((len(heads), len(self.points)), np.int64)
        similarity = np.empty(place.shape, np.float32)
        how = kinds(part.site, self.heads)
        for block in self.points.blocks(2 * size.heads * size.width, BLOCK_BYTES):
            for where, source, target in self._vectors(part, block):
                image = int(self.points.target[where.start])
                found = self.way.nearest(tensor(source, device), tensor(target, device), image, how)
                place[:, where], similarity[:, where] = (one.cpu().numpy() for one in found)
                advance(where.stop - where.start)
        return self._rows(part.site, part.layer, heads, place, similarity)

    def _vectors(self, part: Part, block: list[slice]) -> Iterator[tuple[slice, Array, Vectors]]:
        """Source vectors [heads, points, width] and target vectors [heads, patches, width], per target."""
        from kvstore.vectors import read_layer

        points = self.points
        images = {int(image) for at in block for side in (points.source, points.target) for image in side[at]}
        stored = read_layer(self.store.lance, self.run_id, part.site, part.layer, sorted(images))
        vectors = {image: of_grid(array, points.grids[image]) for image, array in stored.items()}
        for at in block:
            source = self.way.sources(vectors, at)
            yield at, source, vectors[int(points.target[at.start])]

    def _rows(self, site: str, layer: int, heads: list[Head], place: Array, similarity: Array) -> pa.Table:
        points, n = self.points, len(self.points)
        x, y, number = self.way.places(place)
        return pa.table(
            {
                "run_id": pa.repeat(self.run_id, n * len(heads)),
                "probe": pa.repeat(self.way.probe, n * len(heads)),
                "pair_id": pa.array(np.tile(points.pair_id, len(heads)), pa.int32()),
                "name": pa.array(np.tile(points.name, len(heads)), pa.string()),
                "site": pa.repeat(site, n * len(heads)),
                "layer": pa.array(np.full(n * len(heads), layer), pa.int16()),
                "head": pa.array([head for head in heads for _ in range(n)], pa.int16()),
                "patch": pa.array(number.reshape(-1), pa.int32()),
                "x": pa.array(x.reshape(-1), pa.float64()),
                "y": pa.array(y.reshape(-1), pa.float64()),
                "similarity": pa.array(similarity.reshape(-1), pa.float32()),
            }
        )
