"""Referring expressions: the patches of an image that score highest with an expression's text value.

An expression's map is the dot product of each patch's vector with the expression's (see
`kvstore.probes._texts`). The patches above Otsu's threshold of the map, which has no parameter, are the
prediction, and its extent is the predicted box. Truth is the mask of the one object that the expression
means. Crowds and void pixels do not count; expressions of objects without a mask, and of crowds, are left
out.

Beside them stands a floor, as site `position`, which reads no words: the mean of the truths of the other half
at each place, thresholded likewise. (Halves are by the images' place in the data set's order, even and odd.)
The other floor, chance, takes the whole image and is made by SQL (macro `pixel_counts`).

Text vectors are taken as they are. Centring (the mean over expressions taken off) makes values worse: over
40 divisions of 200 images of shapes into halves, the image value of `tiny-onevision` that is best on one half
(of 8 layers, 2 heads and both together) has on the other a mean IoU of 0.135 as they are and of 0.092
centred; keys 0.072 and 0.075. (A mean taken off the patches changes a map by no more than a summand.)

Memory: one block of vectors, the truth (8 bytes per patch of each object) and one layer's predictions are
held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore import text_values
from kvstore.errors import UsageError
from kvstore.masks import to_array
from kvstore.matching import Heads
from kvstore.probes import Outcome, Part, Request
from kvstore.probes._masks import Bits, Job, Prediction, Target, carry_out, of_patches
from kvstore.probes._texts import (
    PLACES,
    at_places,
    comparable,
    dots,
    of_places,
    otsu,
    share,
    text_vectors,
)
from kvstore.probes._truth import Scene, read_scenes
from kvstore.probes._vectors import Source

if TYPE_CHECKING:
    import duckdb

    from kvstore.store import Store

NAME = "referring"

Array = np.ndarray[Any, Any]

_EXPRESSIONS = """
select e.image_id, e.object_id, e.number, e.text, o.mask::varchar
from expression e
join run r using (dataset_id)
join object o using (dataset_id, image_id, object_id)
where r.run_id = $run and o.mask is not null and not o.crowd
  and e.image_id in (select image_id from token_grid where run_id = $run and grid = 0)
order by e.image_id, e.object_id, e.number
"""
_COUNT = """
select r.dataset_id, count(e.text)
from run r left join expression e using (dataset_id)
where r.run_id = $run
group by r.dataset_id
"""


def predict(store: Store, request: Request) -> Outcome:
    """Fill `mask` for the request, then `score` for the run; what is complete stays as it is.

    Raises what `kvstore.probes.parts` and `kvstore.text_values.fill` do, and `UsageError` when no image of
    the run has an expression of an object with a mask or only an encoder without a text tower is there to be
    compared.
    """
    with store.tables() as con:
        request = comparable(con, request)
        asked = _read(con, request.run_id)
    targets = [target for one in asked for target in one.targets]
    texts = sorted({target.label for target in targets})
    text_values.fill(store, request.run_id, texts, request.device, trusted=request.trusted)
    place = {text: at for at, text in enumerate(texts)}
    grids = {one.scene.image_id: one.scene.placed for one in asked}

    def predictions(part: Part | None, source: Source, how: Heads) -> Iterator[Prediction]:
        found = _usual(asked) if part is None else _meant(part, source, how)
        for one, bits in zip(asked, found, strict=True):
            for number, target in enumerate(one.targets):
                yield from of_patches(target, bits[:, number])

    def _meant(part: Part, source: Source, how: Heads) -> Iterator[Bits]:
        vectors = text_vectors(store, request.run_id, part, texts, "cpu")
        for one, (_, patches) in zip(asked, source(list(grids)), strict=True):
            words = vectors[:, [place[target.label] for target in one.targets]].to(patches.device)
            yield otsu(dots(patches, words, how))

    return carry_out(store, request, Job(NAME, grids, len(targets), len(asked), predictions))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One image and its expressions, each a target whose label is the expression."""

    scene: Scene
    targets: Sequence[Target]

    @property
    def half(self) -> int:
        return self.scene.place % 2


def _read(con: duckdb.DuckDBPyConnection, run_id: str) -> list[_Asked]:
    """The run's images that have expressions, in the data set's order."""
    rows: dict[int, list[tuple[int, int, str, str]]] = {}
    for image, *row in con.execute(_EXPRESSIONS, {"run": run_id}).fetchall():
        rows.setdefault(image, []).append((row[0], row[1], row[2], row[3]))
    if not rows:
        raise UsageError(_why_none(con, run_id))
    scenes = [scene for scene in read_scenes(con, run_id) if scene.image_id in rows]
    return [_Asked(scene, list(_targets(scene, rows[scene.image_id]))) for scene in scenes]


def _targets(scene: Scene, rows: Sequence[tuple[int, int, str, str]]) -> Iterator[Target]:
    """One target per (object, number, expression, mask); expressions of an object share its truth."""
    cells, counted = scene.cells(), scene.counted()
    valid = cells.count(counted)
    mask_of: Mapping[int, str] = {item: mask for item, _, _, mask in rows}
    truth = {item: cells.count(to_array(mask) & counted) for item, mask in mask_of.items()}
    for item, number, text, _ in rows:
        yield Target(scene.image_id, text, cells, truth[item], valid, item, number)


def _usual(asked: Sequence[_Asked]) -> Iterator[Bits]:
    """Where what the other half's expressions mean mostly lies: bool [1, expressions, patches] per image."""
    seen = np.zeros((2, PLACES * PLACES))
    for one in asked:
        truths = sum(share(target.truth, target.valid) for target in one.targets)
        seen[one.half] += at_places(np.asarray(truths), one.scene.placed.grid)
    for one in asked:
        bits = otsu(of_places(seen[1 - one.half], one.scene.placed.grid))
        yield np.broadcast_to(bits, (1, len(one.targets), len(bits)))


def _why_none(con: duckdb.DuckDBPyConnection, run_id: str) -> str:
    """Why a run has no expressions, and what to do."""
    name, expressions = con.execute(_COUNT, {"run": run_id}).fetchall()[0]
    if expressions:
        return (
            f"no image of run '{run_id}' has one of the {expressions} referring expressions of data set"
            f" '{name}' for an object with a mask. Ingest more images: the same command with a larger"
            " --limit, or none."
        )
    return (
        f"data set '{name}' of run '{run_id}' has no referring expressions; use a run of one that has, as"
        " shapes or refcoco."
    )
