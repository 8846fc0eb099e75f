"""A tiny model in training: batches of its questions, its loss, and its accuracy on held-out scenes."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from kvstore import models
from kvstore.contracts import Inputs
from kvstore.recipes.ingest.datasets import _scenes

from . import loop, sheets
from .heads import Heads
from .sequences import Batch, Question, Row, Template, build
from .sheets import Sheet

Tiles = Literal["none", "some", "all"]
#: Kinds that count in the accuracy; others are asked to teach what they need.
KINDS = ("existence", "color", "place", "counting", "relation", "style")
#: How often a kind is asked of one image, relative to the others.
SHARES = {"existence": 3.0, "color": 2.5, "place": 3.0, "counting": 3.0, "relation": 4.0}
DRILLS = {"caption": 0.5}  # weights of losses
_SOME = 0.2


@dataclass(frozen=True)
class Mix:
    """What a stage asks: questions per image, share of rows with three images, AnyRes tiles, losses' weights."""

    questions: int = 12
    triples: float = 0.2
    tiles: Tiles = "none"
    captions_only: bool = False
    prefix: float = 0.2
    dense: float = 0.3
    tower: bool = True


class Learner:
    """A family's model with its dense heads.

    `answer_loss` and `dense_loss` take scenes and return scalars; `accuracy` asks held-out scenes.
    """

    def __init__(self, loaded: models.Loaded, split: str) -> None:
        self.loaded, self.split = loaded, split
        self.model = loaded.model
        loop.attend_in_float32(self.model)
        self.family = loaded.family
        self.name = str(loaded.family.TINY)
        self.template = Template(loaded)
        self.heads = Heads(loaded.description["hidden_dim"]).to(loaded.model.device)
        self._qwen = loaded.family.IMAGE_START != ""
        self._newline = self.name == "tiny-onevision"  # ends each image of several

    # ------------------------------------------------------------------------------------- images

    def inputs(self, sheet: Sheet, tiles: Tiles) -> Inputs:
        """A scene's pixels: the overview as kept, or drawn anew with its tiles."""
        loaded = self.loaded
        if tiles != "none":
            image = _scenes.paint(_scenes.compose(self.split, sheet.number))
            return self.family.preprocess(loaded.config, loaded.image_processor, image, "all")
        layout = self.family.layout(loaded.config, loaded.image_processor, sheet.size, "base")
        pixels = torch.from_numpy(sheets.from_bytes(loaded, sheet.pixels[self.name]))
        grid = layout.grids[0]
        extra = {"grid_thw": torch.tensor([1, 2 * grid.rows, 2 * grid.columns])} if self._qwen else {}
        return Inputs(pixels, sheet.size, layout, extra)

    def tokens(self, batch: Sequence[Inputs]) -> list[torch.Tensor]:
        """The projector's output of each image."""
        device = self.model.device
        moved = [
            Inputs(i.pixels.to(device), i.size, i.layout, {k: v.to(device) for k, v in i.extra.items()})
            for i in batch
        ]
        return list(self.family.encode(self.model, moved, []).tokens)

    def patches(self, scenes: Sequence[Sheet], tokens: Sequence[torch.Tensor]) -> Any:
        """Overview features, labels and image number of each patch, for the dense heads."""
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
        """Answers' cross entropy and the dense loss of a batch; a unit is one scene, or three in one prompt."""
        scenes = [scene for unit in units for scene in unit]
        with torch.set_grad_enabled(mix.tower and torch.is_grad_enabled()):
            inputs = [self.inputs(scene, mix.tiles) for scene in scenes]
            tokens = self.tokens(inputs)
        if not mix.tower:
            tokens = [each.detach() for each in tokens]
        dense, right = self.heads.loss(*self.patches(scenes, tokens))
        rows, weights = self._rows(units, inputs, tokens, mix, rng)
        batch = build(self.embed, rows)
        losses = F.cross_entropy(self._logits(batch).float(), batch.targets, reduction="none")
        weight = torch.tensor([weights[owner] for owner in batch.owner], device=losses.device)
        answers = (losses * weight).sum() / weight.sum()
        report = {"answers": answers.item(), "dense": dense.item(), "category": right[0], "hue": right[1]}
        return answers + mix.dense * dense, report

    @property
    def embed(self) -> nn.Module:
        """The token embedding."""
        return self.model.get_input_embeddings()

    def _logits(self, batch: Batch) -> torch.Tensor:
        states = self.model.model.language_model(
            inputs_embeds=batch.embeddings,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        return self.model.lm_head(states.flatten(0, 1)[batch.at])

    def _rows(
        self,
        units: Sequence[Sequence[Sheet]],
        inputs: Sequence[Inputs],
        tokens: Sequence[torch.Tensor],
        mix: Mix,
        rng: random.Random,
    ) -> tuple[list[Row], dict[tuple[int, int], float]]:
        rows: list[Row] = []
        weights: dict[tuple[int, int], float] = {}
        place = 0
        for unit in units:
            chosen = slice(place, place + len(unit))
            place += len(unit)
            triple = len(unit) == 3
            asked = self._triple(unit, rng) if triple else self._single(unit[0], mix, rng)
            row = self._row(inputs[chosen], tokens[chosen], asked, mix, rng)
            for number, (question, (kind, _, _)) in enumerate(zip(row.questions, asked, strict=True)):
                size = len(question.answer)
                weights[len(rows), number] = DRILLS.get(kind, 1.0) * (0.2 if size > 6 else 1 / size)
            rows.append(row)
        return rows, weights

    def _single(self, scene: Sheet, mix: Mix, rng: random.Random) -> list[tuple[str, str, str]]:
        if mix.captions_only:
            wanted = [one for one in scene.asked if one[0] not in SHARES]
            return rng.sample(wanted, min(mix.questions, len(wanted)))
        sorted_ = by_kind(scene)
        kinds = list(sorted_)
        shares = [SHARES.get(kind, 1.0) for kind in kinds]
        return list(
            dict.fromkeys(pick(sorted_[kind], rng) for kind in rng.choices(kinds, shares, k=mix.questions))
        )

    def _triple(self, scenes: Sequence[Sheet], rng: random.Random) -> list[tuple[str, str, str]]:
        return triple_questions([scene.style for scene in scenes], rng)

    def _row(
        self,
        inputs: Sequence[Inputs],
        tokens: Sequence[torch.Tensor],
        asked: Sequence[tuple[str, str, str]],
        mix: Mix,
        rng: random.Random,
    ) -> Row:
        template, count = self.template, len(inputs)
        first = asked[0]
        before = rng.random() < mix.prefix and first[0] != "caption"
        questions = [template.question(text, answer, count) for _, text, answer in asked]
        if before:
            questions[0] = template.question("", first[2], count)
        head = template.head(f"{first[1]} " if before else "")
        between = template.pieces("", count)[:-1]
        parts: list[Any] = [head]
        kept = [torch.ones(len(head), dtype=torch.bool)]
        lengths: list[int] = [len(head)]
        jumps = [0]
        for number, (one, states) in enumerate(zip(inputs, tokens, strict=True)):
            overview = one.layout.grids[0].patches
            alone = count > 1 and self._newline
            if alone:
                newline = self.model.model.image_newline[None].to(states.dtype)
                states = torch.cat([states[:overview], newline])
            keep = torch.ones(len(states), dtype=torch.bool)
            if mix.tiles == "some" and not alone:
                keep[overview:] = torch.rand(len(states) - overview) < _SOME
            jump = 0
            if mix.tiles == "none" and not alone and not self._qwen and rng.random() < 0.6:
                size = one.size
                full = self.family.layout(self.loaded.config, self.loaded.image_processor, size, "all")
                jump = full.tokens - overview
            parts.append(states)
            kept.append(keep)
            lengths.append(len(states))
            jumps.append(jump)
            if number < len(between) and between[number]:
                parts.append(between[number])
                kept.append(torch.ones(len(between[number]), dtype=torch.bool))
                lengths.append(len(between[number]))
                jumps.append(0)
        positions = self._positions(parts, inputs, lengths, jumps)
        return Row(parts, questions, positions, torch.cat(kept), jumps[-1])

    def _positions(
        self, parts: Sequence[Any], inputs: Sequence[Inputs], lengths: Sequence[int], jumps: Sequence[int]
    ) -> torch.Tensor:
        if self._qwen:
            image = self.loaded.image_token_id
            ids = [p if isinstance(p, list) else [image] * len(p) for p in parts]
            flat = torch.tensor([[token for part in ids for token in part]])
            grids = torch.stack([one.extra["grid_thw"] for one in inputs]).cpu()
            kinds = (flat == image).int()
            positions, _ = self.model.model.get_rope_index(flat, mm_token_type_ids=kinds, image_grid_thw=grids)
            return torch.as_tensor(positions)[:, 0].cpu()
        steps = torch.ones(sum(lengths), dtype=torch.long)
        steps[0] = 0
        place = 0
        for length, jump in zip(lengths[:-1], jumps[:-1], strict=True):
            place += length
            steps[place] += jump
        return steps.cumsum(0)[None]

    # ----------------------------------------------------------------------------------- accuracy

    @torch.no_grad()
    def accuracy(self, scenes: Sequence[Sheet], tiles: Tiles = "none", batch: int = 8) -> dict[str, tuple[int, int]]:
        """Kind -> (right, asked): every token of the greedy answer as it should be, one question at a time."""
        self.model.eval()
        found: dict[str, list[bool]] = defaultdict(list)
        rng = random.Random(0)
        mix = Mix(tiles=tiles, prefix=0, tower=True)
        for start in range(0, len(scenes) - 2, batch):
            some = scenes[start : start + batch]
            inputs = [self.inputs(scene, tiles) for scene in some]
            tokens = self.tokens(inputs)
            asked, rows = [], []
            for one, each, states in zip(some, inputs, tokens, strict=True):
                kinds = by_kind(one)
                asked.append([pick(kinds[kind], rng) for kind in SHARES if kind in kinds])
                rows.append(self._row([each], [states], asked[-1], mix, rng))
            if len(some) >= 3:
                asked.append([q for q in self._triple(some[:3], rng) if q[0] == "style"][:1])
                if asked[-1]:
                    rows.append(self._row(inputs[:3], tokens[:3], asked[-1], mix, rng))
                else:
                    asked.pop()
            made = build(self.embed, rows)
            hits = (self._logits(made).argmax(-1) == made.targets).tolist()
            right: dict[tuple[int, int], bool] = {}
            for owner, hit in zip(made.owner, hits, strict=True):
                right[owner] = right.get(owner, True) and hit
            for (row, number), hit in right.items():
                found[asked[row][number][0]].append(hit)
        self.model.train()
        return {kind: (sum(hits), len(hits)) for kind, hits in sorted(found.items())}


def by_kind(scene: Sheet) -> dict[str, dict[str, list[Any]]]:
    """What can be asked of a scene: kind -> answer -> questions."""
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for one in scene.asked:
        found[one[0]][one[2]].append(one)
    return found


def pick(questions: dict[str, list[Any]], rng: random.Random) -> Any:
    """One of a kind's questions: each answer is as likely, so that yes and no are balanced."""
    return rng.choice(questions[rng.choice(list(questions))])


def units(
    scenes: Sequence[Sheet], images: int, triples: float, rng: random.Random
) -> list[list[Sheet]]:
    """A batch of about `images` scenes; the share `triples` of prompts has three, two of them of one style."""
    made: list[list[Sheet]] = []
    count = 0
    while count < images:
        first = rng.choice(scenes)
        unit = [first]
        if rng.random() < triples:
            same, other = first, first
            while same is first or same.style != first.style:
                same = rng.choice(scenes)
            while other.style == first.style:
                other = rng.choice(scenes)
            rest = [same, other]
            rng.shuffle(rest)
            unit += rest
            if rng.random() < 0.3:
                rng.shuffle(unit)
        made.append(unit)
        count += len(unit)
    return made


_ORDINALS = ("first", "second", "third")


def triple_questions(styles: Sequence[int], rng: random.Random) -> list[tuple[str, str, str]]:
    """Of three images: what style each has, and for each reference that one other shares, which."""
    asked = [
        ("drill", f"What is the style of the {name} image?", sheets.STYLES[style])
        for name, style in zip(_ORDINALS, styles, strict=True)
    ]
    for reference in range(3):
        others = [n for n in range(3) if n != reference]
        same = [n for n in others if styles[n] == styles[reference]]
        if len(same) == 1:
            names = (_ORDINALS[reference], *(_ORDINALS[n] for n in others))
            text = "Which image has the style of the {}, the {} or the {}?".format(*names)
            kind = "style" if reference == 0 else "drill"
            asked.append((kind, text, _ORDINALS[same[0]]))
    rng.shuffle(asked)
    return asked


def initialise(model: nn.Module, seed: int) -> None:
    """Draw weights for training: matrices at 1 / sqrt(fan-in), branches' outputs smaller by depth."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)  # of a norm; else a bias
                if "newline" in name or "class" in name:
                    weight.normal_(0, 0.5)
            elif weight.ndim > 4 or "probe" in name:
                weight.normal_(0, 1 / math.sqrt(math.prod(weight.shape[1:])))
            elif "position_embedding" in name:
                weight.normal_(0, 0.3)
            elif "embed_tokens" in name or "token_embedding" in name:
                weight.normal_(0, 0.5)
            else:
                scale = 1 / math.sqrt(math.prod(weight.shape[1:]))
                if any(end in name for end in ("o_proj", "down_proj", "out_proj", "fc2", "attn.proj")):
                    scale /= 3
                if "lm_head" in name:
                    scale *= 0.5
                weight.normal_(0, scale)
