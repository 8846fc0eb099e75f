"""Prompts for training: a family's chat template around image tokens, with many questions behind it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kvstore import models, prompting
from kvstore.contracts import Inputs

from .asking import CAPTION, Mix
from .sequences import Question, Row
from .sheets import Asked

#: Of prompts without tiles, the share whose question stands where it would with all tiles.
_FAR = 0.6


class Template:
    """A family's chat template, cut at its images."""

    def __init__(self, loaded: models.Loaded) -> None:
        self._loaded = loaded
        self._ids: dict[str, list[int]] = {}
        self._pieces: dict[tuple[str, int], list[list[int]]] = {}
        self.end = [int(loaded.tokenizer.eos_token_id)]

    def head(self, prefix: str = "") -> list[int]:
        """Ids before the first image's tokens."""
        return prompting.prompt_ids(self._loaded, prefix)

    def pieces(self, text: str, images: int = 1) -> list[list[int]]:
        """Ids between the images and, last, behind them: `images` lists."""
        key = text, images
        if key not in self._pieces:
            loaded = self._loaded
            content = [{"type": "image"}] * images + ([{"type": "text", "text": text}] if text else [])
            rendered = loaded.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=loaded.chat_template,
                add_generation_prompt=True,
                tokenize=False,
            )
            placeholder = loaded.tokenizer.convert_ids_to_tokens(loaded.image_token_id)
            self._pieces[key] = [self.ids(piece) for piece in rendered.split(placeholder)[1:]]
        return self._pieces[key]

    def ids(self, text: str) -> list[int]:
        """Ids of a text without special additions."""
        if text not in self._ids:
            self._ids[text] = self._loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._ids[text]

    def question(self, text: str, answer: str, images: int = 1) -> Question:
        """A question behind its images, and its answer."""
        return Question(self.pieces(text, images)[-1], self.ids(answer) + self.end)


@dataclass(frozen=True)
class _Piece:
    """Token ids or image tokens [tokens, hidden]; positions left out behind them."""

    part: Any
    jump: int = 0


class Packer:
    """Makes rows of one family's model."""

    def __init__(self, loaded: models.Loaded) -> None:
        self._loaded, self._family, self._model = loaded, loaded.family, loaded.model
        self._template = Template(loaded)
        self._turning = loaded.family.IMAGE_START != ""  # M-RoPE: positions of rows and columns
        # LLaVA-OneVision shows several images by their overviews alone, a newline token behind each
        self._overviews = loaded.config.model_type == "llava_onevision"

    def row(
        self,
        inputs: Sequence[Inputs],
        tokens: Sequence[torch.Tensor],
        asked: Sequence[Asked],
        mix: Mix,
        rng: random.Random,
    ) -> Row:
        """The prompt of some images and its questions; the first may stand before the image."""
        count = len(inputs)
        kind, text, answer = asked[0]
        before = rng.random() < mix.prefix and kind != CAPTION
        questions = [self._template.question(text, answer, count) for _, text, answer in asked]
        if before:
            questions[0] = self._template.question("", answer, count)
        pieces = [_Piece(self._template.head(f"{text} " if before else ""))]
        for one, states, between in zip(inputs, tokens, self._template.pieces("", count), strict=True):
            pieces += [self._image(one, states, count > 1, mix, rng), _Piece(between)]
        pieces = [piece for piece in pieces[:-1] if len(piece.part)]  # the last is the questions' own
        positions = self._turned(pieces, inputs) if self._turning else _counted(pieces)
        return Row([piece.part for piece in pieces], questions, positions, pieces[-1].jump)

    def _image(
        self, one: Inputs, states: torch.Tensor, several: bool, mix: Mix, rng: random.Random
    ) -> _Piece:
        overview = one.layout.grids[0].patches
        if several and self._overviews:
            newline = self._model.model.image_newline[None].to(states.dtype)
            return _Piece(torch.cat([states[:overview], newline]))
        jump = 0
        if mix.tiles == "none" and not self._turning and rng.random() < _FAR:
            config, processor = self._loaded.config, self._loaded.image_processor
            jump = self._family.layout(config, processor, one.size, "all").tokens - overview
        return _Piece(states, jump)

    def _turned(self, pieces: Sequence[_Piece], inputs: Sequence[Inputs]) -> torch.Tensor:
        """The model's own M-RoPE positions; int64 [3, length]."""
        image = self._loaded.image_token_id
        ids = [p.part if isinstance(p.part, list) else [image] * len(p.part) for p in pieces]
        flat = torch.tensor([[token for part in ids for token in part]])
        grids = torch.stack([one.extra["grid_thw"] for one in inputs]).cpu()
        kinds = (flat == image).int()
        positions, _ = self._model.model.get_rope_index(flat, mm_token_type_ids=kinds, image_grid_thw=grids)
        return torch.as_tensor(positions)[:, 0].cpu()


def _counted(pieces: Sequence[_Piece]) -> torch.Tensor:
    """Positions that count up, and jump where tokens were left out; int64 [1, length]."""
    return torch.cat(list(_spans(pieces)))[None]


def _spans(pieces: Sequence[_Piece]) -> Iterator[torch.Tensor]:
    start = 0
    for piece in pieces:
        yield torch.arange(start, start + len(piece.part))
        start += len(piece.part) + piece.jump
