"""Semantic correspondence: for each keypoint of a pair, the target patch most similar to the source's patch.

The protocol is nearest-neighbour matching of DIFT (Tang et al. 2023) on SPair-71k (Min et al. 2019), in its
`patch` variant: the source vector is that of the patch that contains the keypoint, and the prediction is the
centre of the target patch with the highest cosine similarity at the same site, layer and head. Both images
are seen through grid 0 (LLaVA's overview; the only grid elsewhere). `correspondence-bilinear` is the variant
with maps upsampled to the image.

Beside them stands a floor that looks at no vector, as site `position`: the target patch at the same relative
place of its image as the keypoint has in the source image. The other floor, chance, is exact and made by
SQL (macro `chance_hits`).

Cost and memory: a target image is taken once per layer with the source patches of all its pairs, as one
matrix product per head. At most `_matches.BLOCK_BYTES` of vectors, `matching.CHUNK` similarities and one
image in float32 are held, and some finished rows (and one layer's) wait to be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore.geometry import centre_of
from kvstore.matching import Heads, nearest
from kvstore.pairs import Points
from kvstore.probes import Outcome, Request
from kvstore.probes._matches import match
from kvstore.probes._predictions import Vectors

if TYPE_CHECKING:
    import torch

    from kvstore.store import Store

NAME = "correspondence"

Array = np.ndarray[Any, Any]


def predict(store: Store, request: Request) -> Outcome:
    """Fill `match` for the request, then `score` for the run; what is complete stays as it is.

    Raises `UnknownNameError` and `UsageError` as `kvstore.probes.parts` and `kvstore.pairs.read_points` do.
    """
    return match(store, request, Patches)


class Patches:
    """Matching by patches; a place is a patch, counted within the target's grid."""

    probe = NAME

    def __init__(self, points: Points) -> None:
        self.points, self.same_place = points, points.same_place
        images, position = np.unique(points.target, return_inverse=True)
        placed = [points.grids[int(image)] for image in images]
        sizes = [grid.grid.patches for grid in placed]
        starts = np.cumsum([0, *sizes[:-1]])
        self.centres = np.array(
            [centre_of(patch, grid.grid) for grid in placed for patch in range(grid.grid.patches)]
        )  # [patches of all targets, 2]
        self.start = starts[position]  # [points]
        self.first = np.array([grid.first_patch for grid in placed])[position]  # [points]

    def sources(self, vectors: Mapping[int, Vectors], at: slice) -> Array:
        """The vectors of the patches that contain the keypoints: float16 [heads, points, width]."""
        found = zip(self.points.source[at], self.points.source_patch[at], strict=True)
        return np.stack([vectors[image][:, patch] for image, patch in found], axis=1)

    def nearest(
        self, source: torch.Tensor, target: torch.Tensor, image: int, heads: Heads
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest patches, counted within their grid, and similarities; both [kinds, points]."""
        return nearest(source, target, heads)

    def places(self, place: Array) -> tuple[Array, Array, Array]:
        """x, y of the centre and the stored number of patches [heads, points]."""
        at = place + self.start
        return self.centres[at, 0], self.centres[at, 1], place + self.first
