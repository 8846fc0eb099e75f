"""Semantic correspondence as `correspondence`, but by pixels of feature maps that are upsampled to the image.

The protocol is the evaluation of DIFT (Tang et al. 2023, eval_spair.py) on SPair-71k: both maps are upsampled
to their image's size in pixels, bilinearly (torch's ``align_corners=False``), before cosines are taken; the
source vector is that of the keypoint's pixel, and the prediction is the target pixel with the highest cosine
similarity, the first of equals. A pixel's place is its number from the left and from the top, as that of
SPair-71k's keypoints is: its upper left corner, not its centre. Data sets whose points are no such numbers,
`shapes` among them, are matched by the same rule, half a pixel up and left of the pixel's centre: of 323
points in 60 drawn scenes (objects 139 pixels long) at most one changed sides by it at PCK@0.05 or 0.10.
Where a grid's pixel box is not the whole image, patches lie where the box puts them, and beyond the outer
ones' centres nothing changes.

Floors are position, the target pixel at the keypoint's own relative place, and chance, a pixel drawn at
random.

Cost and memory: the maps are never made (see `kvstore.upsampling`), and the result is that of making them.
Reading and writing are those of `correspondence`. Finding the places costs 13 to 19 times as much where
neighbours resemble each other (4 heads x 729 patches x 128 smoothed at random, 500 x 375 pixels, 7 to 50
points a target: 22 to 62 ms on one core), and 150 to 500 times as much on maps of pure noise, where few cells
can be passed over. Both together, over drawn scenes and image values of tiny-onevision: 2 to 5 times. Beside
what `correspondence` holds there are four products for each similarity and `upsampling.PIXELS` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kvstore.matching import Heads
from kvstore.pairs import Points
from kvstore.probes import Outcome, Request
from kvstore.probes._matches import match
from kvstore.probes._predictions import Vectors
from kvstore.upsampling import Upsampled, around

if TYPE_CHECKING:
    import torch

    from kvstore.store import Store

NAME = "correspondence-bilinear"

Array = np.ndarray[Any, Any]


def predict(store: Store, request: Request) -> Outcome:
    """Fill `match` for the request, then `score` for the run; what is complete stays as it is.

    Raises `UnknownNameError` and `UsageError` as `kvstore.probes.parts` and `kvstore.pairs.read_points` do.
    """
    return match(store, request, Pixels)


class Pixels:
    """Matching by pixels; a place is a pixel of the target image, counted row by row."""

    probe = NAME

    def __init__(self, points: Points) -> None:
        self.points = points
        self.width = np.array([points.sizes[int(image)][0] for image in points.target])  # [points]
        self.same_place = points.same_pixel[:, 1] * self.width + points.same_pixel[:, 0]
        self.patches, self.weights = _around(points)
        placed = [points.grids[int(image)] for image in points.target]
        self.first = np.array([one.first_patch for one in placed])
        self.rows, self.columns = np.array([(one.grid.rows, one.grid.columns) for one in placed]).T
        self.box = np.array([one.grid.box for one in placed]).T  # [4, points]

    def sources(self, vectors: Mapping[int, Vectors], at: slice) -> Array:
        """Upsampled vectors at the keypoints' pixels: float32 [heads, points, width]."""
        found = zip(self.points.source[at], self.patches[at], self.weights[at], strict=True)
        near = [(vectors[image][:, patches].astype(np.float32), weights) for image, patches, weights in found]
        return np.stack([weights @ corners for corners, weights in near], axis=1)

    def nearest(
        self, source: torch.Tensor, target: torch.Tensor, image: int, heads: Heads
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest pixels of the target image and similarities; both [kinds, points]."""
        grid, size = self.points.grids[image].grid, self.points.sizes[image]
        return Upsampled(target, grid, size, heads).nearest(source)

    def places(self, place: Array) -> tuple[Array, Array, Array]:
        """x, y and the stored number of the patch that holds the centre of pixels [heads, points]."""
        y, x = np.divmod(place, self.width)
        x0, y0, x1, y1 = self.box
        column = np.floor((x + 0.5 - x0) * self.columns / (x1 - x0)).clip(0, self.columns - 1)
        row = np.floor((y + 0.5 - y0) * self.rows / (y1 - y0)).clip(0, self.rows - 1)
        return x, y, (row * self.columns + column).astype(np.int64) + self.first


def _around(points: Points) -> tuple[Array, Array]:
    """The patches that each keypoint's pixel is a mean of, and their weights: int64, float32 [points, 4]."""
    patches, weights = np.zeros((len(points), 4), np.int64), np.zeros((len(points), 4), np.float32)
    for image in np.unique(points.source).tolist():
        here = points.source == image
        grid, size = points.grids[image].grid, points.sizes[image]
        patches[here], weights[here] = around(grid, size, points.source_pixel[here])
    return patches, weights
