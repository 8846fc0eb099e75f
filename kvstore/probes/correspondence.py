"""Semantic correspondence: for each keypoint of a pair, the target patch most similar to the source's patch.

The protocol is nearest-neighbour matching of DIFT (Tang et al. 2023) on SPair-71k (Min et al. 2019), in its
`patch` variant: the source vector is that of the patch that contains the keypoint, and the prediction is the
centre of the target patch with the highest cosine similarity at the same site, layer and head. Both images
are seen through grid 0 (LLaVA's overview; the only grid elsewhere).

Beside them stands a floor that looks at no vector, as site `position`: the target patch at the same relative
place of its image as the keypoint has in the source image. The other floor, chance, is exact and made by
SQL (macro `chance_hits`).

Cost and memory: a target image is taken once per layer with the source patches of all its pairs, as one
matrix product per head. At most `BLOCK_BYTES` of vectors, `matching.CHUNK` similarities and one image in
float32 are held, and some finished rows (and one layer's) wait to be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kvstore.contracts import Site
from kvstore.devices import choose_device
from kvstore.geometry import centre_of
from kvstore.matching import nearest
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
    from kvstore.store import Store

NAME = "correspondence"
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


def predict(store: Store, request: Request) -> Outcome:
    """Fill `match` for the request, then `score` for the run; what is complete stays as it is.

    Raises `UnknownNameError` and `UsageError` as `kvstore.probes.parts` and `kvstore.pairs.read_points` do.
    """
    run_id = request.run_id
    with store.connect() as con:
        wanted = parts(con, request)
        points = read_points(con, run_id)
        done = Done.of(con, _COMPLETE, {"run": run_id, "probe": NAME, "points": len(points)})
        scored = is_scored(con, run_id, NAME, done)
    work = _Work(store, request, points, sizes(store, run_id, wanted, int(points.target[0])))
    todo = [part for part in wanted if not set(work.heads_of(part)) <= done[part.site, part.layer]]
    work.run(todo, floor=not done[POSITION, 0])
    if work.writer.rows or not scored:
        score(store, run_id, NAME)
    items = len(np.unique(points.pair_id))
    return Outcome(len(todo), len(wanted) - len(todo), work.writer.rows, items)


class _Work:
    """The matching of one request."""

    def __init__(self, store: Store, request: Request, points: Points, sizes: Mapping[Site, Size]) -> None:
        self.store, self.points, self.sizes = store, points, sizes
        self.run_id, self.heads, self.device = request.run_id, request.heads, request.device
        self.centres = _Centres(points)
        self.writer = Writer(store, self.run_id, NAME, "match", ("run_id", "probe", "site", "layer", "head"))

    def heads_of(self, part: Part) -> list[Head]:
        """The values of column `head` that a part gets."""
        return heads_of(part.site, self.heads, self.sizes[part.site])

    def run(self, todo: list[Part], *, floor: bool) -> None:
        """Match part after part, the floor of positions too when asked for."""
        device = choose_device(self.device) if todo else None
        with track(NAME, len(todo) * len(self.points), "keypoint") as advance:
            for part in todo:
                self.writer.add(self._match(part, device, advance))
        if floor:
            patch = self.points.same_place[None]
            self.writer.add(self._rows(POSITION, 0, [None], patch, np.zeros(patch.shape, np.float32)))
        self.writer.flush()

    def _match(self, part: Part, device: Any, advance: Any) -> pa.Table:
        """The rows of `match` of one part, in the points' order, head by head."""
        heads = self.heads_of(part)
        size = self.sizes[part.site]
        patch = np.empty((len(heads), len(self.points)), np.int64)
        similarity = np.empty(patch.shape, np.float32)
        how = kinds(part.site, self.heads)
        for block in self.points.blocks(2 * size.heads * size.width, BLOCK_BYTES):
            for where, source, target in self._vectors(part, block):
                found = nearest(tensor(source, device), tensor(target, device), how)
                patch[:, where], similarity[:, where] = (one.cpu().numpy() for one in found)
                advance(where.stop - where.start)
        return self._rows(part.site, part.layer, heads, patch, similarity)

    def _vectors(self, part: Part, block: list[slice]) -> Iterator[tuple[slice, Vectors, Vectors]]:
        """Source vectors [heads, points, width] and target vectors [heads, patches, width], per target."""
        from kvstore.vectors import read_layer

        points = self.points
        images = {int(image) for at in block for side in (points.source, points.target) for image in side[at]}
        stored = read_layer(self.store.lance, self.run_id, part.site, part.layer, sorted(images))
        vectors = {image: of_grid(array, points.grids[image]) for image, array in stored.items()}
        for at in block:
            source = np.stack(
                [
                    vectors[image][:, patch]
                    for image, patch in zip(points.source[at], points.source_patch[at], strict=True)
                ],
                axis=1,
            )
            yield at, source, vectors[int(points.target[at.start])]

    def _rows(self, site: str, layer: int, heads: list[Head], patch: Array, similarity: Array) -> pa.Table:
        points, n = self.points, len(self.points)
        x, y, number = self.centres.of(patch)
        return pa.table(
            {
                "run_id": pa.repeat(self.run_id, n * len(heads)),
                "probe": pa.repeat(NAME, n * len(heads)),
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


class _Centres:
    """Pixel centres and stored numbers of predicted patches, looked up in their targets' grids."""

    def __init__(self, points: Points) -> None:
        images, position = np.unique(points.target, return_inverse=True)
        placed = [points.grids[int(image)] for image in images]
        sizes = [grid.grid.patches for grid in placed]
        starts = np.cumsum([0, *sizes[:-1]])
        self.centres = np.array(
            [centre_of(patch, grid.grid) for grid in placed for patch in range(grid.grid.patches)]
        )  # [patches of all targets, 2]
        self.start = starts[position]  # [points]
        self.first = np.array([grid.first_patch for grid in placed])[position]  # [points]

    def of(self, patch: Array) -> tuple[Array, Array, Array]:
        """x, y and the stored number of each patch [heads, points], counted within its grid."""
        at = patch + self.start
        return self.centres[at, 0], self.centres[at, 1], patch + self.first
