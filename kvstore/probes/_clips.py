"""The clips of a run: frames in order, which objects are followed, and what is annotated of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore.errors import UsageError
from kvstore.masks import to_array
from kvstore.probes._truth import Scene, read_scenes

if TYPE_CHECKING:
    import duckdb

Array = np.ndarray[Any, Any]

_FRAMES = """
select f.clip, f.number, f.image_id
from frame f join run r using (dataset_id)
where r.run_id = $run
order by f.clip, f.number
"""
_MASKS = """
select distinct o.image_id, o.object_id, o.mask::varchar
from object o
join run r using (dataset_id)
join frame f using (dataset_id, image_id)
where r.run_id = $run and o.mask is not null and not o.crowd
order by all
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a clip, as the run stores it; `masks` are those of its objects by object_id."""

    number: int
    scene: Scene
    masks: Mapping[int, str]

    def pixels(self, object_id: int) -> Array:
        """The object's pixels, void or not: bool [height, width]."""
        mask = self.masks.get(object_id)
        return to_array(mask) if mask else np.zeros((self.scene.height, self.scene.width), bool)


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a clip that the run stores, the clip's first among them, and the objects to follow.

    As the evaluation of DAVIS 2017 has it, the objects are those with numbers up to the highest of the first
    frame; so one that comes in later counts only when a later number is there from the start.
    """

    name: str
    frames: tuple[Frame, ...]
    objects: tuple[int, ...]


def read_clips(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Clip]:
    """The run's clips whose first frame is stored and has objects, and that have a frame to be scored.

    Raises `UsageError` when there is none, or when the frames of one differ in size.
    """
    rows = con.execute(_FRAMES, {"run": run_id}).fetchall()
    if not rows:
        raise UsageError(_no_clips(con, run_id))
    scenes = {scene.image_id: scene for scene in read_scenes(con, run_id)}
    masks: dict[int, dict[int, str]] = {}
    for image, object_id, mask in con.execute(_MASKS, {"run": run_id}).fetchall():
        masks.setdefault(image, {})[object_id] = mask
    frames: dict[str, list[Frame]] = {}
    for clip, number, image in rows:
        if image in scenes:
            frames.setdefault(clip, []).append(Frame(number, scenes[image], masks.get(image, {})))
    clips = list(_usable(frames))
    if not clips:
        raise UsageError(
            f"run '{run_id}' stores of no clip a first frame with masks of objects and two frames more."
            " Ingest more images: the same command with a larger --limit, or none."
        )
    return clips


def _usable(clips: Mapping[str, list[Frame]]) -> Iterator[Clip]:
    for name, frames in clips.items():
        first = frames[0]
        if first.number == 0 and first.masks and len(frames) > 2:
            _check_sizes(name, frames)
            there = {number for frame in frames for number in frame.masks}
            followed = sorted(number for number in there if number <= max(first.masks))
            yield Clip(name, tuple(frames), tuple(followed))


def _check_sizes(name: str, frames: list[Frame]) -> None:
    """Labels are carried from patch to patch: a clip's frames must have one grid."""
    first = frames[0].scene
    for frame in frames:
        scene = frame.scene
        if (scene.width, scene.height, scene.placed.grid) != (first.width, first.height, first.placed.grid):
            raise UsageError(
                f"frame {frame.number} of clip '{name}' is {scene.width} x {scene.height} pixels in"
                f" {scene.placed.grid.rows} x {scene.placed.grid.columns} patches, and frame 0"
                f" {first.width} x {first.height} in {first.placed.grid.rows} x {first.placed.grid.columns}:"
                " labels can be carried between frames of one size only. Scale the frames of a clip alike."
            )


def _no_clips(con: duckdb.DuckDBPyConnection, run_id: str) -> str:
    """That a run's data set has no clips, and which have."""
    found = con.execute(
        "select r.run_id, r.dataset_id from run r where r.dataset_id in (select dataset_id from frame)"
        " order by all"
    ).fetchall()
    runs = ", ".join(f"'{run}' of {dataset}" for run, dataset in found)
    (own,) = con.execute("select dataset_id from run where run_id = $run", {"run": run_id}).fetchall()[0]
    return (
        f"data set '{own}' of run '{run_id}' has no clips. Runs of this store that have: {runs or 'none'}."
        " Data sets with clips: davis2017, and shapes with --split clips."
    )
