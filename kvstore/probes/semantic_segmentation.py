"""Semantic segmentation: each patch goes to the category whose name's text value it scores highest with.

Candidates are all categories of the objects in the run's images, by their names. A patch gets the category
with the highest dot product of the patch's vector and the name's (see `kvstore.probes._texts`; of equal ones
the first by name). It is `other` where the patch does not stand out of its image: where its highest score is
not above Otsu's threshold of the image's highest scores, which has no parameter.

Truth: a pixel is of the category of the smallest object whose mask has it, by pixels; `other` where no mask
has it. Crowds and void pixels do not count. As in ImageNet-S's evaluation (Gao et al. 2022) the figure is the
mean over the categories and `other` of all intersections over all unions. Each image has a row for every
label that it has in truth or prediction.

Beside them stands a floor, as site `position`: at each patch the label, `other` included, that most pixels of
that place have in the images of the other half, by their place in the data set's order, even and odd. The
other floor, chance, is made by SQL (macro `pixel_counts`).

Vectors are taken as they are. Centring (the mean vector of the other half's images and the candidates' mean
text vector taken off) gives values nothing: over 40 divisions of 200 images of shapes into halves, the image
value of `tiny-onevision` that is best on one half (of 8 layers, 2 heads and both together) has on the other
a mIoU of 0.131 as they are and of 0.130 centred. Keys gain by it: 0.114 and 0.141.

Memory: one block of vectors, the truth (4 bytes per patch and label of each image) and one layer's
predictions are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore import masks, text_values
from kvstore.matching import Heads
from kvstore.pixels import Cells
from kvstore.probes import Outcome, Part, Request
from kvstore.probes._masks import Job, Prediction, Target, carry_out, of_patches
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
from kvstore.probes._truth import Scene, categories, read_scenes
from kvstore.probes._vectors import Source

if TYPE_CHECKING:
    from kvstore.store import Store

NAME = "semantic-segmentation"
#: The label of pixels that no category has.
OTHER = "other"

Array = np.ndarray[Any, Any]


def predict(store: Store, request: Request) -> Outcome:
    """Fill `mask` for the request, then `score` for the run; what is complete stays as it is.

    Raises what `kvstore.probes.parts` and `kvstore.text_values.fill` do, and `UsageError` when the data set
    has no masks or only an encoder without a text tower is there to be compared.
    """
    with store.tables() as con:
        request = comparable(con, request)
        scenes = read_scenes(con, request.run_id)
    names = [name for name in categories(scenes) if name != OTHER]
    text_values.fill(store, request.run_id, names, request.device, trusted=request.trusted)
    images = [_Image.of(scene, [OTHER, *names]) for scene in scenes]
    grids = {scene.image_id: scene.placed for scene in scenes}

    def predictions(part: Part | None, source: Source, how: Heads) -> Iterator[Prediction]:
        labelled = _usual(images, len(names)) if part is None else _named(part, source, how)
        for image, labels in zip(images, labelled, strict=True):
            yield from image.predictions(labels)

    def _named(part: Part, source: Source, how: Heads) -> Iterator[Array]:
        vectors = text_vectors(store, request.run_id, part, names, "cpu")
        for _, patches in source(list(grids)):
            vectors = vectors.to(patches.device)
            yield label(dots(patches, vectors, how))

    return carry_out(store, request, Job(NAME, grids, len(images), len(images), predictions))


def label(scores: Array) -> Array:
    """Labels int64 [kinds, patches] of scores [kinds, names, patches]: 0 for other, 1 for the first name."""
    labels: Array = np.where(otsu(scores.max(1)), 1 + scores.argmax(1), 0)
    return labels


@dataclass(frozen=True, slots=True)
class _Image:
    """One image: its half, and for each label that it has, by number, the pixels of each patch.

    names   all labels, other first
    truth   label -> int32 [patches]
    valid   int32 [patches]
    """

    scene: Scene
    names: Sequence[str]
    cells: Cells
    truth: dict[int, Array]
    valid: Array

    @classmethod
    def of(cls, scene: Scene, names: Sequence[str]) -> _Image:
        """The truth of a scene."""
        cells, counted, labels = scene.cells(), scene.counted(), _pixels(scene, names)
        truth = {
            int(number): cells.count((labels == number) & counted).astype(np.int32)
            for number in np.unique(labels[counted])
        }
        return cls(scene, names, cells, truth, cells.count(counted).astype(np.int32))

    def predictions(self, labels: Array) -> Iterator[Prediction]:
        """Rows of labels [kinds, patches]: each label that is predicted or true."""
        none = np.zeros_like(self.valid)
        for kind, row in enumerate(labels):
            for number in sorted({*self.truth, *np.unique(row).tolist()}):
                truth = self.truth.get(number, none)
                target = Target(self.scene.image_id, self.names[number], self.cells, truth, self.valid)
                yield from (replace(one, kind=kind) for one in of_patches(target, row[None] == number))


def _pixels(scene: Scene, names: Sequence[str]) -> Array:
    """The number of each pixel's label: int64 [height, width]; smaller objects lie on larger ones."""
    found = [(masks.area(mask), name, mask) for name, some in scene.masks.items() for mask in some]
    labels = np.zeros((scene.height, scene.width), np.int64)
    for _, name, mask in sorted(found, reverse=True):
        labels[masks.to_array(mask)] = names.index(name)
    return labels


def _usual(images: Sequence[_Image], names: int) -> Iterator[Array]:
    """Labels [1, patches] of each image: those that most pixels have there in the other half's images."""
    seen = np.zeros((2, 1 + names, PLACES * PLACES))
    for image in images:
        grid = image.scene.placed.grid
        for number, truth in image.truth.items():
            seen[image.scene.place % 2, number] += at_places(share(truth, image.valid), grid)
    usual = seen.argmax(1)  # [2, places]
    for image in images:
        yield of_places(usual[1 - image.scene.place % 2], image.scene.placed.grid)[None]
