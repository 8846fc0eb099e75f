"""Grounding: one attention head is taught to look from a noun to the patches that show what it names.

Without it a small model answers of any object for long, before it finds out that the word chooses the object.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from kvstore import models

from ..datasets import _language, _things
from .sequences import Batch, Row
from .sheets import Array

#: The layer whose first head is taught.
LAYER = 2


class Grounding:
    """Loss of one head's attention, for families whose rotary positions are one number a token."""

    def __init__(self, loaded: models.Loaded) -> None:
        self._attention = loaded.model.model.language_model.layers[LAYER].self_attn
        self._seen: dict[str, Any] = {}

        def numbered(words: Sequence[str]) -> dict[int, int]:
            ids = [loaded.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
            return {found[0]: number for number, found in enumerate(ids, 1) if len(found) == 1}

        self._nouns = numbered(_things.KINDS) | numbered([_language.plural(kind) for kind in _things.KINDS])
        self._hues = numbered(_things.HUES)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what enters the layer's attention."""

        def keep(module: Any, args: Any, kwargs: Any) -> None:
            self._seen = kwargs

        hook = self._attention.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def loss(self, batch: Batch, rows: Sequence[Row], labels: Sequence[Array | None]) -> torch.Tensor:
        """Mean over nouns of -log of the attention that falls on patches they name; 0 without any.

        labels   per row those of the overview's patches, whose tokens follow the first part; None: no nouns
        """
        wanted = list(self._nouns_of(batch, rows, labels))
        hidden, (cos, sin) = self._seen["hidden_states"], self._seen["position_embeddings"]
        if not wanted:
            return hidden.new_zeros(())
        at = torch.tensor([[row, place] for row, place, _ in wanted], device=hidden.device)
        named = torch.zeros(len(wanted), hidden.shape[1], dtype=torch.bool, device=hidden.device)
        for number, (_, _, patches) in enumerate(wanted):
            named[number, patches] = True
        width = self._attention.head_dim
        query = _rotated(_first(self._attention.q_proj, hidden, width), cos, sin)[at[:, 0], at[:, 1]]
        key = _rotated(_first(self._attention.k_proj, hidden, width), cos, sin)[at[:, 0]]
        scores = (key * query[:, None]).sum(-1).float() / width**0.5
        scores = scores.masked_fill(~batch.mask[at[:, 0], 0, at[:, 1]], -torch.inf)
        return (scores.logsumexp(1) - scores.masked_fill(~named, -torch.inf).logsumexp(1)).mean()

    def _nouns_of(
        self, batch: Batch, rows: Sequence[Row], labels: Sequence[Array | None]
    ) -> Iterator[tuple[int, int, list[int]]]:
        """Row, place and named tokens of every noun that names something there."""
        length = batch.embeddings.shape[1]
        ends: dict[tuple[int, int], int] = {}
        for owner, flat in zip(batch.owner, batch.at.tolist(), strict=True):
            ends.setdefault(owner, flat % length)  # the last token of the question
        for (row, number), end in ends.items():
            label = labels[row]
            if label is None:
                continue
            tail = rows[row].questions[number].tail
            for place, token in enumerate(tail):
                if token not in self._nouns:
                    continue
                shown = label[:, 0] == self._nouns[token]
                if place and tail[place - 1] in self._hues:
                    shown &= label[:, 1] == self._hues[tail[place - 1]]
                if shown.any():
                    first = len(rows[row].parts[0])
                    yield row, end - len(tail) + 1 + place, (first + shown.nonzero()[0]).tolist()


def _first(projection: Any, hidden: torch.Tensor, width: int) -> torch.Tensor:
    """The first head's part of a projection, [rows, length, width]."""
    bias = None if projection.bias is None else projection.bias[:width]
    return F.linear(hidden, projection.weight[:width], bias)


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """With rotary positions (Su et al. 2021), halves paired as transformers does."""
    one, two = states.chunk(2, -1)
    return states * cos + torch.cat([-two, one], -1) * sin
