"""Few-shot segmentation: a linear classifier of the patches of 5 images of a class, applied to a sixth.

An episode is a category, a query image that has it, and `SHOTS` other images that have it, the support. The
categories come in turn (those of the run's data set: of Pascal-5i a fold's), query and support are drawn at
random without replacement, as in Pascal-5i (Shaban et al. 2017), by a seed that makes the same episodes of
the same images everywhere. A category with fewer than `SHOTS` + 1 images is left out. Images are seen through
grid 0.

Classifier: logistic regression. A patch of the support is of the class when at least half of its pixels that
count are, void ones left out; a patch with none that counts is left out. Vectors are L2-normalised, then
centred and scaled by one number, so that over the support, by the shares below, their mean is 0 and their
mean squared norm is 1: the strength of the penalty means the same for any width. Weights w and offset b
minimise

    sum over patches of share log(1 + exp(-s (w x + b)))  +  PENALTY / 2 (w w + b b)

where s is 1 in the class, else -1, and the shares of either side are alike and add up to 1/2: objects are
small, and the likeliest label of a patch that is hard to tell would be background everywhere. (Shares add up
to 1 on one side where the support has no other.) The minimum is one point. Newton's method finds it, in a
fixed number of steps and in float32. A query's patch is of the class where w x + b > 0.

Beside them stands a floor, as site `position`: the same classifier of what tells only where a patch is (see
`places`). The other floor, chance, is made by SQL (macro `pixel_counts`).

Cost and memory: episodes are taken category by category, as many at a time as have no more than `HELD`
patches in distinct images (at least one episode), which are read once and held as float16. A fit of n patches
of d channels costs `STEPS` times 2 n d^2 operations: 1000 episodes of 5 x 729 patches cost 1e12 for 128
channels and 1e15 for 4096, hours without a GPU. `FITTED` numbers in float32 are fitted at a time (at least
one episode), and held a few times over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kvstore.errors import UsageError
from kvstore.matching import Heads
from kvstore.probes import Outcome, Part, Request
from kvstore.probes._masks import Job, Prediction, carry_out, of_patches
from kvstore.probes._targets import Targets
from kvstore.probes._truth import Scene, categories, read_scenes
from kvstore.probes._vectors import Source, unit

if TYPE_CHECKING:
    import torch

    from kvstore.store import Store

NAME = "fewshot-segmentation"
EPISODES = 1000
SHOTS = 5
#: With the category's name and the number of its images, what its episodes are drawn by.
SEED = 0
#: Weight of the squared norm of weights and offset beside the mean loss.
PENALTY = 1e-3
#: Newton's steps.
STEPS = 8
#: Patches of distinct images whose vectors are held.
HELD = 1 << 16
#: Numbers that are fitted at a time.
FITTED = 1 << 22
#: A step may raise the loss by so much: float32 tells no smaller differences apart.
ROUNDING = 1e-6

_OTHERS = """
select 1
from mask m
anti join drawn d using (number, image_id, label)
where m.run_id = $run and m.probe = $probe
limit 1
"""


def predict(store: Store, request: Request) -> Outcome:
    """Fill `mask` for the request, then `score` for the run; what is complete stays as it is.

    Raises what `kvstore.probes.parts` does, and `UsageError` when the data set has no masks or no category
    has enough images.
    """
    with store.tables() as con:
        scenes = read_scenes(con, request.run_id)
    episodes = draw(scenes, request.run_id)
    _forget_others(store, request.run_id, episodes)
    targets = Targets(scenes)
    grids = {scene.image_id: scene.placed for scene in scenes}
    blocks = list(_blocks(episodes, targets))

    def predictions(part: Part | None, source: Source, how: Heads) -> Iterator[Prediction]:
        for block in blocks:
            held = dict(source(block.images))
            for some in block.batches(targets, held):
                yield from _segment(some, targets, held, how)

    reads = sum(len(block.images) for block in blocks)
    return carry_out(store, request, Job(NAME, grids, len(episodes), reads, predictions))


@dataclass(frozen=True, slots=True)
class Episode:
    """One test: find the category in the query, given the support."""

    number: int
    category: str
    query: int
    support: tuple[int, ...]

    @property
    def images(self) -> tuple[int, ...]:
        """The support and the query."""
        return (*self.support, self.query)


def draw(scenes: Sequence[Scene], run_id: str) -> list[Episode]:
    """The episodes, one category after another; their numbers take the categories in turn."""
    images = {
        name: [scene.image_id for scene in scenes if name in scene.masks] for name in categories(scenes)
    }
    enough = [name for name, found in images.items() if len(found) > SHOTS]
    if not enough:
        raise UsageError(
            f"no category of run '{run_id}' has masks in {SHOTS + 1} images, a query and {SHOTS} to learn"
            f" from; the most is {max(map(len, images.values()))}. Ingest more images: the same command with"
            " a larger --limit, or none."
        )
    episodes = []
    for turn, name in enumerate(enough):
        random = Random(f"{SEED} {name} {len(images[name])}")
        for number in range(turn, EPISODES, len(enough)):
            query, *support = random.sample(images[name], SHOTS + 1)
            episodes.append(Episode(number, name, query, tuple(support)))
    return episodes


def _forget_others(store: Store, run_id: str, episodes: Sequence[Episode]) -> None:
    """Drop predictions of other episodes, drawn when the run had other images, and their figures."""
    which = {"run": run_id, "probe": NAME}
    drawn = pa.table(
        {
            "number": pa.array([episode.number for episode in episodes], pa.int32()),
            "image_id": pa.array([episode.query for episode in episodes], pa.int32()),
            "label": [episode.category for episode in episodes],
        }
    )
    with store.tables() as con:
        con.register("drawn", drawn)
        others = con.execute(_OTHERS, which).fetchall()
    if others:
        with store.publish() as con:
            for table in ("mask", "score"):
                con.execute(f"delete from {table} where run_id = $run and probe = $probe", which)


@dataclass(frozen=True, slots=True)
class _Block:
    """Episodes whose images are held together."""

    images: list[int]
    episodes: list[Episode]

    def batches(self, targets: Targets, held: dict[int, torch.Tensor]) -> Iterator[list[Episode]]:
        """The episodes by as many as are fitted at a time."""
        most = max(sum(held[image].numel() for image in episode.support) for episode in self.episodes)
        step = max(1, FITTED // most)
        for start in range(0, len(self.episodes), step):
            yield self.episodes[start : start + step]


def _blocks(episodes: Sequence[Episode], targets: Targets) -> Iterator[_Block]:
    """Consecutive episodes whose distinct images have at most `HELD` patches; one episode at least."""
    patches = {image: scene.placed.grid.patches for image, scene in targets.scenes.items()}
    images: set[int] = set()
    block: list[Episode] = []
    for episode in episodes:
        union = images.union(episode.images)
        if block and sum(patches[image] for image in union) > HELD:
            yield _Block(sorted(images), block)
            block, union = [], set(episode.images)
        block.append(episode)
        images = union
    yield _Block(sorted(images), block)


def _segment(
    episodes: Sequence[Episode], targets: Targets, held: dict[int, torch.Tensor], how: Heads
) -> Iterator[Prediction]:
    """Predictions of each episode's query, episodes fitted together."""
    import torch

    support = [unit(torch.cat([held[image] for image in episode.support], 1), how) for episode in episodes]
    query = [unit(held[episode.query], how) for episode in episodes]
    signs, shares = _lessons(episodes, targets, support[0][0].device)
    found = []
    for taught, asked in zip(zip(*support, strict=True), zip(*query, strict=True), strict=True):
        weights, offsets = fit(_stacked(taught), signs, shares)
        fits = zip(asked, weights, offsets, strict=True)
        found.append([_product(slope, one.mT) + offset[:, None] > 0 for one, slope, offset in fits])
    for episode, *bits in zip(episodes, *found, strict=True):
        target = targets.of(episode.query, episode.category, episode.number)
        yield from of_patches(target, torch.cat(bits).cpu().numpy())


def _lessons(episodes: Sequence[Episode], targets: Targets, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Signs and shares of the supports' patches [episodes, most patches]; see the top of the file."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    signs, shares = [], []
    for episode in episodes:
        shots = [targets.of(image, episode.category, episode.number) for image in episode.support]
        truth = np.concatenate([shot.truth for shot in shots])
        valid = np.concatenate([shot.valid for shot in shots])
        inside = 2 * truth >= valid
        sides = [side for side in (inside & (valid > 0), ~inside & (valid > 0)) if side.any()]
        share = sum((side / side.sum() / len(sides) for side in sides), np.zeros(len(valid)))
        signs.append(torch.from_numpy(np.where(inside, 1.0, -1.0)))
        shares.append(torch.from_numpy(share))
    padded = (pad_sequence(found, batch_first=True) for found in (signs, shares))
    first, second = (found.to(torch.float32).to(device) for found in padded)
    return first, second


def _stacked(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Vectors [kinds, patches, width] of each episode as one [episodes, kinds, most patches, width]."""
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence([one.transpose(0, 1) for one in vectors], batch_first=True).transpose(1, 2)


def fit(x: torch.Tensor, signs: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [episodes, kinds, width] and offsets [episodes, kinds] that minimise the stated loss.

    x [episodes, kinds, patches, width] float32; signs (1 or -1) and shares (of 1, over patches) [episodes,
    patches].
    """
    import torch

    shares = shares[:, None, :, None]
    mean = (shares * x).sum(-2, keepdim=True)
    x = x - mean
    scale = (shares * x.square()).sum((-1, -2)).sqrt().clamp_min(1e-30)[..., None]
    x = torch.cat([x / scale[..., None], torch.ones_like(x[..., :1])], -1)
    fits = [one.expand(x.shape[:-1]).flatten(0, 1) for one in (signs[:, None], shares[..., 0])]
    weights = _newton(x.flatten(0, 1), *fits).unflatten(0, x.shape[:2])
    slopes = weights[..., :-1] / scale
    return slopes, weights[..., -1] - (slopes * mean[..., 0, :]).sum(-1)


def _newton(x: torch.Tensor, signs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The weights [fits, width] of least loss; steps that would raise it are halved.

    x [fits, patches, width]; signs and shares [fits, patches].
    """
    import torch

    weights, margins = torch.zeros_like(x[:, 0]), torch.zeros_like(signs)  # margins: x times weights
    ridge = PENALTY * torch.eye(x.shape[-1], device=x.device)
    for _ in range(STEPS):
        wrong = torch.sigmoid(-signs * margins)
        slope = PENALTY * weights - _product(shares * signs * wrong, x)
        curves = x.mT @ ((shares * wrong * (1 - wrong))[..., None] * x) + ridge
        step = -torch.cholesky_solve(slope[..., None], torch.linalg.cholesky(curves))[..., 0]
        along = _product(step, x.mT)
        least = _loss(weights, margins, signs, shares)
        while (worse := _loss(weights + step, margins + along, signs, shares) > least + ROUNDING).any():
            step, along = (torch.where(worse, one / 2, one) for one in (step, along))
        weights, margins = weights + step, margins + along
    return weights


def _product(vectors: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Each vector [fits, rows] times its matrix [fits, rows, columns]; CPUs take columns ten times slower."""
    return (vectors[:, None] @ matrices)[:, 0]


def _loss(
    weights: torch.Tensor, margins: torch.Tensor, signs: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """The stated loss [fits, 1]."""
    from torch.nn.functional import softplus

    fit = (shares * softplus(-signs * margins)).sum(-1, keepdim=True)
    return fit + PENALTY / 2 * weights.square().sum(-1, keepdim=True)
