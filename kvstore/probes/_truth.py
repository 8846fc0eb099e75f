"""The annotated pixels of a run's images: masks by category, and what no evaluation counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore.errors import UsageError
from kvstore.geometry import Placed, read_grids
from kvstore.masks import to_array, union
from kvstore.pixels import Cells

if TYPE_CHECKING:
    import duckdb

Array = np.ndarray[Any, Any]

_IMAGES = """
select t.image_id, min(d.position) as place, any_value(i.width) as width, any_value(i.height) as height
from token_grid t
join run r using (run_id)
join dataset_image d using (dataset_id, image_id)
join image i using (image_id)
where t.run_id = $run and t.grid = 0
group by t.image_id
order by place
"""
#: Masks of objects by image and category; crowds are of no category: they are void.
_MASKS = """
select o.image_id, o.category, list(o.mask::varchar order by o.object_id) as masks
from object o
join run r using (dataset_id)
where r.run_id = $run and o.mask is not null and not o.crowd
  and o.image_id in (select image_id from token_grid where run_id = $run and grid = 0)
group by all
order by all
"""
_VOID = """
select image_id, list(mask order by mask) as masks
from (
    select v.image_id, v.mask::varchar as mask
    from void v join run r using (dataset_id)
    where r.run_id = $run
    union all
    select o.image_id, o.mask::varchar
    from object o join run r using (dataset_id)
    where r.run_id = $run and o.mask is not null and o.crowd
)
where image_id in (select image_id from token_grid where run_id = $run and grid = 0)
group by image_id
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of a run, its place in the data set's order, its size, its grid 0, and what is annotated.

    masks   category -> masks of its objects, crowds left out
    void    masks of pixels that do not count: what the data set says, and crowds
    """

    image_id: int
    place: int
    width: int
    height: int
    placed: Placed
    masks: Mapping[str, tuple[str, ...]]
    void: tuple[str, ...]

    def cells(self) -> Cells:
        """Which patch each pixel belongs to."""
        return Cells(self.width, self.height, self.placed.grid)

    def counted(self) -> Array:
        """Pixels that count: bool [height, width]."""
        return ~self._pixels(self.void)

    def true(self, category: str) -> Array:
        """Pixels of a category that count: bool [height, width]."""
        return self._pixels(self.masks.get(category, ())) & self.counted()

    def _pixels(self, masks: tuple[str, ...]) -> Array:
        return to_array(union(masks)) if masks else np.zeros((self.height, self.width), bool)


def read_scenes(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Scene]:
    """The run's images in the data set's order; `UsageError` when none of them has a mask."""
    grids = read_grids(con, run_id, 0)
    masks: dict[int, dict[str, tuple[str, ...]]] = {}
    for image, category, found in _rows(con, _MASKS, run_id):
        masks.setdefault(image, {})[category] = tuple(found)
    void = {image: tuple(found) for image, found in _rows(con, _VOID, run_id)}
    if not masks:
        raise UsageError(why_none(con, run_id))
    return [
        Scene(image, place, width, height, grids[image][0], masks.get(image, {}), void.get(image, ()))
        for image, place, width, height in _rows(con, _IMAGES, run_id)
    ]


def _rows(con: duckdb.DuckDBPyConnection, sql: str, run_id: str) -> Iterator[Any]:
    result = con.execute(sql, {"run": run_id})
    while some := result.fetchmany(256):
        yield from some


def categories(scenes: Iterable[Scene]) -> list[str]:
    """The categories that have a mask in some image, sorted."""
    return sorted({category for scene in scenes for category in scene.masks})


def why_none(con: duckdb.DuckDBPyConnection, run_id: str) -> str:
    """Why a run has no masks, and what to do."""
    name, masks = con.execute(
        "select r.dataset_id, count(o.mask) from run r left join object o"
        " on o.dataset_id = r.dataset_id and not o.crowd where r.run_id = $run group by r.dataset_id",
        {"run": run_id},
    ).fetchall()[0]
    if masks:
        return (
            f"no image of run '{run_id}' has one of the {masks} masks of data set '{name}'."
            " Ingest more images: the same command with a larger --limit, or none."
        )
    return (
        f"data set '{name}' of run '{run_id}' has no masks of objects; use a run of one that has, as shapes."
    )
