"""Grounding: three attention heads are taught where to look, so that a word comes to choose an object.

One looks from a noun to the patches that show what it names ("first", "second", "third": to that image); two
look from where the answer begins to the question's last and first noun. Without them a small model goes on
for long to answer of any object at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from kvstore import models

from ..datasets import _language, _things
from .sequences import Batch, Row
from .sheets import Array

#: Layer and query head that looks from a noun to its patches, and to the last and the first noun.
TO_PATCHES, TO_LAST, TO_FIRST = (2, 0), (4, 0), (4, 1)


@dataclass(frozen=True)
class _Look:
    """From which token of which row one head should look at which."""

    row: int
    place: int
    at: list[int]


class Grounding:
    """Loss of the taught heads."""

    def __init__(self, loaded: models.Loaded) -> None:
        layers = loaded.model.model.language_model.layers
        self._attention = {layer: layers[layer].self_attn for layer, _ in (TO_PATCHES, TO_LAST)}
        self._seen: dict[int, Any] = {}

        def numbered(words: Sequence[str]) -> dict[int, int]:
            ids = [loaded.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
            return {found[0]: number for number, found in enumerate(ids, 1) if len(found) == 1}

        self._nouns = numbered(_things.KINDS) | numbered([_language.plural(kind) for kind in _things.KINDS])
        self._hues = numbered(_things.HUES)
        self._ordinals = numbered(_language.ORDINALS)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what enters the taught layers' attention."""
        hooks = [
            attention.register_forward_pre_hook(self._keeper(layer), with_kwargs=True)
            for layer, attention in self._attention.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keeper(self, layer: int) -> Any:
        def keep(module: Any, args: Any, kwargs: Any) -> None:
            self._seen[layer] = kwargs

        return keep

    def loss(self, batch: Batch, rows: Sequence[Row], labels: Sequence[Array | None]) -> torch.Tensor:
        """Sum over the heads of the mean -log of the attention that falls where it should; 0 without nouns.

        labels   per row those of the overview's patches; None where it shows several images
        """
        looks: dict[tuple[int, int], list[_Look]] = {TO_PATCHES: [], TO_LAST: [], TO_FIRST: []}
        images = [_images(row) for row in rows]
        for row, tail, start in _questions(batch, rows):
            label = labels[row]
            known = self._ordinals if label is None else self._nouns
            nouns = [place for place, token in enumerate(tail) if token in known]
            for place in nouns:
                if label is None:
                    at = images[row][known[tail[place]] - 1]
                else:
                    at = [images[row][0][patch] for patch in self._named(tail, place, label)]
                if at:
                    looks[TO_PATCHES].append(_Look(row, start + place, at))
            if nouns:
                end = start + len(tail) - 1
                looks[TO_LAST].append(_Look(row, end, [start + nouns[-1]]))
                looks[TO_FIRST].append(_Look(row, end, [start + nouns[0]]))
        losses = [self._missed(batch, *head, wanted) for head, wanted in looks.items() if wanted]
        return torch.stack(losses).sum() if losses else batch.embeddings.new_zeros(())

    def _named(self, tail: Sequence[int], place: int, label: Array) -> list[int]:
        """Patches that show what a noun, with a hue before it, names."""
        shown = label[:, 0] == self._nouns[tail[place]]
        if place and tail[place - 1] in self._hues:
            shown &= label[:, 1] == self._hues[tail[place - 1]]
        patches: list[int] = shown.nonzero()[0].tolist()
        return patches

    def _missed(self, batch: Batch, layer: int, head: int, looks: Sequence[_Look]) -> torch.Tensor:
        """Mean -log of the attention that a head pays to where it should look."""
        attention, seen = self._attention[layer], self._seen[layer]
        hidden, (cos, sin) = seen["hidden_states"], seen["position_embeddings"]
        row, place = (
            torch.tensor(x, device=hidden.device)
            for x in zip(*((k.row, k.place) for k in looks), strict=True)
        )
        wanted = torch.zeros(len(looks), hidden.shape[1], dtype=torch.bool, device=hidden.device)
        for number, look in enumerate(looks):
            wanted[number, look.at] = True
        width = attention.head_dim
        query = _rotated(_head(attention.q_proj, hidden, head, width), cos, sin)[row, place]
        key = _rotated(
            _head(attention.k_proj, hidden, head // attention.num_key_value_groups, width), cos, sin
        )
        scores = (key[row] * query[:, None]).sum(-1).float() / width**0.5
        scores = scores.masked_fill(~batch.mask[row, 0, place], -torch.inf)
        there = scores.masked_fill(~wanted, -torch.inf)
        return torch.mean(scores.logsumexp(1) - there.logsumexp(1))


def _images(row: Row) -> list[list[int]]:
    """Places of each image's tokens in the row."""
    found, start = [], 0
    for part in row.parts:
        if isinstance(part, torch.Tensor):
            found.append(list(range(start, start + len(part))))
        start += len(part)
    return found


def _questions(batch: Batch, rows: Sequence[Row]) -> Iterator[tuple[int, list[int], int]]:
    """Of every question: its row, its ids up to the answer, and their place in the row."""
    length = batch.embeddings.shape[1]
    ends: dict[tuple[int, int], int] = {}
    for owner, flat in zip(batch.owner, batch.at.tolist(), strict=True):
        ends.setdefault(owner, flat % length)  # the last token before the answer
    for (row, number), end in ends.items():
        tail = rows[row].questions[number].tail
        yield row, tail, end - len(tail) + 1


def _head(projection: Any, hidden: torch.Tensor, head: int, width: int) -> torch.Tensor:
    """One head's part of a projection, [rows, length, width]."""
    part = slice(head * width, (head + 1) * width)
    return F.linear(
        hidden, projection.weight[part], None if projection.bias is None else projection.bias[part]
    )


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """With rotary positions (Su et al. 2021), halves paired as transformers does."""
    one, two = states.chunk(2, -1)
    return states * cos + torch.cat([-two, one], -1) * sin
