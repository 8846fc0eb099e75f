"""LLaVA-NeXT (Liu et al. 2024, https://llava-vl.github.io/blog/2024-01-30-llava-next/): CLIP, projector, LM.

Reads Llama-3, Mistral and Vicuna variants alike. Tokens of an image: the overview tile row by row, then the
mosaic of AnyRes tiles with a newline token after each row. Quirk: CLIP's class token is dropped, and the
features are those before its last layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import anyres, tile_settings, tiles, tiny_models
from kvstore.contracts import Encoded, Inputs, Layout, View
from kvstore.errors import ModelError

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage

MODEL_TYPES = ("llava_next",)
ALIASES = {"llama3-llava-next-8b": "llava-hf/llama3-llava-next-8b-hf"}
TINY = "tiny-next"
IMAGE_START = ""


def check(model: Any, processor: Any, settings: Mapping[str, Any]) -> None:
    """Settings that do not fit together are refused: see `kvstore.tile_settings`."""
    if getattr(model.config, "use_image_newline_parameter", True) is not True:
        raise ModelError(
            "use_image_newline_parameter of config.json is off, which transformers does not read"
        )
    tile_settings.check(model, processor, settings, _tiling(model.config, processor))


def layout(config: Any, processor: Any, size: tuple[int, int], view: View) -> Layout:
    """The tokens of an image of `size` (width, height)."""
    return anyres.layout(_tiling(config, processor), size, view)


def preprocess(config: Any, processor: Any, image: PILImage.Image, view: View) -> Inputs:
    """Pixels [tiles, 3, side, side] and layout of one upright RGB image."""
    return tiles.preprocess(_tiling(config, processor), processor, image, view)


def encode(model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    """Run the vision tower and the projector on a batch."""
    setting = model.config.vision_feature_select_strategy
    return tiles.encode(model, batch, encoder_layers, vision_feature_select_strategy=setting)


def position_ids(model: Any, input_ids: torch.Tensor, batch: Sequence[Inputs]) -> None:
    """None: positions count up."""


def _tiling(config: Any, processor: Any) -> anyres.Tiling:
    vision = config.vision_config
    return anyres.Tiling(vision.image_size, vision.patch_size, processor.image_grid_pinpoints)


# ------------------------------------------------------------------------------------ the tiny model

_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user provides, and assist the user with a variety of tasks using natural language."
)
_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\\n\\n" + _SYSTEM + "<|eot_id|>' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{# images come before all text #}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] }}{% endfor %}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<pad>", "<image>")


def tiny(folder: Path) -> None:
    """Write `tiny-next`: 14 x 14 patches in a tile of 112 px, two resolutions, Llama-3's prompt."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
    )

    tokenizer = tiny_models.tokenizer(
        _SPECIAL, _TEMPLATE, end="<|eot_id|>", pad="<pad>", begin="<|begin_of_text|>"
    )
    side = 112
    pinpoints = [[side * rows, side * columns] for rows, columns in ((1, 2), (2, 1))]
    config = LlavaNextConfig(
        # as in CLIP's use, the last layer goes unused: features are those of the last but one
        vision_config=CLIPVisionConfig(
            **{**tiny_models.VISION, "num_hidden_layers": 5}, image_size=side, patch_size=8
        ).to_dict(),
        text_config=LlamaConfig(
            **tiny_models.TEXT,
            **tiny_models.rope(5e5),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=196,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=pinpoints,
    )
    settings = {
        "processor_class": "LlavaNextProcessor",
        "patch_size": 8,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
    }
    tiny_models.write(folder, LlavaNextForConditionalGeneration, config, processor, tokenizer, settings)
