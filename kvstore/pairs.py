"""The keypoint pairs of a run's data set, with patches for pixels, in blocks that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore import recipes
from kvstore.errors import UsageError
from kvstore.geometry import Placed, patch_of, read_grids

if TYPE_CHECKING:
    import duckdb

Numbers = np.ndarray[Any, np.dtype[np.int64]]

#: Pairs of a run whose two images are stored. Ordered so that neighbours share images.
_POINTS = """
select
    p.pair_id, k.name, p.source_image_id, p.target_image_id, k.source_x, k.source_y,
    k.source_x * target.width / source.width as same_x, k.source_y * target.height / source.height as same_y,
    source.width as source_width, source.height as source_height,
    target.width as target_width, target.height as target_height,
from run r
join pair p using (dataset_id)
join pair_keypoint k using (dataset_id, pair_id)
join image source on source.image_id = p.source_image_id
join image target on target.image_id = p.target_image_id
where r.run_id = $run
  and p.source_image_id in (select image_id from token_grid where run_id = $run and grid = 0)
  and p.target_image_id in (select image_id from token_grid where run_id = $run and grid = 0)
order by p.category, p.target_image_id, p.source_image_id, p.pair_id, k.name
"""


@dataclass(frozen=True, slots=True)
class Points:
    """Keypoints to be matched, one entry each; patches count within grid 0 of their image.

    source_patch  patch of the source image that contains the keypoint
    same_place    patch of the target image at the keypoint's relative place: x / width, y / height
    source_pixel  pixel (x, y) of the source image that contains the keypoint; [points, 2]
    same_pixel    pixel (x, y) of the target image at the keypoint's relative place; [points, 2]
    grids, sizes  grid 0 and (width, height) of each image
    """

    pair_id: Numbers
    name: np.ndarray[Any, np.dtype[np.object_]]
    source: Numbers
    target: Numbers
    source_patch: Numbers
    same_place: Numbers
    source_pixel: Numbers
    same_pixel: Numbers
    grids: Mapping[int, Placed]
    sizes: Mapping[int, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.pair_id)

    def blocks(self, bytes_per_patch: int, limit: int) -> Iterator[list[slice]]:
        """Blocks of slices with one target each; a block's images together hold at most `limit` bytes.

        A block has the images of one target and one source at least, however large they are.
        """
        block: list[slice] = []
        images: dict[int, int] = {}
        for part in self._runs_of_images():
            both = {
                int(image): self.grids[int(image)].grid.patches * bytes_per_patch
                for image in (self.source[part.start], self.target[part.start])
            }
            if block and sum((images | both).values()) > limit:
                yield _joined(block, self.target)
                block, images = [], {}
            block.append(part)
            images |= both
        if block:
            yield _joined(block, self.target)

    def _runs_of_images(self) -> Iterator[slice]:
        """Slices of consecutive points with the same two images."""
        changes = (np.diff(self.source) != 0) | (np.diff(self.target) != 0)
        edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(self)]
        return (slice(a, b) for a, b in pairwise(edges) if b > a)


def _joined(block: list[slice], target: Numbers) -> list[slice]:
    """Adjoining slices of the same target made one."""
    whole = [block[0]]
    for part in block[1:]:
        if target[part.start] == target[whole[-1].start]:
            whole[-1] = slice(whole[-1].start, part.stop)
        else:
            whole.append(part)
    return whole


def read_points(con: duckdb.DuckDBPyConnection, run_id: str) -> Points:
    """The keypoints of all pairs whose two images the run stores.

    Raises `UsageError` when the data set has no pairs, or none of them is stored whole.
    """
    columns = con.execute(_POINTS, {"run": run_id}).fetchnumpy()
    if not len(columns["pair_id"]):
        raise UsageError(_why_none(con, run_id))
    grids = {image: found[0] for image, found in read_grids(con, run_id, 0).items()}
    source, target = (columns[f"{side}_image_id"].astype(np.int64) for side in ("source", "target"))
    source_size, target_size = (
        np.stack([columns[f"{side}_width"], columns[f"{side}_height"]], 1) for side in ("source", "target")
    )
    sizes = zip([*source, *target], [*source_size, *target_size], strict=True)
    return Points(
        pair_id=columns["pair_id"].astype(np.int64),
        name=np.asarray(columns["name"], object),
        source=source,
        target=target,
        source_patch=_patches(source, columns["source_x"], columns["source_y"], grids),
        same_place=_patches(target, columns["same_x"], columns["same_y"], grids),
        source_pixel=_pixels(columns["source_x"], columns["source_y"], source_size),
        same_pixel=_pixels(columns["same_x"], columns["same_y"], target_size),
        grids=grids,
        sizes={int(image): (int(width), int(height)) for image, (width, height) in sizes},
    )


def _patches(images: Numbers, x: Any, y: Any, grids: Mapping[int, Placed]) -> Numbers:
    """The patch of each image's grid that contains each point."""
    places = zip(images.tolist(), x.tolist(), y.tolist(), strict=True)
    return np.array([patch_of((left, top), grids[image].grid) for image, left, top in places], np.int64)


def _pixels(x: Any, y: Any, sizes: Any) -> Numbers:
    """The pixel (x, y) that contains each point; the nearest one for a point outside: int64 [points, 2]."""
    pixels = np.floor(np.stack([x, y], 1)).astype(np.int64)
    held: Numbers = np.clip(pixels, 0, sizes - 1)
    return held


def _why_none(con: duckdb.DuckDBPyConnection, run_id: str) -> str:
    """What is missing, and what to do."""
    name, pairs, images = con.execute(
        "select d.name, (select count(*) from pair p where p.dataset_id = d.dataset_id), r.images"
        " from run r join dataset d using (dataset_id) where r.run_id = $run",
        {"run": run_id},
    ).fetchall()[0]
    if pairs:
        return (
            f"none of the {pairs} pairs of data set '{name}' has both images among the {images} of run"
            f" '{run_id}'. Ingest more images: the same command with a larger --limit, or none."
        )
    others = ", ".join(f"'{other}'" for other in _with_pairs(con)) or "a data set whose recipe gives pairs"
    return f"data set '{name}' of run '{run_id}' has no pairs of keypoints; use a run of {others}."


def _with_pairs(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Data sets that have pairs: those in the store, and those whose recipe makes them."""
    rows = con.execute("select distinct name from dataset semi join pair using (dataset_id)").fetchall()
    stored = {str(name) for (name,) in rows}
    made = {
        name
        for name, path in recipes.listing("ingest/datasets").items()
        if "PairKeypoint(" in path.read_text(encoding="utf-8")
    }
    return sorted(stored | made)
