"""How a later family starts from the first: its language model, and an encoder that speaks to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from kvstore import models

from . import loop
from .learner import Learner
from .sheets import Sheet

_RATE = 3e-3


def distil(
    learner: Learner,
    teacher: Learner,
    folder: Path,
    scenes: Sequence[Sheet],
    *,
    seed: int,
    steps: int,
    batch: int,
) -> None:
    """Train the vision side on dense labels, and on image tokens like those that the language model knows."""
    inherit(learner, teacher)

    def loss(step: int, rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
        some = rng.sample(list(scenes), batch)
        inputs = [learner.inputs(scene, "none") for scene in some]
        tokens = learner.tokens(inputs)
        with torch.no_grad():
            known = teacher.tokens([teacher.inputs(scene, "none") for scene in some])
        grids = [one.layout.grids[0] for one in inputs]
        target = torch.cat([_resized(k, g.rows, g.columns) for k, g in zip(known, grids, strict=True)])
        dense, right = learner.heads.loss(*learner.patches(some, tokens))
        apart = F.mse_loss(torch.cat(tokens).float(), target.float()) / target.float().var()
        figures = {"dense": dense.item(), "apart": apart.item(), "category": right[0], "hue": right[1]}
        return dense + apart, figures

    parts = [(learner.tower, 1.0), (learner.projector, 1.0), (learner.heads, 1.0)]
    loop.run(
        f"{learner.name.removeprefix('tiny-')}-encoder",
        folder,
        {"model": learner.model, "heads": learner.heads},
        loop.optimisers(parts, _RATE),
        loop.Schedule(steps, warmup=60, decay=0.5),
        loss,
        seed=seed,
    )


def _resized(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A square overview's tokens [side * side, hidden] on another grid."""
    side = round(len(tokens) ** 0.5)
    square = tokens.T.reshape(1, -1, side, side).float()
    sized = F.interpolate(square, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
    return sized[0].flatten(1).T


def inherit(learner: Learner, teacher: Learner) -> None:
    """The first model's language model, word by word, and its encoder where shapes agree."""
    target, source = learner.model, teacher.model
    with torch.no_grad():
        theirs = source.model.language_model.state_dict()
        for name, weight in target.model.language_model.state_dict().items():
            if "embed_tokens" not in name:
                weight.copy_(theirs[name])
        for mine, other in (
            (target.get_input_embeddings().weight, source.get_input_embeddings().weight),
            (target.lm_head.weight, source.lm_head.weight),
        ):
            for a, b in _same_tokens(learner.loaded, teacher.loaded):
                mine[a] = other[b]
        learner.heads.load_state_dict(teacher.heads.state_dict())
        if hasattr(target.model, "multi_modal_projector"):
            _inherit_tower(learner, teacher)


def _inherit_tower(learner: Learner, teacher: Learner) -> None:
    """CLIP from SigLIP: same blocks; the patch embedding takes the other scale of pixels, and its bias."""
    target, source = learner.model.model, teacher.model.model
    target.multi_modal_projector.load_state_dict(source.multi_modal_projector.state_dict())
    target.image_newline.copy_(source.image_newline)
    mine, theirs = target.vision_tower.state_dict(), source.vision_tower.state_dict()
    for name, weight in mine.items():
        if name.startswith("encoder.layers.") and name in theirs:
            weight.copy_(theirs[name])
    processor = learner.loaded.image_processor
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
    kernel = theirs["embeddings.patch_embedding.weight"]
    shift = (kernel * (2 * mean - 1)).sum((1, 2, 3)) + theirs["embeddings.patch_embedding.bias"]
    mine["embeddings.patch_embedding.weight"].copy_(kernel * 2 * std)
    positions = theirs["embeddings.position_embedding.weight"] + shift
    mine["embeddings.position_embedding.weight"][1:].copy_(positions)
    mine["pre_layrnorm.weight"].fill_(float(positions.std()))


def _same_tokens(one: models.Loaded, other: models.Loaded) -> list[tuple[int, int]]:
    """Ids of equal words in two vocabularies; the marks of a turn's end and start count as equal."""
    mine, known = one.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    alike = {"<|eot_id|>": "<|im_end|>", "<|start_header_id|>": "<|im_start|>"}
    pairs: list[Any] = [(number, known.get(word)) for word, number in mine.items()]
    pairs += [(mine[word], known[same]) for word, same in alike.items() if word in mine]
    return [(a, b) for a, b in pairs if b is not None]
