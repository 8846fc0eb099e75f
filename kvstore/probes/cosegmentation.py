"""Co-segmentation: what images of a group have in common, found by k-means over the patches of all of them.

A group is the images that have an object of one category, the first `MOST_IMAGES` of them in the data set's
order, two at least; the object is the category's pixels. Images are seen through grid 0. Nothing is told but
which images are together. The method is that of Amir et al. 2021, "Deep ViT Features as Dense Visual
Descriptors", without its refinement of masks by colour, and with a fixed number of clusters where they look
for an elbow:

- k-means by cosine, `CLUSTERS` clusters: over at most `FITTED` patches, drawn by a seed, as many of each
  image; first centres by k-means++ (Arthur and Vassilvitskii 2007), then Lloyd's steps until no patch moves,
  `STEPS` at most. Every patch of the group goes to its nearest centre.
- votes: in place of the encoder's saliency, which values do not have, stands what photographers do: they
  leave the border to the background. The border is the outermost ring of patches. A cluster has an image's
  vote when the share of the border among the cluster's patches in the image is less than `BORDER` of its
  share among all patches of the image. An image without the cluster gives no vote.
- the object is the clusters that have at least `VOTES` of the votes of the cluster with the most. (Amir et
  al. ask for votes of so many of the images, and may find nothing.)

Beside them stands a floor, as site `position`: the same of what tells only where a patch is (see `places`),
which finds the middle. The other floor, chance, is made by SQL (macros `pixel_counts` and `figure_items`).

Cost and memory: each image of a group is read twice. `FITTED` patches in float32 and in float64, one image in
float32, at most `BLOCK_BYTES` of stored vectors, a group's clusters (8 bytes per patch and head) and one
layer's predictions are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvstore.errors import UsageError
from kvstore.matching import Heads, nearest
from kvstore.probes import Outcome, Part, Request
from kvstore.probes._masks import Array, Bits, Job, Prediction, carry_out, of_patches
from kvstore.probes._targets import Targets
from kvstore.probes._truth import Scene, categories, read_scenes
from kvstore.probes._vectors import Source, normal, unit

if TYPE_CHECKING:
    import torch

    from kvstore.contracts import Grid
    from kvstore.store import Store

NAME = "cosegmentation"
#: Images of a group.
MOST_IMAGES = 100
CLUSTERS = 10
#: Patches of a group that the clusters are made from.
FITTED = 1 << 13
#: Lloyd's steps.
STEPS = 50
#: What patches and first centres are drawn by.
SEED = 0
#: A vote: less than this part of the border's share in the image.
BORDER = 0.5
#: An object: at least this part of the most votes.
VOTES = 0.75


def predict(store: Store, request: Request) -> Outcome:
    """Fill `mask` for the request, then `score` for the run; what is complete stays as it is.

    Raises what `kvstore.probes.parts` does, and `UsageError` when the data set has no masks or no category
    is in two images.
    """
    with store.tables() as con:
        scenes = read_scenes(con, request.run_id)
    groups = gather(scenes, request.run_id)
    targets = Targets(scenes)

    def predictions(part: Part | None, source: Source, how: Heads) -> Iterator[Prediction]:
        for group in groups:
            yield from _segment(group, targets, source, how)

    grids = {scene.image_id: scene.placed for scene in scenes}
    items = sum(len(group.images) for group in groups)
    return carry_out(store, request, Job(NAME, grids, items, 2 * items, predictions))


@dataclass(frozen=True, slots=True)
class Group:
    """Images that share a category, and its place among the run's categories."""

    number: int
    category: str
    images: list[int]


def gather(scenes: Sequence[Scene], run_id: str) -> list[Group]:
    """The groups, sorted by category; `UsageError` when there is none."""
    groups = []
    for number, name in enumerate(categories(scenes)):
        images = [scene.image_id for scene in scenes if name in scene.masks][:MOST_IMAGES]
        if len(images) > 1:
            groups.append(Group(number, name, images))
    if not groups:
        raise UsageError(
            f"no two images of run '{run_id}' have masks of one category: there is no group to find something"
            " common in. Ingest more images: the same command with a larger --limit, or none."
        )
    return groups


def _segment(group: Group, targets: Targets, source: Source, how: Heads) -> Iterator[Prediction]:
    """Predictions of the group's images."""
    centres = [cluster(vectors) for vectors in _drawn(group, source, how)]
    found = [_assigned(unit(vectors, how), centres) for _, vectors in source(group.images)]
    grids = [targets.scenes[image].placed.grid for image in group.images]
    common = elect(found, grids)
    for image, clusters in zip(group.images, found, strict=True):
        target = targets.of(image, group.category, group.number)
        yield from of_patches(target, np.take_along_axis(common, clusters, 1))


def _drawn(group: Group, source: Source, how: Heads) -> list[torch.Tensor]:
    """Unit vectors [kinds, patches, width] that clusters are made from: as many of each image."""
    import torch

    draws = np.random.default_rng([SEED, group.number])
    most = max(1, FITTED // len(group.images))
    taken = []
    for _, vectors in source(group.images):
        patches = vectors.shape[1]
        some = np.sort(draws.permutation(patches)[:most])
        taken.append(unit(vectors[:, torch.from_numpy(some).to(vectors.device)], how))
    return [torch.cat(kinds, 1) for kinds in zip(*taken, strict=True)]


def cluster(vectors: torch.Tensor) -> torch.Tensor:
    """Unit centres [kinds, clusters, width] of unit vectors [kinds, patches, width]: k-means by cosine.

    Sums are float64 and ties go to the lowest cluster (see `nearest`), so that devices agree. A cluster that
    loses all its patches keeps its centre.
    """
    import torch

    centres, before = _first(vectors), None
    for _ in range(STEPS):
        found, _ = nearest(vectors, centres)
        if before is not None and torch.equal(found, before):
            break
        before = found
        members = torch.nn.functional.one_hot(found, CLUSTERS).transpose(1, 2).double()
        sums = members @ vectors.double()  # [kinds, clusters, width]
        centres = torch.where(members.sum(-1, keepdim=True) > 0, normal(sums).float(), centres)
    return centres


def _first(vectors: torch.Tensor) -> torch.Tensor:
    """First centres by k-means++: patches, each drawn by its squared distance to the nearest before it."""
    import torch

    draws = np.random.default_rng(SEED).random(CLUSTERS)
    kinds = torch.arange(len(vectors), device=vectors.device)
    far = np.full(vectors.shape[:2], 2.0)  # 1 - cosine, half the squared distance, is never more
    centres: list[torch.Tensor] = []
    for draw in draws:
        upto = far.cumsum(1)
        at = (upto <= draw * upto[:, -1:]).sum(1).clip(max=far.shape[1] - 1)
        centres.append(vectors[kinds, torch.from_numpy(at).to(vectors.device)])
        near = (vectors @ centres[-1][..., None])[..., 0].double().cpu().numpy()
        far = np.minimum(far, (1 - near).clip(min=0))
    return torch.stack(centres, 1)


def _assigned(vectors: Sequence[torch.Tensor], centres: Sequence[torch.Tensor]) -> Array:
    """The clusters of an image's patches: int64 [kinds, patches]."""
    found = [nearest(*pair)[0] for pair in zip(vectors, centres, strict=True)]
    return np.concatenate([one.cpu().numpy() for one in found])


def elect(found: Sequence[Array], grids: Sequence[Grid]) -> Bits:
    """The clusters taken for the object, bool [kinds, clusters]; `found` are those of patches by image."""
    votes = np.zeros((found[0].shape[0], CLUSTERS), np.int64)
    for clusters, grid in zip(found, grids, strict=True):
        border = _border(grid)
        members = clusters[..., None] == np.arange(CLUSTERS)  # [kinds, patches, clusters]
        inside, on_border = members.sum(1), members[:, border].sum(1)
        votes += on_border * len(border) < BORDER * border.sum() * inside
    most = votes.max(1, keepdims=True)
    common: Bits = (votes >= VOTES * most) & (most > 0)
    return common


def _border(grid: Grid) -> Bits:
    """The outermost ring: bool [patches]."""
    border = np.ones((grid.rows, grid.columns), bool)
    border[1:-1, 1:-1] = False
    return border.reshape(-1)
