"""Targets of categories in images, for probes that predict one category at a time: each is made once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from kvstore.pixels import Cells
from kvstore.probes._masks import Target
from kvstore.probes._truth import Scene

Array = np.ndarray[Any, Any]


class Targets:
    """The true and the counted pixels of patches, kept once they were asked for (8 bytes each)."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self.scenes = {scene.image_id: scene for scene in scenes}
        self._images: dict[int, tuple[Cells, Array]] = {}
        self._truths: dict[tuple[int, str], Array] = {}

    def of(self, image: int, category: str, number: int) -> Target:
        """The category's pixels of one image, under its name."""
        cells, valid = self._image(image)
        if (image, category) not in self._truths:
            self._truths[image, category] = cells.count(self.scenes[image].true(category))
        return Target(image, category, cells, self._truths[image, category], valid, None, number)

    def _image(self, image: int) -> tuple[Cells, Array]:
        if image not in self._images:
            scene = self.scenes[image]
            cells = scene.cells()
            self._images[image] = cells, cells.count(scene.counted())
        return self._images[image]
