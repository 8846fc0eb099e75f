"""Stored keys and values against `past_key_values` of plain `transformers`, for every family.

The tolerance for other matrix shapes (a longer prompt, more tiles, a larger batch): the same sums in another
order. A float32 sum of n terms moves by about n * 2**-24 of its terms' size; with n up to 512 and some dozen
products after one another that is 1e-5 to 1e-4 of the tensor's root mean square at the very most; the largest
met over all families, views and batches is 3e-6. TOLERANCE is 2e-5 of the root mean square, a twenty-fifth of
float16's own rounding (2**-11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from kvstore import models, prompting
from kvstore.contracts import Layout
from kvstore.prefill.capture import only_keys_and_values
from kvstore.prefill.forward import batches
from tests.capturing import Exact, captured

TOLERANCE = 2e-5
TINY = ("tiny-onevision", "tiny-next", "tiny-qwen")
SIZES = ((100, 76), (60, 110), (64, 64), (180, 70))


@pytest.fixture(scope="module", params=TINY)
def loaded(request: pytest.FixtureRequest) -> models.Loaded:
    return models.load(request.param, "cpu", "float32")


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth noise: every patch differs from every other."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@dataclass
class Plain:
    """What plain transformers makes of one image: its cache, and where the image's patches lie in it."""

    cache: DynamicCache
    positions: torch.Tensor

    def key(self, layer: int) -> torch.Tensor:
        return self.cache.layers[layer].keys[0][:, self.positions]

    def value(self, layer: int) -> torch.Tensor:
        return self.cache.layers[layer].values[0][:, self.positions]


def ordinary_inputs(loaded: models.Loaded, image: Image.Image, prefix: str) -> Any:
    """The whole prompt with a question, as the real processor makes it."""
    processor = prompting.processor(loaded)
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    mark = loaded.family.IMAGE_START + loaded.tokenizer.convert_ids_to_tokens(loaded.image_token_id)
    return processor(images=[image], text=text.replace(mark, prefix + mark, 1), return_tensors="pt")


def positions(inputs: Any, loaded: models.Loaded, layout: Layout) -> torch.Tensor:
    first = int((inputs["input_ids"][0] == loaded.image_token_id).nonzero()[0])
    return first + torch.from_numpy(layout.positions())


@torch.no_grad()
def full_forward(loaded: models.Loaded, image: Image.Image, layout: Layout, prefix: str) -> Plain:
    """Question, all tiles, every layer, lm_head."""
    inputs = ordinary_inputs(loaded, image, prefix)
    cache = loaded.model(
        **inputs, past_key_values=DynamicCache(config=loaded.config.text_config)
    ).past_key_values
    return Plain(cache, positions(inputs, loaded, layout))


@torch.no_grad()
def cut_forward(
    loaded: models.Loaded, image: Image.Image, layout: Layout, view: str, prefix: str = ""
) -> Plain:
    """The same token sequence as the capture: the prompt cut after the last image token that is kept."""
    inputs = ordinary_inputs(loaded, image, prefix)
    place = positions(inputs, loaded, layout)
    length = int((inputs["input_ids"][0] == loaded.image_token_id).nonzero()[0]) + layout.tokens
    cut = {
        k: v[:, :length] if k in ("input_ids", "attention_mask", "mm_token_type_ids") else v
        for k, v in inputs.items()
    }
    if view == "base" and cut["pixel_values"].ndim == 5:
        return Plain(_overview_only(loaded, cut), place)
    return Plain(loaded.model.model(**cut, use_cache=True).past_key_values, place)


def _overview_only(loaded: models.Loaded, inputs: Any) -> DynamicCache:
    """The base view has no counterpart in a model's own forward, which always adds tiles: its parts."""
    core, config = loaded.model.model, loaded.config
    states = core.vision_tower(inputs["pixel_values"][0, :1], output_hidden_states=True).hidden_states
    chosen = states[config.vision_feature_layer]
    if config.vision_feature_select_strategy == "default":
        chosen = chosen[:, 1:]
    embeds = core.get_input_embeddings()(inputs["input_ids"])
    embeds[0, inputs["input_ids"][0] == loaded.image_token_id] = core.multi_modal_projector(chosen)[0]
    return core.language_model(inputs_embeds=embeds, use_cache=True).past_key_values


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = expected.square().mean().sqrt()
    assert float((found - expected).abs().max() / scale) < TOLERANCE


@pytest.mark.parametrize("view", ["base", "all"])
@pytest.mark.parametrize("prefix", ["", "look at this picture: "])
def test_batch_of_one_is_bit_for_bit_the_plain_forward(loaded: models.Loaded, view: str, prefix: str) -> None:
    for size in SIZES[:2]:
        image = photo(size)
        (block,) = captured(loaded, [image], view, prefix, kind=Exact)
        (stored,) = captured(loaded, [image], view, prefix)
        plain = cut_forward(loaded, image, block.layout, view, prefix)
        for layer in range(loaded.description["layers"]):
            assert torch.equal(block.site["key"][layer], plain.key(layer))
            assert torch.equal(block.site["value"][layer], plain.value(layer))
            assert torch.equal(stored.site["key"][layer], plain.key(layer).half())
            assert torch.equal(stored.site["value"][layer], plain.value(layer).half())


@pytest.mark.parametrize("view", ["base", "all"])
@pytest.mark.parametrize("prefix", ["", "look at this picture: "])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_full_prompt_with_tiles_and_head(
    loaded: models.Loaded, view: str, prefix: str, batch: int
) -> None:
    images = [photo(size, seed) for seed, size in enumerate(SIZES)]
    for image, block in zip(images, captured(loaded, images, view, prefix, batch, Exact), strict=True):
        plain = full_forward(loaded, image, block.layout, prefix)
        for layer in range(loaded.description["layers"]):
            assert_close(block.site["key"][layer], plain.key(layer))
            assert_close(block.site["value"][layer], plain.value(layer))


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next"])
def test_images_too_narrow_for_a_mosaic_are_those_of_the_plain_forward(name: str) -> None:
    loaded = models.load(name, "cpu", "float32")
    alone, images = 0, [photo(size) for size in ((300, 1), (1, 300), (1000, 2), (2, 1000), (4000, 3))]
    for image in images:
        (block,) = captured(loaded, [image], "all", kind=Exact)
        plain = cut_forward(loaded, image, block.layout, "all")
        for layer in range(loaded.description["layers"]):
            assert torch.equal(block.site["key"][layer], plain.key(layer))
            assert torch.equal(block.site["value"][layer], plain.value(layer))
        alone += len(block.layout.grids) == 1
    assert alone >= 4
    images.append(photo(SIZES[0]))  # together, and with an image that keeps its mosaic
    for image, block in zip(images, captured(loaded, images, "all", batch=3, kind=Exact), strict=True):
        assert_close(block.site["value"][7], cut_forward(loaded, image, block.layout, "all").value(7))


def test_layers_are_those_asked_for(loaded: models.Loaded) -> None:
    image = photo(SIZES[0])
    (all_layers,) = captured(loaded, [image], "base")
    (some,) = captured(loaded, [image], "base", layers=(1, 4))
    assert torch.equal(some.site["key"], all_layers.site["key"][[1, 4]])
    assert torch.equal(some.site["value"], all_layers.site["value"][[1, 4]])


def test_nothing_past_the_last_layer_is_run(loaded: models.Loaded) -> None:
    layers = loaded.model.model.language_model.layers
    ran: list[str] = []
    watched = {
        "q of last": layers[3].self_attn.q_proj,
        "k of last": layers[3].self_attn.k_proj,
        "o of last": layers[3].self_attn.o_proj,
        "mlp of last": layers[3].mlp,
        "layer after": layers[4],
        "head": loaded.model.lm_head,
    }
    hooks = [m.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, m in watched.items()]
    try:
        captured(loaded, [photo(SIZES[0])], "base", layers=(3,))
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == ["k of last"]


def test_query_projection_is_back_even_after_an_error(loaded: models.Loaded) -> None:
    attention = loaded.model.model.language_model.layers[2].self_attn
    projection = attention.q_proj
    with pytest.raises(ValueError, match="boom"), only_keys_and_values(attention):
        raise ValueError("boom")
    assert attention.q_proj is projection


def test_input_and_encoder_are_the_models_own(loaded: models.Loaded) -> None:
    image = photo(SIZES[0])
    (block,) = captured(loaded, [image], "all", kind=Exact)
    inputs = ordinary_inputs(loaded, image, "")
    vision = {k: v for k, v in inputs.items() if k in ("pixel_values", "image_sizes", "image_grid_thw")}
    with torch.no_grad():
        features = loaded.model.model.get_image_features(**vision, return_dict=True).pooler_output[0]
    picked = features[torch.from_numpy(block.layout.positions())]
    assert torch.equal(block.site["input"][0, 0], picked)


def test_pooled_is_the_mean_of_what_is_stored(loaded: models.Loaded) -> None:
    (block,) = captured(loaded, [photo(SIZES[0])], "base")
    for site in ("key", "value"):
        expected = block.site[site].numpy().astype(np.float64).mean(2)
        np.testing.assert_allclose(block.pooled[site].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_batches_pad_little_and_keep_the_token_budget() -> None:
    class Item:
        def __init__(self, tokens: int) -> None:
            self.layout = Layout((), tokens)

    items = [Item(n) for n in (10, 90, 30, 30, 100, 20)]
    assert batches(items, most=2, most_tokens=200) == [[4, 1], [2, 3], [5, 0]]  # type: ignore[arg-type]
    assert batches(items, most=9, most_tokens=99) == [[4], [1], [2, 3, 5], [0]]  # type: ignore[arg-type]
