"""Qwen2.5-VL (Bai et al. 2025, https://arxiv.org/abs/2502.13923): own ViT, any resolution, M-RoPE.

Tokens of an image: one per 2 x 2 merged patches of 14 px, row by row; both views are the same. Quirk: the
tower works in windows, and the order of its hidden states is that of the windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import tiny_models
from kvstore.contracts import Encoded, Grid, Inputs, Layout, View
from kvstore.errors import ImageError, ModelError
from kvstore.lines import one_line

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage

MODEL_TYPES = ("qwen2_5_vl",)
ALIASES = {"qwen2.5-vl-7b": "Qwen/Qwen2.5-VL-7B-Instruct"}
TINY = "tiny-qwen"
IMAGE_START = "<|vision_start|>"


def check(model: Any, processor: Any, settings: Mapping[str, Any]) -> None:
    """Settings that do not fit together are refused.

    Honoured: the processor's ``size`` (least and most pixels; as ``min_pixels`` and ``max_pixels`` too),
    ``resample``, ``do_rescale``, ``rescale_factor``, ``do_normalize``, ``image_mean``, ``image_std`` and
    ``do_convert_rgb``, and the tower's ``window_size`` and ``fullatt_block_indexes``. Refused unless they
    agree with the tower: ``patch_size``, ``temporal_patch_size``, ``merge_size``; and ``do_resize`` off.
    """
    vision = model.config.vision_config
    for name, of_tower in _SHARED.items():
        ours, theirs = getattr(processor, name), getattr(vision, of_tower)
        if type(theirs) is not int or theirs < 1 or ours != theirs:
            raise ModelError(
                f"{name} of preprocessor_config.json is {ours!r}, and vision_config.{of_tower} of "
                f"config.json {theirs!r}; they have to be the same number"
            )
    if not processor.do_resize:
        raise ModelError("do_resize of preprocessor_config.json is off; only resized images are read")
    _check_size(processor.size)
    cell = vision.patch_size * vision.spatial_merge_size
    if type(vision.window_size) is not int or vision.window_size < cell:
        raise ModelError(
            f"vision_config.window_size of config.json is {vision.window_size!r}; "
            f"it has to hold {cell} pixels"
        )
    _check_positions(model.config.text_config)
    if vision.out_hidden_size != model.config.text_config.hidden_size:
        raise ModelError(
            f"vision_config.out_hidden_size of config.json is {vision.out_hidden_size}, and hidden_size of "
            f"the language model {model.config.text_config.hidden_size}; they have to be the same"
        )


#: Settings that the processor and the tower (under its own name) have in common.
_SHARED = {
    "patch_size": "patch_size",
    "temporal_patch_size": "temporal_patch_size",
    "merge_size": "spatial_merge_size",
}


def _check_positions(text: Any) -> None:
    """Time, row and column have to share out half a head between them."""
    sections = text.rope_parameters.get("mrope_section")
    half = (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads) // 2
    numbers = isinstance(sections, list) and [type(each) for each in sections] == [int] * 3
    if not numbers or min(sections) < 0 or sum(sections) != half:
        raise ModelError(
            f"mrope_section in text_config of config.json is {one_line(sections, 80)}; it has to be three "
            f"numbers of together {half}"
        )


def _check_size(size: Any) -> None:
    least, most = size.shortest_edge, size.longest_edge
    if not (type(least) is int and type(most) is int and 0 < least <= most):
        raise ModelError(
            f"size of preprocessor_config.json is {dict(size)}; shortest_edge (or min_pixels) is the least "
            "number of pixels and longest_edge (or max_pixels) the most"
        )


def layout(config: Any, processor: Any, size: tuple[int, int], view: View) -> Layout:
    """The tokens of an image of `size` (width, height); `ImageError` beyond an aspect ratio of 200."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    width, height = size
    cell = processor.patch_size * processor.merge_size
    try:
        full_height, full_width = smart_resize(
            height, width, cell, processor.size["shortest_edge"], processor.size["longest_edge"]
        )
    except ValueError as error:
        raise ImageError("aspect-ratio", f"{width} x {height} pixels: {error}") from error
    grid = Grid(full_height // cell, full_width // cell, (0.0, 0.0, float(width), float(height)))
    return Layout((grid,), grid.patches)


def preprocess(config: Any, processor: Any, image: PILImage.Image, view: View) -> Inputs:
    """Pixels [patches of 14 px, channels * frames * 14 * 14] and layout of one upright RGB image."""
    tokens = layout(config, processor, image.size, view)
    made = processor(images=[image], return_tensors="pt")
    return Inputs(made["pixel_values"].float(), image.size, tokens, {"grid_thw": made["image_grid_thw"][0]})


def encode(model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    """Run the vision tower with its merger on a batch, all images in one call."""
    import torch

    tower = model.model.visual
    pixels = torch.cat([item.pixels for item in batch]).to(tower.dtype)
    grids = torch.stack([item.extra["grid_thw"] for item in batch]).to(pixels.device)
    made = tower(pixels, grid_thw=grids, output_hidden_states=bool(encoder_layers), return_dict=True)
    counts = [item.layout.tokens for item in batch]
    encoder: list[dict[int, torch.Tensor]] = [{} for _ in batch]
    for layer in encoder_layers:
        states = _merged(tower, made.hidden_states[layer], grids)
        for index, state in enumerate(torch.split(states, counts)):
            encoder[index][layer] = state
    return Encoded(list(torch.split(made.pooler_output, counts)), encoder)


def _merged(tower: Any, state: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """A hidden state of 14 px patches, windows undone, averaged over blocks; float32 [tokens, width]."""
    import torch
    from transformers.vision_utils import get_vision_window_index

    order, _ = get_vision_window_index(
        grids,
        spatial_merge_size=tower.spatial_merge_size,
        window_size=tower.window_size,
        patch_size=tower.patch_size,
    )
    blocks = state.view(-1, tower.spatial_merge_unit, state.shape[-1]).mean(1, dtype=torch.float32)
    return blocks[torch.argsort(order).to(blocks.device)]


def position_ids(model: Any, input_ids: torch.Tensor, batch: Sequence[Inputs]) -> torch.Tensor:
    """M-RoPE positions [3, batch, length]: time, row, column; right padding counts on as text does."""
    import torch

    ids = input_ids.cpu()  # the index is made number by number, each of which would wait for the device
    image = (ids == model.config.image_token_id).int()
    grids = torch.stack([item.extra["grid_thw"] for item in batch]).cpu()
    positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=image, image_grid_thw=grids)
    return torch.as_tensor(positions).to(input_ids.device)


# ------------------------------------------------------------------------------------ the tiny model

_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def tiny(folder: Path) -> None:
    """Write `tiny-qwen`: cells of 28 px, 40 to 120 tokens an image, windows of 112 px in 3 of 4 layers."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
    )

    tokenizer = tiny_models.tokenizer(_SPECIAL, _TEMPLATE, end="<|im_end|>", pad="<|endoftext|>")
    token = tokenizer.convert_tokens_to_ids
    vision = {key: value for key, value in tiny_models.VISION.items() if not key.startswith("num_")}
    config = Qwen2_5_VLConfig(
        # mrope_section: numbers of time, row and column; together half a head
        text_config={
            **tiny_models.TEXT,
            **tiny_models.rope(1e6, mrope_section=[4, 6, 6]),
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
        },
        vision_config={
            **vision,
            "depth": 4,
            "num_heads": 4,
            "out_hidden_size": tiny_models.TEXT["hidden_size"],
            "fullatt_block_indexes": [3],
            "window_size": 112,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 40 * 28 * 28, "longest_edge": 120 * 28 * 28})
    settings = {"processor_class": "Qwen2_5_VLProcessor"}
    tiny_models.write(folder, Qwen2_5_VLForConditionalGeneration, config, processor, tokenizer, settings)
