"""Probes that predict masks of pixels: predictions as rows of table `mask`.

A probe of this kind states a `Job`; how it is carried out stands in `kvstore.probes._work`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kvstore import masks
from kvstore.geometry import Placed
from kvstore.matching import Heads
from kvstore.pixels import Cells
from kvstore.probes import Outcome, Part, Request
from kvstore.probes._vectors import Source
from kvstore.probes._work import At, Work

if TYPE_CHECKING:
    from kvstore.store import Store

Array = np.ndarray[Any, Any]
Bits = np.ndarray[Any, np.dtype[np.bool_]]

_COMPLETE = """
select m.site, m.layer, m.head
from mask m
left join token_grid t on t.run_id = m.run_id and t.image_id = m.image_id and t.grid = 0
where m.run_id = $run and m.probe = $probe
group by all
having count(distinct (m.image_id, coalesce(m.object_id, -1), m.number)) = $items
  and count(*) = count(t.image_id)
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What a prediction is of: pixels of an image under a label, and which of them are true.

    truth   int64 [patches]: true pixels of each patch, void ones left out
    valid   int64 [patches]: pixels of each patch that count (all but void)
    """

    image_id: int
    label: str
    cells: Cells
    truth: Array
    valid: Array
    object_id: int | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of table `mask`, but for run, probe, site and layer; `kind` is the place among the heads.

    contours   pixels of contour and true contour, and how many of each are within reach of the other's
    """

    kind: int
    image_id: int
    label: str
    object_id: int | None
    number: int
    mask: str
    predicted: int
    truth: int
    shared: int
    valid: int
    contours: tuple[int, int, int, int] | None = None


def of_patches(target: Target, bits: Bits) -> Iterator[Prediction]:
    """Predictions from patches taken for the object, bool [kinds, patches]; a pixel goes with its patch."""
    predicted, shared = bits @ target.valid, bits @ target.truth
    truth, valid = int(target.truth.sum()), int(target.valid.sum())
    for kind, pixels in enumerate(target.cells.spread(bits)):
        yield Prediction(
            kind,
            target.image_id,
            target.label,
            target.object_id,
            target.number,
            masks.from_array(pixels),
            int(predicted[kind]),
            truth,
            int(shared[kind]),
            valid,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """What a probe states of its work.

    grids     grid 0 of each image that it reads
    items     distinct (image, object, number) that a complete part has
    reads     images that `predict` takes from its source for one part
    predict   the predictions of one part from its vectors; those of positions come with the part None
    """

    probe: str
    grids: Mapping[int, Placed]
    items: int
    reads: int
    predict: Callable[[Part | None, Source, Heads], Iterable[Prediction]]


def carry_out(store: Store, request: Request, job: Job) -> Outcome:
    """Fill `mask` for the request, then `score` for the run; what is complete stays as it is."""

    def rows(at: At, source: Source, how: Heads) -> pa.Table:
        return _rows(request.run_id, job.probe, at, job.predict(at.part, source, how))

    work = Work(job.probe, "mask", _COMPLETE, job.grids, job.items, job.reads, rows)
    return work.carry_out(store, request)


_PLAIN = {
    "image_id": pa.int32(),
    "label": pa.string(),
    "object_id": pa.int64(),
    "number": pa.int32(),
    "mask": pa.string(),
    "predicted": pa.int64(),
    "truth": pa.int64(),
    "shared": pa.int64(),
    "valid": pa.int64(),
}
_CONTOURS = ("contour", "true_contour", "contour_hits", "true_contour_hits")


def _rows(run_id: str, probe: str, at: At, made: Iterable[Prediction]) -> pa.Table:
    """Rows of `mask`."""
    found = list(made)
    n = len(found)
    columns = {name: pa.array([getattr(one, name) for one in found], kind) for name, kind in _PLAIN.items()}
    boxes = [_extent(one.mask) for one in found]
    for place, name in enumerate(("x0", "y0", "x1", "y1")):
        columns[name] = pa.array([box and box[place] for box in boxes], pa.float64())
    for place, name in enumerate(_CONTOURS):
        columns[name] = pa.array([one.contours and one.contours[place] for one in found], pa.int32())
    return pa.table(
        {
            "run_id": pa.repeat(run_id, n),
            "probe": pa.repeat(probe, n),
            "site": pa.repeat(at.site, n),
            "layer": pa.array(np.full(n, at.layer), pa.int16()),
            "head": pa.array([at.heads[one.kind] for one in found], pa.int16()),
            **columns,
        }
    )


def _extent(mask: str) -> tuple[float, float, float, float] | None:
    """The box around a mask; None around an empty one."""
    box = masks.box(mask)
    return box if box[2] > box[0] else None
