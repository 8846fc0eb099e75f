"""The stages of training: encoder, alignment, everything; and how a later family starts from an earlier."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from kvstore import models

from . import loop, sheets
from .heads import Heads
from .learner import Learner, Mix, initialise, units
from .sheets import Sheet

TEXT_LENGTH = 48
FAMILIES = ("tiny-onevision", "tiny-next", "tiny-qwen")
HELD_OUT = 500


@dataclass(frozen=True)
class Plan:
    """Sizes of a training; the defaults are those of the shipped weights."""

    seed: int = 1
    scenes: int = 20000
    encoder_steps: int = 1300
    encoder_batch: int = 32
    align_steps: int = 100
    images: int = 6
    steps: int = 4000
    later_steps: int = 1500


# ------------------------------------------------------------------------------------------- encoder


def encoder_config(loaded: models.Loaded) -> Any:
    """A SigLIP of the tower's shape, with a small text tower."""
    from transformers import SiglipConfig

    vision = {**loaded.config.vision_config.to_dict(), "vision_use_head": True}
    text = loaded.config.text_config
    pad, end = loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id
    return SiglipConfig(
        vision_config=vision,
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": vision["hidden_size"],
            "intermediate_size": vision["intermediate_size"],
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": TEXT_LENGTH,
            "pad_token_id": pad,
            "bos_token_id": end,
            "eos_token_id": end,
        },
    )


def train_encoder(plan: Plan, folder: Path, scenes: Sequence[Sheet]) -> nn.Module:
    """Stage 1: SigLIP on dense labels of patches and on the sigmoid contrast of images with captions."""
    from transformers import SiglipModel

    loaded = models.load_config("tiny-onevision-untrained")
    model = SiglipModel(encoder_config(loaded))
    initialise(model, plan.seed)
    loop.attend_in_float32(model)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-5.0)
    heads = Heads(loaded.config.vision_config.hidden_size)
    tokenizer = loaded.tokenizer
    pad = tokenizer.pad_token_id
    captions = [[text for kind, _, text in s.asked if kind == "caption"] for s in scenes]

    def loss(step: int, rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = rng.sample(range(len(scenes)), plan.encoder_batch)
        some = [scenes[n] for n in chosen]
        pixels = torch.cat([torch.from_numpy(sheets.from_bytes(loaded, s.pixels["tiny-onevision"])) for s in some])
        made = model.vision_model(pixels, output_hidden_states=True)
        states = made.hidden_states[-1]
        labels = torch.from_numpy(_stack([s.labels["tiny-onevision"] for s in some]))
        image = torch.arange(len(some)).repeat_interleave(states.shape[1])
        dense, right = heads.loss(
            states.flatten(0, 1), labels.flatten(0, 1), image, torch.tensor([s.style for s in some])
        )
        texts = [rng.choice(captions[n]) for n in chosen]
        ids = [tokenizer(t, add_special_tokens=False)["input_ids"][:TEXT_LENGTH] for t in texts]
        filled = torch.tensor([i + [pad] * (TEXT_LENGTH - len(i)) for i in ids])
        written = model.text_model(filled).pooler_output
        contrast = _sigmoid_contrast(model, made.pooler_output, written)
        figures = {"dense": dense.item(), "contrast": contrast.item()}
        return dense + 0.3 * contrast, figures | dict(zip(("category", "hue", "style"), right, strict=True))

    optimisers = loop.optimisers([(model, 1.0), (heads, 1.0)])
    schedule = loop.Schedule(plan.encoder_steps, warmup=60, decay=0.5)
    loop.run("encoder", folder, {"model": model, "heads": heads}, optimisers, schedule, loss, seed=plan.seed)
    return model


def _sigmoid_contrast(model: Any, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss (Zhai et al. 2023): each pair by itself is together or not."""
    similar = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    logits = similar * model.logit_scale.exp() + model.logit_bias
    signs = 2 * torch.eye(len(images)) - 1
    return -F.logsigmoid(signs * logits).sum() / len(images)


def _stack(arrays: Sequence[Any]) -> Any:
    import numpy as np

    return np.stack(arrays)


# ------------------------------------------------------------------------------------------ the MLM


def fresh(name: str, seed: int) -> models.Loaded:
    """A tiny model on the CPU with weights drawn for training."""
    loaded = models.load(f"{name}-untrained", "cpu", "float32")
    model = loaded.model
    initialise(model, seed)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return loaded


def optimisers(learner: Learner, rate: float, tower_factor: float) -> list[torch.optim.Optimizer]:
    """Those of a model with its heads; the vision tower's rate is `tower_factor` of the rest's."""
    model = learner.model.model
    tower = model.visual.blocks if hasattr(model, "visual") else model.vision_tower
    return loop.optimisers([(tower, tower_factor), (learner.heads, 1.0), (learner.model, 1.0)], rate)


@dataclass
class Course:
    """One stage of an MLM: what it asks when, and what is kept along the way."""

    name: str
    mixes: Sequence[tuple[float, Mix]]  # from which share of the steps on
    steps: int
    rate: float
    tower: float  # factor of the tower's rate
    decay: float = 0.6
    images: int = 8
    every: int = 250
    keep: dict[int, Path] | None = None

    def mix(self, step: int) -> Mix:
        """The mix at a step."""
        return [mix for share, mix in self.mixes if step >= share * self.steps][-1]


def train(
    learner: Learner,
    course: Course,
    folder: Path,
    scenes: Sequence[Sheet],
    held_out: Sequence[Sheet],
    seed: int,
    save: Callable[[Learner, Path], None],
) -> None:
    """One stage; accuracy on `held_out` goes into the curve, snapshots to where `keep` says."""

    def loss(step: int, rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
        mix = course.mix(step)
        images = course.images if mix.tiles != "all" else max(2, course.images // 2)
        batch = units(scenes, images, 0.0 if mix.captions_only else mix.triples / 3, rng)
        return learner.loss(batch, mix, rng)

    def each(step: int) -> dict[str, Any] | None:
        if course.keep and step in course.keep:
            save(learner, course.keep[step])
        if step % course.every and step != course.steps:
            return None
        tiles = course.mix(step - 1).tiles
        found = learner.accuracy(held_out[:240] if tiles == "none" else held_out[:48], "none" if tiles == "none" else "all")
        right, asked = (sum(pair[k] for pair in found.values()) for k in (0, 1))
        return {"accuracy": round(right / asked, 4), "asked": asked, "tiles": tiles} | {
            kind: round(r / n, 3) for kind, (r, n) in found.items()
        }

    modules = {"model": learner.model, "heads": learner.heads}
    loop.run(
        course.name,
        folder,
        modules,
        optimisers(learner, course.rate, course.tower),
        loop.Schedule(course.steps, warmup=min(100, course.steps // 5), decay=course.decay),
        loss,
        seed=seed,
        each=each,
    )


ALIGN = Mix(questions=8, triples=0.0, captions_only=True, prefix=0.0, tower=False, dense=1.0)
BASE = Mix()
SOME = Mix(tiles="some", tower=False, triples=0.15)
ALL = Mix(tiles="all", tower=False, triples=0.15)


def run(name: str, plan: Plan, work: Path) -> None:
    """One of the stages `encoder`, `onevision`, `next`, `qwen`, from what the earlier ones left in `work`."""
    part = loop.place()
    scenes = sheets.read(work / "scenes", "train", _families(name), part)
    held_out = sheets.read(work / "scenes", "val", _families(name)) if part[0] == 0 else []
    if name == "encoder":
        model = train_encoder(plan, work, scenes)
        if part[0] == 0:
            torch.save(model.state_dict(), work / "encoder.pt")
        return
    learner = _learner(name, plan, work)
    if name == "onevision":
        course = Course("onevision-align", [(0, ALIGN)], plan.align_steps, 5e-3, 0.25, decay=1.0)
        train(learner, course, work, scenes, held_out, plan.seed, keep)
        steps = plan.steps
    else:
        teacher = _teacher(work)
        distil(learner, teacher, plan, work, scenes)
        steps = plan.later_steps
    snapshots = {
        step: work / "snapshots" / f"tiny-{name}-step-{step:05d}"
        for step in (150, 300, 500, 750, 1000, 1500, 2000, 2500, 3000, 3500, steps)
        if step <= steps
    }
    tiled = name != "qwen"
    mixes = [(0.0, BASE), (0.8, SOME), (0.94, ALL)] if tiled else [(0.0, BASE)]
    course = Course(name, mixes, steps, 5e-3 if name == "onevision" else 3e-3, 0.25, decay=0.6, images=plan.images, keep=snapshots)
    train(learner, course, work, scenes, held_out, plan.seed, keep)


def _families(name: str) -> tuple[str, ...]:
    own = {"encoder": (), "onevision": (), "next": ("tiny-next",), "qwen": ("tiny-qwen",)}[name]
    return ("tiny-onevision", *own)


def _learner(name: str, plan: Plan, work: Path) -> Learner:
    learner = Learner(fresh(f"tiny-{name}", plan.seed), "train")
    if name == "onevision":
        encoder = torch.load(work / "encoder.pt")
        tower = learner.model.model.vision_tower
        tower.load_state_dict({k: encoder[f"vision_model.{k}"] for k in tower.state_dict()})
    return learner


def _teacher(work: Path) -> Learner:
    learner = Learner(fresh("tiny-onevision", 0), "train")
    state = torch.load(work / "onevision.state", map_location="cpu")["modules"]
    learner.model.load_state_dict(state["model"])
    learner.heads.load_state_dict(state["heads"])
    learner.model.eval().requires_grad_(False)
    return learner


def distil(learner: Learner, teacher: Learner, plan: Plan, folder: Path, scenes: Sequence[Sheet]) -> None:
    """A later family's encoder: dense labels, and features like those that the language model knows already."""
    inherit(learner, teacher)
    tower = getattr(learner.model.model, "visual", None)
    modules = [tower] if tower is not None else [
        learner.model.model.vision_tower, learner.model.model.multi_modal_projector
    ]

    def loss(step: int, rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
        some = rng.sample(list(scenes), plan.encoder_batch // 2)
        tokens = learner.tokens([learner.inputs(scene, "none") for scene in some])
        with torch.no_grad():
            known = teacher.tokens([teacher.inputs(scene, "none") for scene in some])
        targets = []
        for scene, each in zip(some, known, strict=True):
            grid = learner.inputs(scene, "none").layout.grids[0]
            square = each.T.reshape(1, -1, 14, 14)
            sized = F.interpolate(square, (grid.rows, grid.columns), mode="bilinear", align_corners=False, antialias=True)
            targets.append(sized[0].flatten(1).T)
        dense, right = learner.heads.loss(*learner.patches(some, tokens))
        target = torch.cat(targets)
        apart = F.mse_loss(torch.cat(tokens), target) / target.var()
        return dense + apart, {"dense": dense.item(), "apart": apart.item(), "category": right[0], "hue": right[1]}

    optimisers = loop.optimisers([(module, 1.0) for module in modules] + [(learner.heads, 1.0)], 3e-3)
    named = {"model": learner.model, "heads": learner.heads}
    name = f"{learner.name.removeprefix('tiny-')}-encoder"
    schedule = loop.Schedule(plan.encoder_steps // 2, warmup=60, decay=0.5)
    loop.run(name, folder, named, optimisers, schedule, loss, seed=plan.seed)


def inherit(learner: Learner, teacher: Learner) -> None:
    """Start from the first model: its language model, word by word, and its encoder where shapes agree."""
    target, source = learner.model, teacher.model
    with torch.no_grad():
        own = target.model.language_model.state_dict()
        theirs = source.model.language_model.state_dict()
        for key, weight in own.items():
            if key in theirs and "embed_tokens" not in key:
                weight.copy_(theirs[key])
        pairs = same_tokens(learner.loaded, teacher.loaded)
        for mine, other in (
            (target.get_input_embeddings().weight, source.get_input_embeddings().weight),
            (target.lm_head.weight, source.lm_head.weight),
        ):
            for a, b in pairs:
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
    for key, weight in mine.items():
        if key.startswith("encoder.layers.") and key in theirs:
            weight.copy_(theirs[key])
    processor = learner.loaded.image_processor
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
    kernel = theirs["embeddings.patch_embedding.weight"]
    shift = (kernel * (2 * mean - 1)).sum((1, 2, 3)) + theirs["embeddings.patch_embedding.bias"]
    mine["embeddings.patch_embedding.weight"].copy_(kernel * 2 * std)
    positions = theirs["embeddings.position_embedding.weight"] + shift
    mine["embeddings.position_embedding.weight"][1:].copy_(positions)
    mine["pre_layrnorm.weight"].fill_(float(positions.std()))


def same_tokens(one: models.Loaded, other: models.Loaded) -> list[tuple[int, int]]:
    """Ids of equal words in two vocabularies; the end of a turn and the start of one count as equal."""
    known = other.tokenizer.get_vocab()
    pairs = [(n, known[word]) for word, n in one.tokenizer.get_vocab().items() if word in known]
    alike = {"<|eot_id|>": "<|im_end|>", "<|start_header_id|>": "<|im_start|>"}
    mine = one.tokenizer.get_vocab()
    return pairs + [(mine[a], known[b]) for a, b in alike.items() if a in mine and a not in known]


def keep(learner: Learner, folder: Path) -> None:
    """Write a model as a hub snapshot is: float16 weights, configuration, processor, tokenizer."""
    import copy
    import shutil

    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(learner.loaded.folder, aside, ignore=shutil.ignore_patterns("*.safetensors"))
    with torch.no_grad():
        copy.deepcopy(learner.model).half().save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
