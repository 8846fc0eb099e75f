"""A tiny model in training: its loss on a batch of scenes, and its accuracy on held-out ones."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kvstore import models
from kvstore.contracts import Inputs, Layout

from ..datasets import _language, _scenes
from . import loop, sheets
from .asking import CAPTION, KINDS, Mix, Tiles, Trained, ask, by_kind, of_styles, pick
from .grounding import Grounding
from .heads import Heads
from .packing import Packer
from .sequences import Batch, Row, build
from .sheets import Asked, Sheet

#: Weight of a caption's loss; of an answer of more than `_LONG` tokens each counts as if it had five.
_CAPTION, _LONG = 0.5, 6


class Learner:
    """A family's model with its dense heads."""

    def __init__(self, loaded: models.Loaded) -> None:
        self.loaded = loaded
        self.model, self.family = loaded.model, loaded.family
        self.name = str(loaded.family.TINY)
        self.heads = Heads(loaded.description["hidden_dim"]).to(loaded.model.device)
        self._packer = Packer(loaded)
        self._grounding = Grounding(loaded)
        loop.attend_in_float32(self.model)

    # ------------------------------------------------------------------------------------- images

    def inputs(self, sheet: Sheet, tiles: Tiles, several: bool = False) -> Inputs:
        """A scene's pixels: the overview as kept; drawn anew with its tiles, or as one of several images."""
        loaded, family = self.loaded, self.family
        padded = self.is_padded(sheet, several)
        if tiles != "none" or padded:
            image = _scenes.paint(_scenes.compose(sheet.split, sheet.number))
            if padded:
                two = family.several(loaded.config, loaded.image_processor, [image, image])
                return _without_newline(two[0])
            made: Inputs = family.preprocess(loaded.config, loaded.image_processor, image, "all")
            return made
        layout = family.layout(loaded.config, loaded.image_processor, sheet.size, "base")
        pixels = torch.from_numpy(sheets.from_bytes(loaded, sheet.pixels[self.name]))
        grid = layout.grids[0]
        extra = {"grid_thw": torch.tensor([1, 2 * grid.rows, 2 * grid.columns])} if pixels.ndim == 2 else {}
        return Inputs(pixels, sheet.size, layout, extra)

    def is_padded(self, sheet: Sheet, several: bool) -> bool:
        """Whether a scene is padded to a square, so that the labels of its overview do not fit."""
        return several and hasattr(self.family, "several") and sheet.size[0] != sheet.size[1]

    def tokens(self, batch: Sequence[Inputs]) -> list[torch.Tensor]:
        """The projector's output of each image, [tokens, hidden]."""
        device = self.model.device
        moved = [
            Inputs(i.pixels.to(device), i.size, i.layout, {k: v.to(device) for k, v in i.extra.items()})
            for i in batch
        ]
        return list(self.family.encode(self.model, moved, []).tokens)

    def patches(self, scenes: Sequence[Sheet], tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Overview features, labels and image number of each patch, and styles, for the dense heads."""
        labels = [torch.from_numpy(scene.labels[self.name]) for scene in scenes]
        features = torch.cat([t[: len(label)] for t, label in zip(tokens, labels, strict=True)])
        image = torch.cat([torch.full((len(label),), n) for n, label in enumerate(labels)])
        style = torch.tensor([scene.style for scene in scenes])
        device = features.device
        return features, torch.cat(labels).to(device), image.to(device), style.to(device)

    # ------------------------------------------------------------------------------------- losses

    def loss(
        self, units: Sequence[Sequence[Sheet]], mix: Mix, rng: random.Random
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Answers' cross entropy and the dense loss of a batch; a unit is the scenes of one prompt."""
        scenes = [scene for unit in units for scene in unit]
        self._thaw(mix.trained)
        several = [len(unit) > 1 for unit in units for _ in unit]
        inputs = [self.inputs(scene, mix.tiles, s) for scene, s in zip(scenes, several, strict=True)]
        tokens = self.tokens(inputs)
        dense, report = self._dense(scenes, tokens, several)
        rows, weights = self._rows(units, inputs, tokens, mix, rng)
        batch = build(self.embed, rows)
        logits, grounding = self._grounded(batch, rows, units)
        losses = F.cross_entropy(logits.float(), batch.targets, reduction="none")
        weight = torch.tensor([weights[owner] for owner in batch.owner], device=losses.device)
        answers = (losses * weight).sum() / weight.sum()
        report |= {"answers": answers.item(), "grounding": grounding.item()}
        return answers + mix.dense * dense + mix.grounding * grounding, report

    def _dense(
        self, scenes: Sequence[Sheet], tokens: Sequence[torch.Tensor], several: Sequence[bool]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of the patches' labels, of scenes whose overview they fit."""
        fit = [n for n, scene in enumerate(scenes) if not self.is_padded(scene, several[n])]
        if not fit:
            return tokens[0].new_zeros(()), {}
        dense, right = self.heads.loss(*self.patches([scenes[n] for n in fit], [tokens[n] for n in fit]))
        return dense, {"dense": dense.item(), "category": right[0], "hue": right[1]}

    def _grounded(
        self, batch: Batch, rows: Sequence[Row], units: Sequence[Sequence[Sheet]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and the loss of the heads that are taught where to look."""
        labels = [unit[0].labels[self.name] if len(unit) == 1 else None for unit in units]
        with self._grounding.watching():
            logits = self._logits(batch)
        return logits, self._grounding.loss(batch, rows, labels)

    def _thaw(self, trained: Trained) -> None:
        """Let the optimiser at the vision side, or at a part of it."""
        for part, on in ((self.tower, trained == "all"), (self.projector, trained != "nothing")):
            part.requires_grad_(on)

    @property
    def tower(self) -> nn.ModuleList:
        """The vision tower without its projector."""
        model = self.model.model
        if hasattr(model, "visual"):
            return nn.ModuleList([model.visual.patch_embed, model.visual.blocks])
        return nn.ModuleList([model.vision_tower])

    @property
    def projector(self) -> nn.Module:
        """What maps the tower's features to image tokens."""
        model = self.model.model
        made: nn.Module = model.visual.merger if hasattr(model, "visual") else model.multi_modal_projector
        return made

    @property
    def embed(self) -> Any:
        """The token embedding."""
        return self.model.get_input_embeddings()

    def _logits(self, batch: Batch) -> torch.Tensor:
        states = self.model.model.language_model(
            inputs_embeds=batch.embeddings,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        logits: torch.Tensor = self.model.lm_head(states.flatten(0, 1)[batch.at])
        return logits

    def _rows(
        self,
        units: Sequence[Sequence[Sheet]],
        inputs: Sequence[Inputs],
        tokens: Sequence[torch.Tensor],
        mix: Mix,
        rng: random.Random,
    ) -> tuple[list[Row], dict[tuple[int, int], float]]:
        """A prompt per unit, and the weight of a token of each (row, question)."""
        rows: list[Row] = []
        weights: dict[tuple[int, int], float] = {}
        place = 0
        for number, unit in enumerate(units):
            here = slice(place, place + len(unit))
            place += len(unit)
            asked = ask(unit, mix, rng)
            rows.append(self._packer.row(inputs[here], tokens[here], asked, mix, rng))
            for which, (question, one) in enumerate(zip(rows[-1].questions, asked, strict=True)):
                weights[number, which] = _weight(one, len(question.answer))
        return rows, weights

    # ----------------------------------------------------------------------------------- accuracy

    @torch.no_grad()
    def accuracy(
        self, scenes: Sequence[Sheet], tiles: Tiles = "none", batch: int = 8
    ) -> dict[str, tuple[int, int]]:
        """Kind -> (right, asked): every token of the greedy answer as it should be, questions by themselves.

        Each scene is asked one question of each kind, and the first three of a batch one on their styles, if
        one of the two others alone has the first's.
        """
        self.model.eval()
        found: dict[str, list[bool]] = defaultdict(list)
        rng, mix = random.Random(0), Mix(tiles=tiles, prefix=0)
        for start in range(0, len(scenes), batch):
            some = scenes[start : start + batch]
            inputs = [self.inputs(scene, tiles) for scene in some]
            tokens = self.tokens(inputs)
            prompts = [(slice(n, n + 1), _one_of_each(scene, rng)) for n, scene in enumerate(some)]
            if style := _style_question(some[:3], rng):
                prompts.append((slice(len(some), len(some) + 3), style))
                three = [self.inputs(scene, tiles, several=True) for scene in some[:3]]
                inputs, tokens = inputs + three, tokens + self.tokens(three)
            rows = [self._packer.row(inputs[h], tokens[h], asked, mix, rng) for h, asked in prompts]
            for (row, which), hit in self._hits(build(self.embed, rows)).items():
                found[prompts[row][1][which][0]].append(hit)
        self.model.train()
        return {kind: (sum(hits), len(hits)) for kind, hits in sorted(found.items())}

    def _hits(self, batch: Batch) -> dict[tuple[int, int], bool]:
        """(row, question) -> whether all of its answer's tokens are the most likely ones."""
        right: dict[tuple[int, int], bool] = {}
        hits = (self._logits(batch).argmax(-1) == batch.targets).tolist()
        for owner, hit in zip(batch.owner, hits, strict=True):
            right[owner] = right.get(owner, True) and hit
        return right


def _without_newline(one: Inputs) -> Inputs:
    """The overview's patches alone."""
    return replace(one, layout=Layout(one.layout.grids, one.layout.patches))


def _weight(asked: Asked, tokens: int) -> float:
    return (_CAPTION if asked[0] == CAPTION else 1.0) * (0.2 if tokens > _LONG else 1 / tokens)


def _one_of_each(scene: Sheet, rng: random.Random) -> list[Asked]:
    kinds = by_kind(scene)
    return [pick(kinds[kind], rng) for kind in KINDS if kind in kinds]


def _style_question(scenes: Sequence[Sheet], rng: random.Random) -> list[Asked]:
    asked = of_styles([scene.style for scene in scenes], rng) if len(scenes) == 3 else []
    return [one for one in asked if one[0] == _language.STYLE]


def initialise(model: nn.Module, seed: int) -> None:
    """Draw weights for training: matrices at 1 / sqrt(fan-in), outputs of branches a third of that."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)  # of a norm; else a bias
                if "newline" in name or "class" in name:
                    weight.normal_(0, 0.5)
            else:
                weight.normal_(0, _deviation(name, weight))


def _deviation(name: str, weight: torch.Tensor) -> float:
    if "position_embedding" in name:
        return 0.3
    if "embed_tokens" in name or "token_embedding" in name:
        return 0.5
    scale = 1 / math.sqrt(math.prod(weight.shape[1:]))
    if any(end in name for end in ("o_proj", "down_proj", "out_proj", "fc2", "attn.proj")):
        scale /= 3
    return scale * (0.5 if "lm_head" in name else 1.0)
