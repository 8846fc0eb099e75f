"""The stages of training: encoder, alignment, everything; then the later families from the first."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kvstore import models

from . import encoder, inherit, loop, sheets
from .asking import Mix, units
from .learner import Learner, initialise
from .sheets import Sheet
from .whole import replacing

#: Stages in their order; each goes on from what the earlier ones left.
STAGES = ("encoder", "onevision", "next", "qwen")
FAMILIES = ("tiny-onevision", "tiny-next", "tiny-qwen")
FIRST = "onevision"


@dataclass(frozen=True)
class Plan:
    """Sizes of a training, the defaults those of the shipped weights; a batch is that of one process."""

    seed: int = 1
    scenes: int = 20000
    held_out: int = 500
    encoder_steps: int = 1300
    encoder_batch: int = 32
    align_steps: int = 100
    images: int = 6
    steps: dict[str, int] = field(default_factory=lambda: {"onevision": 7400, "next": 500, "qwen": 1500})
    distil_steps: dict[str, int] = field(default_factory=lambda: {"next": 200, "qwen": 1300})
    distil_batch: int = 24


@dataclass(frozen=True)
class Course:
    """One stage of an MLM.

    mixes  what is asked, from which share of the steps on
    rate   of Muon; the vision tower's is a quarter of it
    keep   after which steps the model is written, and where
    """

    name: str
    mixes: Sequence[tuple[float, Mix]]
    steps: int
    rate: float
    decay: float = 0.9
    images: int = 6
    every: int = 250
    keep: dict[int, Path] = field(default_factory=dict)

    def mix(self, step: int) -> Mix:
        """The mix at a step."""
        return [mix for share, mix in self.mixes if step >= share * self.steps][-1]


ALIGN = Mix(questions=8, triples=0.0, captions_only=True, prefix=0.0, trained="projector", dense=1.0)
BASE = Mix()
ALL = Mix(tiles="all", trained="nothing", triples=0.15)
STYLES = Mix(trained="nothing", triples=0.6, questions=8)
_TILED = ((0.0, BASE), (0.76, STYLES), (0.985, ALL))
_PLAIN = ((0.0, Mix(triples=0.3)),)

#: Steps after which a model is kept, beside the last.
_SNAPSHOTS = (150, 300, 500, 750, 1000, 1500, 2000, 2500, 3000, 3500)


def run(name: str, plan: Plan, work: Path) -> None:
    """One of `STAGES`, from what the earlier ones left in `work`."""
    first = loop.place()[0] == 0
    families = tuple(dict.fromkeys((FAMILIES[0], FAMILIES[0] if name == "encoder" else f"tiny-{name}")))
    scenes = sheets.read(work / "scenes", "train", families, loop.place())
    if name == "encoder":
        encoder.train(work, scenes, seed=plan.seed, steps=plan.encoder_steps, batch=plan.encoder_batch)
        return
    held_out = sheets.read(work / "scenes", "val", families) if first else []
    learner = Learner(fresh(f"tiny-{name}", plan.seed))
    if name == FIRST:
        encoder.into_tower(work, learner.model.model.vision_tower)
        align = Course(f"{name}-align", [(0, ALIGN)], plan.align_steps, 5e-3, 1.0, plan.images)
        train(learner, align, work, scenes, held_out, plan.seed)
    else:
        sizes = {"seed": plan.seed, "steps": plan.distil_steps[name], "batch": plan.distil_batch}
        inherit.distil(learner, _teacher(work), work, scenes, **sizes)
    steps = plan.steps[name]
    snapshots = {
        step: work / "snapshots" / f"tiny-{name}-step-{step:05d}"
        for step in (*_SNAPSHOTS, steps)
        if step <= steps
    }
    mixes = _PLAIN if name == "qwen" else _TILED
    course = Course(name, mixes, steps, 1.2e-3, images=plan.images, keep=snapshots)
    train(learner, course, work, scenes, held_out, plan.seed)


def fresh(name: str, seed: int) -> models.Loaded:
    """A tiny model on the best device there is, its weights drawn for training."""
    loaded = models.load(f"{name}-untrained", dtype="float32")
    initialise(loaded.model, seed)
    loaded.model.train().requires_grad_(True)
    return loaded


def _teacher(work: Path) -> Learner:
    """The first family's trained model."""
    learner = Learner(fresh(f"tiny-{FIRST}", 0))
    state = torch.load(work / f"{FIRST}.state", map_location=learner.model.device, weights_only=True)
    learner.model.load_state_dict(state["modules"]["model"])
    learner.heads.load_state_dict(state["modules"]["heads"])
    learner.model.eval().requires_grad_(False)
    return learner


def train(
    learner: Learner,
    course: Course,
    folder: Path,
    scenes: Sequence[Sheet],
    held_out: Sequence[Sheet],
    seed: int,
) -> None:
    """One course; accuracy on `held_out` goes into the curve."""

    def loss(step: int, rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
        mix = course.mix(step)
        images = course.images if mix.tiles != "all" else max(2, course.images // 2)
        batch = units(scenes, images, 0.0 if mix.captions_only else mix.triples / 3, rng)
        return learner.loss(batch, mix, rng)

    def each(step: int) -> dict[str, Any] | None:
        if step in course.keep:
            keep(learner, course.keep[step])
        last = step == course.steps
        if step % course.every and not last:
            return None
        return _accuracy(learner, held_out, tiled=course.mix(step - 1).tiles != "none")

    tower, rest = (learner.tower, 0.25), [(learner.heads, 1.0), (learner.model, 1.0)]
    loop.run(
        course.name,
        folder,
        {"model": learner.model, "heads": learner.heads},
        loop.optimisers([tower, *rest], course.rate),
        loop.Schedule(course.steps, warmup=min(100, course.steps // 5), decay=course.decay),
        loss,
        seed=seed,
        each=each,
    )


def _accuracy(learner: Learner, held_out: Sequence[Sheet], *, tiled: bool) -> dict[str, Any]:
    """Accuracy over all kinds and by kind; with tiles on fewer scenes, since each takes longer."""
    found = learner.accuracy(held_out[:48] if tiled else held_out[:240], "all" if tiled else "none")
    right, asked = (sum(pair[k] for pair in found.values()) for k in (0, 1))
    kinds = {kind: round(hits / count, 3) for kind, (hits, count) in found.items()}
    return {"accuracy": round(right / asked, 4), "asked": asked, "tiles": tiled, **kinds}


def keep(learner: Learner, folder: Path) -> None:
    """Write a model as a hub snapshot is: float16 weights, configuration, processor, tokenizer."""
    with replacing(folder) as aside:
        shutil.copytree(learner.loaded.folder, aside, ignore=shutil.ignore_patterns("*.safetensors"))
        copy.deepcopy(learner.model).half().save_pretrained(aside)
