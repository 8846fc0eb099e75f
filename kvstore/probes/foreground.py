"""Foreground segmentation: each patch goes to the nearer of two class means, foreground or background.

A patch is foreground in truth when at least half of its pixel box is covered by the masks of the image's
objects, crowds left out; images are seen through grid 0. The run's images fall into two halves by their place
in the data set's order, even and odd. At each site, layer and head, the mean of the L2-normalised vectors of
foreground patches and that of background patches are taken over one half, images without both kinds left
out, and each patch of the other half gets the class whose mean is nearer by cosine; then the other way round.
So every image has a prediction by means that it had no part in. (Frames of a video have their neighbours in
the other half.)

Beside them stands a floor, as site `position`: the same means of what tells only where a patch is, the 25
products of 1, cos, sin (1 and 2 half-turns across the grid) in x with the same in y. The other floor, chance,
takes every patch for foreground and is made by SQL (macro `mask_overlaps`).

Cost and memory: each layer is read twice, image by image. One image in float32, at most `BLOCK_BYTES` of
vectors, two means per half and head, the truth (a byte per patch) and one layer's predictions (two bytes per
patch and head) are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kvstore.errors import UsageError
from kvstore.geometry import Placed, coverage, read_grids
from kvstore.masks import to_array, union
from kvstore.matching import TIE, Heads
from kvstore.probes import Outcome, Request, parts
from kvstore.probes._truth import why_none
from kvstore.probes._vectors import Source, normal, unit
from kvstore.probes._work import At, Work

if TYPE_CHECKING:
    import duckdb
    import torch

    from kvstore.store import Store

NAME = "foreground"
#: A patch is foreground from this share of its pixel box on.
COVERED = 0.5

_IMAGES = """
select t.image_id, min(d.position) as place
from token_grid t
join run r using (run_id)
join dataset_image d using (dataset_id, image_id)
where t.run_id = $run and t.grid = 0
group by t.image_id
order by place
"""
_MASKS = """
select o.image_id, list(o.mask::varchar order by o.object_id) as masks
from object o
join run r using (dataset_id)
where r.run_id = $run and o.mask is not null and not o.crowd
  and o.image_id in (select image_id from token_grid where run_id = $run and grid = 0)
group by o.image_id
"""
_COMPLETE = """
select s.site, s.layer, s.head
from segment s left join token_grid t on t.run_id = s.run_id and t.image_id = s.image_id and t.grid = 0
where s.run_id = $run and s.probe = $probe
group by all
having count(*) = $items and count(distinct t.image_id) = $items
"""

Bits = np.ndarray[Any, np.dtype[np.bool_]]


def predict(store: Store, request: Request) -> Outcome:
    """Fill `segment` for the request, then `score` for the run; what is complete stays as it is.

    Raises what `kvstore.probes.parts` does, and `UsageError` when the data set has no masks or a half has no
    image with both kinds of patches.
    """
    with store.tables() as con:
        parts(con, request)
        scenes = read_scenes(con, request.run_id)

    def rows(at: At, source: Source, how: Heads) -> pa.Table:
        return _rows(request.run_id, scenes, at, _segment(scenes, source, how))

    grids = {scene.image_id: scene.placed for scene in scenes}
    work = Work(NAME, "segment", _COMPLETE, grids, len(scenes), 2 * len(scenes), rows)
    return work.carry_out(store, request)


@dataclass(frozen=True, slots=True)
class Scene:
    """One image: which half it is in (0 even, 1 odd), its grid 0, and which of its patches are foreground."""

    image_id: int
    half: int
    placed: Placed
    truth: Bits  # [patches]

    @property
    def fits(self) -> bool:
        """Whether it has both kinds of patches, so that it takes part in the means."""
        return bool(self.truth.any() and not self.truth.all())


def read_scenes(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Scene]:
    """The run's images in the data set's order, with their true foreground."""
    grids = read_grids(con, run_id, 0)
    images = con.execute(_IMAGES, {"run": run_id}).fetchall()
    truth = dict(_truths(con, run_id, grids))
    if not truth:
        raise UsageError(why_none(con, run_id))
    scenes = []
    for image, place in images:
        placed = grids[image][0]
        none = np.zeros(placed.grid.patches, bool)
        scenes.append(Scene(image, place % 2, placed, truth.get(image, none)))
    for half, name in enumerate(("even", "odd")):
        if not any(scene.fits for scene in scenes if scene.half == half):
            raise UsageError(
                f"no image at an {name} place of run '{run_id}' has both foreground and background patches:"
                " nothing to take means of. Ingest more images: the same command with a larger --limit."
            )
    return scenes


def _truths(
    con: duckdb.DuckDBPyConnection, run_id: str, grids: dict[int, list[Placed]]
) -> Iterator[tuple[int, Bits]]:
    """(image_id, foreground [patches]) of each image that has masks."""
    result = con.execute(_MASKS, {"run": run_id})
    while some := result.fetchmany(256):
        for image, masks in some:
            yield image, coverage(to_array(union(masks)), grids[image][0].grid) >= COVERED - 1e-9


def _segment(scenes: Sequence[Scene], source: Source, how: Heads) -> list[Bits]:
    """Foreground of each scene, bool [kinds, patches], by the means of the other half."""
    means = _means(scenes, source, how)
    return [
        _nearer(unit(vectors, how), means[1 - scene.half]) for scene, vectors in _with_vectors(scenes, source)
    ]


def _with_vectors(scenes: Sequence[Scene], source: Source) -> Iterator[tuple[Scene, torch.Tensor]]:
    vectors = (found for _, found in source([scene.image_id for scene in scenes]))
    return zip(scenes, vectors, strict=True)


def _means(
    scenes: Sequence[Scene], source: Source, how: Heads
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Unit class means [kinds, 2, width] of each half, background first: a list, as `unit` gives one.

    Sums are float64, so that they do not depend on the device or on blocks.
    """
    import torch

    sums: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for scene, vectors in _with_vectors([scene for scene in scenes if scene.fits], source):
        truth = torch.from_numpy(np.stack([~scene.truth, scene.truth])).to(vectors.device, torch.float64)
        new = [truth @ one.double() for one in unit(vectors, how)]  # [kinds, 2, width]
        old = sums[scene.half]
        old[:] = [a + b for a, b in zip(old, new, strict=True)] if old else new
    # The mean and the sum have one direction, and nothing but that is compared.
    even, odd = ([normal(one).float() for one in half] for half in sums)
    return even, odd


def _nearer(vectors: list[torch.Tensor], means: list[torch.Tensor]) -> Bits:
    """Whether the foreground's mean is the nearer, bool [kinds, patches]; a tie (see `TIE`) is background."""
    found = [
        one @ (mean[:, 1] - mean[:, 0])[..., None] > TIE for one, mean in zip(vectors, means, strict=True)
    ]
    return np.concatenate([one[..., 0].cpu().numpy() for one in found])


def _rows(run_id: str, scenes: Sequence[Scene], at: At, predicted: list[Bits]) -> pa.Table:
    """Rows of `segment`, head by head in the scenes' order."""
    n = len(scenes) * len(at.heads)
    truth = pa.array([_text(scene.truth) for scene in scenes])
    index = pa.array(np.tile(np.arange(len(scenes), dtype=np.int32), len(at.heads)))
    return pa.table(
        {
            "run_id": pa.repeat(run_id, n),
            "probe": pa.repeat(NAME, n),
            "image_id": pa.array([scene.image_id for _ in at.heads for scene in scenes], pa.int32()),
            "site": pa.repeat(at.site, n),
            "layer": pa.array(np.full(n, at.layer), pa.int16()),
            "head": pa.array([head for head in at.heads for _ in scenes], pa.int16()),
            "predicted": pa.array([_text(bits[k]) for k in range(len(at.heads)) for bits in predicted]),
            "truth": pa.DictionaryArray.from_arrays(index, truth),
        }
    )


def _text(bits: Bits) -> str:
    """Bits as DuckDB reads them: 0s and 1s, the first patch first."""
    return (bits + np.uint8(ord("0"))).astype(np.uint8).tobytes().decode()
