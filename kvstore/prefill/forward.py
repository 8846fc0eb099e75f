"""One batch through the model: pixels in, keys, values, projector output and encoder states out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from kvstore.contracts import Encoded, Family, Inputs, Layout, Site
from kvstore.errors import ModelError
from kvstore.prefill.blocks import Blocks, Buffer, copy_to, summarise
from kvstore.prefill.capture import prefill
from kvstore.prefill.moments import KeyMoments
from kvstore.prefill.pooling import average
from kvstore.vectors.schema import Shape


@dataclass(frozen=True)
class Prompt:
    """What stands before the image: token ids, and the id that marks the image's own tokens."""

    head: tuple[int, ...]
    image_token: int


def batches(inputs: Sequence[Inputs], most: int, most_tokens: int) -> list[list[int]]:
    """Indices of `inputs`, grouped into batches of at most `most` images and `most_tokens` padded tokens.

    Images are taken by falling token count, equal counts in order: a batch pads little, and the grouping
    depends on nothing but the images.
    """
    order = sorted(range(len(inputs)), key=lambda i: -inputs[i].layout.tokens)
    groups: list[list[int]] = []
    for index in order:
        group = groups[-1] if groups else []
        longest = inputs[group[0]].layout.tokens if group else 0
        if not group or len(group) == most or longest * (len(group) + 1) > most_tokens:
            groups.append([index])
        else:
            group.append(index)
    return groups


class Engine:
    """A model on its device, filling host blocks batch by batch.

    model     the loaded model, eval mode
    shape     what of it is stored
    moments   receives every image's keys, once, where keys are stored
    """

    def __init__(
        self, model: Any, family: Family, prompt: Prompt, shape: Shape, pool: int, moments: KeyMoments
    ) -> None:
        self.model, self.family, self.prompt = model, family, prompt
        self.shape, self.pool, self.moments = shape, pool, moments
        self.device: torch.device = model.device
        self.is_cuda = self.device.type == "cuda"
        self._indices: dict[Layout, slice | torch.Tensor] = {}
        self._stages = _Stages(shape, self.device) if self.is_cuda else None

    @torch.inference_mode()
    def run(self, inputs: Sequence[Inputs], host: Sequence[Blocks]) -> None:
        """Prefill one batch into the images' host blocks.

        On CUDA this returns before the work is done; `mark` gives a way to wait for it.
        """
        inputs = [self._on_device(item) for item in inputs]
        if self._stages is None:
            self._fill(inputs, host)
            return
        with self._stages.next() as (stage, copying):
            device = stage.blocks([blocks.layout for blocks in host])
            self._fill(inputs, device)
            with copying():
                for target, source in zip(host, device, strict=True):
                    copy_to(target, source)

    def mark(self) -> Callable[[], None]:
        """A function that waits until every host block handed to `run` so far is filled."""
        return self._stages.mark() if self._stages is not None else lambda: None

    # ------------------------------------------------------------------------------ one batch

    def _fill(self, inputs: Sequence[Inputs], blocks: Sequence[Blocks]) -> None:
        encoded = self.family.encode(self.model, inputs, self.shape.encoder_layers)
        _check_counts(encoded, inputs)
        for i, item in enumerate(inputs):
            picked = self._index(item.layout)
            if "input" in blocks[i].site:
                self._store(blocks[i].site["input"][0, 0], encoded.tokens[i][picked], item.layout)
            if "encoder" in blocks[i].site:
                for row, layer in enumerate(self.shape.encoder_layers):
                    self._store(blocks[i].site["encoder"][row, 0], encoded.encoder[i][layer], item.layout)
        if self.shape.layers:
            self._decode(inputs, encoded.tokens, blocks)
        for block in blocks:
            summarise(block)
            if "key" in block.site:
                self.moments.add(block.layout, block.site["key"], block.good)

    def _decode(
        self, inputs: Sequence[Inputs], tokens: Sequence[torch.Tensor], blocks: Sequence[Blocks]
    ) -> None:
        head = len(self.prompt.head)
        picked = [_shifted(self._index(item.layout), head) for item in inputs]
        row_of = {layer: row for row, layer in enumerate(self.shape.layers)}

        def sink(layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
            made: dict[Site, torch.Tensor] = {"key": keys, "value": values}
            for site, vectors in made.items():
                for i, item in enumerate(inputs):
                    if site in blocks[i].site:
                        target = blocks[i].site[site][row_of[layer]]
                        self._store(target, vectors[i][:, picked[i]], item.layout)

        ids, embeds = self._sequence(tokens)
        positions = self.family.position_ids(self.model, ids, inputs)
        if positions is None:
            positions = torch.arange(ids.shape[1], device=self.device)[None]
        prefill(self.model.model.language_model, embeds, positions, self.shape.layers, sink)

    def _sequence(self, tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [batch, length] and embeddings [batch, length, hidden], padded on the right."""
        head = len(self.prompt.head)
        length = head + max(len(image) for image in tokens)
        ids = self._head_ids.new_full((len(tokens), length), self._padding)
        ids[:, :head] = self._head_ids
        embeds = tokens[0].new_zeros(len(tokens), length, tokens[0].shape[-1])
        embeds[:, :head] = self._head_embeds
        for row, image in enumerate(tokens):
            ids[row, head : head + len(image)] = self.prompt.image_token
            embeds[row, head : head + len(image)] = image
        return ids, embeds

    @cached_property
    def _padding(self) -> int:
        """Any text token: any that does not stand for the image."""
        return int(self.prompt.image_token == 0)

    @cached_property
    def _head_ids(self) -> torch.Tensor:
        return torch.tensor(self.prompt.head, dtype=torch.long, device=self.device)

    @cached_property
    def _head_embeds(self) -> torch.Tensor:
        embedded: torch.Tensor = self.model.get_input_embeddings()(self._head_ids)
        return embedded

    # ------------------------------------------------------------------------------- one image

    def _store(self, target: torch.Tensor, vectors: torch.Tensor, layout: Layout) -> None:
        """Average, round to float16 and copy; `vectors` are the patches of the layout before pooling."""
        target.copy_(average(vectors, layout, self.pool), non_blocking=True)

    def _index(self, layout: Layout) -> slice | torch.Tensor:
        """Where an image's patches lie among its tokens: a slice where they are consecutive."""
        if layout not in self._indices:
            positions = torch.from_numpy(layout.positions())
            first, last = int(positions[0]), int(positions[-1])
            consecutive = last - first + 1 == len(positions)
            self._indices[layout] = slice(first, last + 1) if consecutive else positions.to(self.device)
        return self._indices[layout]

    def _on_device(self, item: Inputs) -> Inputs:
        pixels = item.pixels.pin_memory() if self.is_cuda else item.pixels
        return replace(item, pixels=pixels.to(self.device, non_blocking=True))


def _check_counts(encoded: Encoded, inputs: Sequence[Inputs]) -> None:
    """Raise `ModelError` where a model gives more or fewer vectors than the image's layout has places."""
    for place, item in enumerate(inputs):
        found = [len(states) for states in encoded.encoder[place].values()]
        expected = [item.layout.patches] * len(found)
        if encoded.tokens:
            found, expected = [len(encoded.tokens[place]), *found], [item.layout.tokens, *expected]
        if found != expected:
            raise ModelError(
                f"the model gives {found} vectors for an image of {item.size[0]} x {item.size[1]} pixels, "
                f"and its settings promise {expected}; its processor's settings are of another model"
            )


def _shifted(picked: slice | torch.Tensor, by: int) -> slice | torch.Tensor:
    return slice(picked.start + by, picked.stop + by) if isinstance(picked, slice) else picked + by


class _Stages:
    """Two device buffers in turn, and a stream of their own for the copies to the host.

    A buffer is written again only after its copies, those of the batch before last, have ended.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.buffers = [Buffer(shape, str(device)) for _ in range(2)]
        self.copied = [torch.cuda.Event() for _ in range(2)]
        self.stream, self.device = torch.cuda.Stream(device), device
        self.turn = 0

    @contextmanager
    def next(self) -> Iterator[tuple[Buffer, Any]]:
        which = self.turn = 1 - self.turn
        self.copied[which].synchronize()

        @contextmanager
        def copying() -> Iterator[None]:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                yield
                self.copied[which].record(self.stream)

        yield self.buffers[which], copying

    def mark(self) -> Callable[[], None]:
        event = torch.cuda.Event()
        event.record(self.stream)
        return event.synchronize
