"""The model answers: images prefilled once, then many short texts behind them in one batch.

Texts are padded on the left, between the prefilled part and themselves: a mask hides the padding, and
positions go on from the images as if it were not there. So the last token of every row stands at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache

from kvstore.contracts import Inputs
from kvstore.models import Loaded

#: Rows of a batch hold together at most so many tokens of keys and values (57 kB each in a 7B model).
MOST_TOKENS = 1 << 16


@dataclass(frozen=True)
class Context:
    """A prefilled start: its ids (images expanded), its cache of one row, the position of what follows."""

    ids: tuple[int, ...]
    cache: DynamicCache
    position: int


class Answerer:
    """A loaded model that answers; `batch` is the most rows in one forward pass."""

    def __init__(self, loaded: Loaded, batch: int) -> None:
        self.loaded, self.batch = loaded, batch
        self.model: Any = loaded.model
        self.device: torch.device = self.model.device
        self.ends = _ends(loaded)
        self.penalty = float(self.model.generation_config.repetition_penalty or 1.0)

    @torch.inference_mode()
    def read(self, ids: Sequence[int], inputs: Sequence[Inputs]) -> Context:
        """Prefill the start of a prompt; `ids` hold the image token once per token of the images."""
        family = self.loaded.family
        inputs = [replace(item, pixels=item.pixels.to(self.device)) for item in inputs]
        tokens = torch.cat(family.encode(self.model, inputs, ()).tokens)
        row = torch.tensor(
            [[*ids, 0]], device=self.device
        )  # with the token that will follow, for its position
        positions = family.position_ids(self.model, row, inputs)
        if positions is None:
            positions = torch.arange(row.shape[1], device=self.device)[None]
        row = row[:, :-1]
        is_image = row == self.loaded.image_token_id
        embeds = self.model.get_input_embeddings()(row.masked_fill(is_image, 0))
        embeds[is_image] = tokens.to(embeds.dtype)
        cache = DynamicCache(config=self.model.config.text_config)
        self._forward(embeds, positions[..., :-1], cache, mask=None)
        return Context(tuple(ids), cache, int(positions[..., -1].max()))

    @torch.inference_mode()
    def generate(self, context: Context, tails: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        """Greedy continuations, each with its end token, if that comes within `most` tokens.

        As ``model.generate(do_sample=False, max_new_tokens=most)``, with the repetition penalty of the
        model's generation_config and nothing else of it.
        """
        made: list[list[int]] = []
        for part in self._parts(context, tails):
            made += self._generate(context, part, most)
        return made

    @torch.inference_mode()
    def log_likelihoods(
        self, context: Context, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        """Of each (tail, answer): the sum of log p(token | all before it) over the answer's tokens."""
        made: list[float] = []
        for part in self._parts(context, pairs):
            made += self._likelihoods(context, part)
        return made

    # ------------------------------------------------------------------------------ one batch

    def _parts(self, context: Context, rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
        most = min(self.batch, max(1, MOST_TOKENS // len(context.ids)))
        yield from (rows[start : start + most] for start in range(0, len(rows), most))

    def _generate(self, context: Context, tails: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        rows = _Rows(context, tails, self.device)
        made: list[list[int]] = [[] for _ in tails]
        open_rows = set(range(len(tails)))
        seen = self._seen(context, tails)
        logits = self._logits(rows, 1)[:, -1]
        for step in range(most):
            token = self._penalised(logits, seen).argmax(-1)
            for index in list(open_rows):
                made[index].append(int(token[index]))
                if made[index][-1] in self.ends:
                    open_rows.remove(index)
            if not open_rows or step == most - 1:
                break
            if seen is not None:
                seen.scatter_(1, token[:, None], True)
            rows.follow(token)
            logits = self._logits(rows, 1)[:, -1]
        return made

    def _likelihoods(
        self, context: Context, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        # the last token of an answer is predicted, never read
        rows = _Rows(context, [[*tail, *answer[:-1]] for tail, answer in pairs], self.device)
        longest = max(len(answer) for _, answer in pairs)
        logits = self._logits(rows, longest).log_softmax(-1)  # [rows, longest, vocabulary]
        target = torch.zeros(len(pairs), longest, dtype=torch.long)
        counts = torch.zeros(len(pairs), longest)
        for row, (_, answer) in enumerate(pairs):
            target[row, -len(answer) :] = torch.tensor(answer)
            counts[row, -len(answer) :] = 1
        chosen = logits.gather(2, target.to(self.device)[:, :, None])[:, :, 0]
        return [float(total) for total in (chosen * counts.to(self.device)).sum(1)]

    def _logits(self, rows: _Rows, last: int) -> torch.Tensor:
        """Logits of the last tokens of every row; float32 [rows, last, vocabulary]."""
        embeds = self.model.get_input_embeddings()(rows.ids)
        positions = rows.positions
        hidden = self._forward(embeds, positions, rows.cache, rows.mask)
        return self.model.get_output_embeddings()(hidden[:, -last:]).float()  # type: ignore[no-any-return]

    def _forward(
        self, embeds: torch.Tensor, positions: torch.Tensor, cache: DynamicCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        made = self.model.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return made.last_hidden_state  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------ repetition

    def _seen(self, context: Context, tails: Sequence[Sequence[int]]) -> torch.Tensor | None:
        """Which tokens each row has met; bool [rows, vocabulary], None where there is no penalty."""
        if self.penalty == 1.0:
            return None
        words = self.model.get_output_embeddings().weight.shape[0]
        seen = torch.zeros(len(tails), words, dtype=torch.bool, device=self.device)
        for row, tail in enumerate(tails):
            seen[row, torch.tensor([*context.ids, *tail], device=self.device)] = True
        return seen

    def _penalised(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """Logits of tokens met before made less likely (Keskar et al. 2019, section 4.1)."""
        if seen is None:
            return logits
        lower = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
        return torch.where(seen, lower, logits)


class _Rows:
    """Texts behind one context, padded on the left; `ids`, `positions` of the tokens not yet read."""

    def __init__(self, context: Context, texts: Sequence[Sequence[int]], device: torch.device) -> None:
        count, width = len(texts), max(len(text) for text in texts)
        ids = torch.zeros(count, width, dtype=torch.long)
        mask = torch.ones(count, len(context.ids) + width, dtype=torch.long)
        offsets = torch.arange(width).repeat(count, 1)
        for row, text in enumerate(texts):
            pad = width - len(text)
            ids[row, pad:] = torch.tensor(text)
            mask[row, len(context.ids) : len(context.ids) + pad] = 0
            offsets[row] -= pad
        self.ids, self.mask = ids.to(device), mask.to(device)
        self.positions = (context.position + offsets.clamp(min=0)).to(device)
        self.cache = copy.deepcopy(context.cache)
        self.cache.batch_repeat_interleave(count)

    def follow(self, token: torch.Tensor) -> None:
        """One more token for every row, [rows]."""
        self.ids = token[:, None]
        self.positions = self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, torch.ones_like(self.ids)], 1)


def _ends(loaded: Loaded) -> frozenset[int]:
    """Ids that end an answer: of the model's generation_config, else the tokenizer's."""
    ends = loaded.model.generation_config.eos_token_id
    if ends is None:
        ends = loaded.tokenizer.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends)
