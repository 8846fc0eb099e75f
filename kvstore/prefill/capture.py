"""A `transformers` cache that hands keys and values on as they are made, and ends the forward pass early.

No model code is patched: the cache's layers see what every decoder layer passes to ``Cache.update``: exactly
the tensors that an ordinary cache would keep (keys after the rotary embedding). The last layer asked for ends
the pass from within ``update``, so neither its attention and MLP, nor any later layer, nor the final norm is
run; and inside `only_keys_and_values` its query projection is not run either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, CacheLayerMixin

#: ``sink(layer, keys, values)``; both [batch, KV heads, tokens, head width], in the model's dtype. It must
#: copy what it keeps: the tensors belong to the forward pass.
Sink = Callable[[int, torch.Tensor, torch.Tensor], None]


class PrefillEnd(Exception):  # noqa: N818 - not an error: the forward pass has given all that is wanted
    """Raised from the last layer's update to leave the model's forward."""


class _HandOn(CacheLayerMixin):  # type: ignore[misc]
    """One layer that keeps nothing."""

    is_sliding = False

    def __init__(self, layer: int, sink: Sink | None, last: bool) -> None:
        super().__init__()
        self.layer, self.sink, self.last = layer, sink, last

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to prepare: nothing is kept."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hand the layer's keys and values to the sink, and back to attention unchanged."""
        if self.sink is not None:
            self.sink(self.layer, key_states, value_states)
        if self.last:
            raise PrefillEnd
        return key_states, value_states

    def get_mask_sizes(self, query_length: int | torch.Tensor) -> tuple[int, int]:
        """Keys attended to are those of this very pass."""
        return (query_length if isinstance(query_length, int) else len(query_length)), 0

    def get_seq_length(self, *args: Any) -> int:
        """No earlier tokens, ever."""
        return 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5.20


class CaptureCache(Cache):  # type: ignore[misc]
    """Hands the keys and values of `layers` to `sink`; the last of them ends the forward pass."""

    def __init__(self, layers: tuple[int, ...], sink: Sink) -> None:
        last, wanted = max(layers), set(layers)
        super().__init__(
            layers=[_HandOn(i, sink if i in wanted else None, i == last) for i in range(last + 1)]
        )


class _FirstHead(nn.Module):
    """Stands in for a query projection whose result nobody will use: one head's worth of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[..., : self.width]


@contextmanager
def only_keys_and_values(attention: nn.Module) -> Iterator[None]:
    """Within, `attention` does not compute its queries, where it has a ``q_proj`` of its own."""
    projection = getattr(attention, "q_proj", None)
    if not isinstance(projection, nn.Module):
        yield
        return
    attention.q_proj = _FirstHead(int(attention.head_dim))  # type: ignore[arg-type]
    try:
        yield
    finally:
        attention.q_proj = projection


def prefill(
    language_model: nn.Module,
    inputs_embeds: torch.Tensor,
    position_ids: torch.Tensor,
    layers: tuple[int, ...],
    sink: Sink,
) -> None:
    """Run the decoder on `inputs_embeds` as far as the keys and values of the last of `layers` need.

    inputs_embeds   [batch, tokens, hidden], padded on the right; no mask is needed, for attention is causal:
                    what follows a token does not change it
    position_ids    [batch, tokens], or [3, batch, tokens] for M-RoPE
    """
    cache = CaptureCache(layers, sink)
    attention = language_model.layers[max(layers)].self_attn  # type: ignore[index, union-attr]
    with only_keys_and_values(attention):
        try:
            language_model(
                inputs_embeds=inputs_embeds,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
        except PrefillEnd:
            return
    raise RuntimeError(
        f"layer {max(layers)} never updated the cache; {type(language_model)} is unknown ground"
    )
