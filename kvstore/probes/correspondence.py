"""Semantic correspondence: for each keypoint of a pair, the target patch most similar to the source's patch.

The protocol is nearest-neighbour matching of DIFT (Tang et al. 2023) on SPair-71k (Min et al. 2019), in its
`patch` variant: the source vector is that of the patch that contains the keypoint, and the prediction is the
centre of the target patch with the highest cosine similarity at the same site, layer and head. Both images
are seen through grid 0 (LLaVA's overview; the only grid elsewhere).

Cost and memory: a target image is taken once per layer with the source patches of all its pairs, as one
matrix product per head. At most `BLOCK_BYTES` of vectors, `matching.CHUNK` similarities and one image in
float32 are held, and `ROWS_PER_PUBLISH` finished rows (and one layer's) wait to be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kvstore.contracts import Site
from kvstore.errors import UnknownNameError
from kvstore.geometry import centre_of
from kvstore.matching import Heads, nearest
from kvstore.models import choose_device
from kvstore.pairs import Points, read_points
from kvstore.probes import Outcome, Part, Request, parts
from kvstore.progress import track
from kvstore.recipes import locate

if TYPE_CHECKING:
    import duckdb
    import torch

    from kvstore.store import Store

NAME = "correspondence"
#: Analysis shown at the end.
BEST = "pck_best"
#: Bytes of float16 vectors that a block of pairs may hold.
BLOCK_BYTES = 256 << 20
#: Finished rows that wait for one publish of the catalog; a layer is never split, and a kill loses no more.
ROWS_PER_PUBLISH = 500_000

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
where m.run_id = $run
group by all
having count(*) = $points and count(e.pair_id) = $points and count(distinct (m.pair_id, m.name)) = $points
"""
_REPLACED = """
delete from match using (select distinct run_id, site, layer, head from found) f
where match.run_id = f.run_id and match.site = f.site and match.layer = f.layer
  and match.head is not distinct from f.head
"""

Head = int | None
Array = np.ndarray[Any, Any]
Vectors = np.ndarray[Any, np.dtype[np.float16]]


def predict(store: Store, request: Request) -> Outcome:
    """Fill `match` for the request, then `score` for the run; what is complete stays as it is.

    Raises `UnknownNameError` and `UsageError` as `kvstore.probes.parts` and `kvstore.pairs.read_points` do.
    """
    with store.connect() as con:
        wanted = parts(con, request)
        points = read_points(con, request.run_id)
        done = _complete(con, request.run_id, len(points))
        scored = _is_scored(con, request.run_id)
    work = _Work(store, request, points, _sizes(store, request, wanted, points))
    todo = [part for part in wanted if not set(work.heads_of(part.site)) <= done[part]]
    work.run(todo)
    if todo or not scored:
        score(store, request.run_id)
    return Outcome(len(todo), len(wanted) - len(todo), work.rows, len(np.unique(points.pair_id)))


def score(store: Store, run_id: str) -> None:
    """Make the run's figures from `match` by sql/analyses/score_correspondence.sql, and replace the old."""
    text = locate("sql/analyses", f"score_{NAME}", ".sql").read_text(encoding="utf-8")
    with store.connect() as con:
        figures = con.execute(text, {"run": run_id}).to_arrow_table()
    with store.publish() as con:
        con.execute(
            "delete from score where run_id = $run and probe = $probe", {"run": run_id, "probe": NAME}
        )
        con.register("figures", figures)
        con.execute("insert into score by name select * from figures")
        con.unregister("figures")


@dataclass(frozen=True, slots=True)
class _Size:
    """Heads and channels per head of one site."""

    heads: int
    width: int


class _Work:
    """The matching of one request; `rows` counts what it has written."""

    def __init__(self, store: Store, request: Request, points: Points, sizes: Mapping[Site, _Size]) -> None:
        self.store, self.points, self.sizes = store, points, sizes
        self.run_id, self.heads, self.device = request.run_id, request.heads, request.device
        self.centres = _Centres(points)
        self.rows = 0

    def heads_of(self, site: Site) -> list[Head]:
        """The values of column `head` that a site gets; None is the heads concatenated."""
        if site in ("input", "encoder"):
            return [None]
        each: list[Head] = list(range(self.sizes[site].heads))
        kinds: dict[Heads, list[Head]] = {"each": each, "concat": [None], "both": [*each, None]}
        return kinds[self.heads]

    def run(self, todo: list[Part]) -> None:
        """Match part after part, publishing whenever enough rows wait."""
        device = choose_device(self.device) if todo else None
        waiting: list[pa.Table] = []
        with track(NAME, len(todo) * len(self.points), "keypoint") as advance:
            for part in todo:
                waiting.append(self._match(part, device, advance))
                if sum(table.num_rows for table in waiting) >= ROWS_PER_PUBLISH:
                    self._save(waiting)
                    waiting = []
        if waiting:
            self._save(waiting)

    def _match(self, part: Part, device: Any, advance: Any) -> pa.Table:
        """The rows of `match` of one part, in the points' order, head by head."""
        heads = self.heads_of(part.site)
        size = self.sizes[part.site]
        patch = np.empty((len(heads), len(self.points)), np.int64)
        similarity = np.empty(patch.shape, np.float32)
        how: Heads = "concat" if part.site in ("input", "encoder") else self.heads
        for block in self.points.blocks(2 * size.heads * size.width, BLOCK_BYTES):
            for where, source, target in self._vectors(part, block):
                found = nearest(_tensor(source, device), _tensor(target, device), how)
                patch[:, where], similarity[:, where] = (tensor.cpu().numpy() for tensor in found)
                advance(where.stop - where.start)
        return self._rows(part, heads, patch, similarity)

    def _vectors(self, part: Part, block: list[slice]) -> Iterator[tuple[slice, Vectors, Vectors]]:
        """Source vectors [heads, points, width] and target vectors [heads, patches, width], per target."""
        from kvstore.vectors import read_layer

        points = self.points
        images = {int(image) for at in block for side in (points.source, points.target) for image in side[at]}
        stored = read_layer(self.store.lance, self.run_id, part.site, part.layer, sorted(images))
        vectors = {image: _of_grid(array, points, image) for image, array in stored.items()}
        for at in block:
            source = np.stack(
                [
                    vectors[image][:, patch]
                    for image, patch in zip(points.source[at], points.source_patch[at], strict=True)
                ],
                axis=1,
            )
            yield at, source, vectors[int(points.target[at.start])]

    def _rows(self, part: Part, heads: list[Head], patch: Array, similarity: Array) -> pa.Table:
        points, n = self.points, len(self.points)
        x, y, number = self.centres.of(patch)
        return pa.table(
            {
                "run_id": pa.repeat(self.run_id, n * len(heads)),
                "pair_id": pa.array(np.tile(points.pair_id, len(heads)), pa.int32()),
                "name": pa.array(np.tile(points.name, len(heads)), pa.string()),
                "site": pa.repeat(part.site, n * len(heads)),
                "layer": pa.array(np.full(n * len(heads), part.layer), pa.int16()),
                "head": pa.array([head for head in heads for _ in range(n)], pa.int16()),
                "patch": pa.array(number.reshape(-1), pa.int32()),
                "x": pa.array(x.reshape(-1), pa.float64()),
                "y": pa.array(y.reshape(-1), pa.float64()),
                "similarity": pa.array(similarity.reshape(-1), pa.float32()),
            }
        )

    def _save(self, tables: list[pa.Table]) -> None:
        found = pa.concat_tables(tables)
        with self.store.publish() as con:
            if not con.execute(
                "select count(*) from run where run_id = $run", {"run": self.run_id}
            ).fetchall()[0][0]:
                raise UnknownNameError("run", self.run_id, [], "It was dropped while the probe ran.")
            con.register("found", found)
            con.execute(_REPLACED)
            con.execute("insert into match by name select * from found")
            con.unregister("found")
        self.rows += found.num_rows


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


def _of_grid(array: Vectors, points: Points, image: int) -> Vectors:
    """The vectors of grid 0 of an image that may have more grids."""
    placed = points.grids[image]
    return array[:, placed.first_patch : placed.first_patch + placed.grid.patches]


def _tensor(array: Vectors, device: Any) -> torch.Tensor:
    """A copy on the device, float16: stored blocks are read-only views of a file."""
    import torch

    return torch.from_numpy(np.array(array)).to(device)


def _sizes(store: Store, request: Request, wanted: list[Part], points: Points) -> dict[Site, _Size]:
    """Heads and widths of the sites asked for, as one stored image has them."""
    from kvstore.vectors import read_site

    image = int(points.target[0])
    found = {}
    for site, layer in {part.site: part.layer for part in wanted}.items():
        heads, _, width = read_site(store.lance, request.run_id, site, layer, image).shape
        found[site] = _Size(heads, width)
    return found


def _complete(con: duckdb.DuckDBPyConnection, run_id: str, points: int) -> _Done:
    done = _Done()
    for site, layer, head in con.execute(_COMPLETE, {"run": run_id, "points": points}).fetchall():
        done[Part(site, layer)].add(head)
    return done


class _Done(dict[Part, set[Head]]):
    """The heads of each part that are complete."""

    def __missing__(self, part: Part) -> set[Head]:
        return self.setdefault(part, set())


def _is_scored(con: duckdb.DuckDBPyConnection, run_id: str) -> bool:
    """Whether every image value matched has its figures."""
    missing = con.execute(
        "select count(*) from (select distinct site, layer, head from match where run_id = $run) m"
        " where not exists (select 1 from score s where s.run_id = $run and s.probe = $probe"
        " and s.site = m.site and s.layer = m.layer and s.head is not distinct from m.head)",
        {"run": run_id, "probe": NAME},
    ).fetchall()
    return not missing[0][0]
