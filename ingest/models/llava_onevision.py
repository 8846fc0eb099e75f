"""LLaVA-OneVision (Li et al. 2024, https://arxiv.org/abs/2408.03326): SigLIP, two-layer projector, Qwen2.

Tokens of an image: the overview tile row by row, then the mosaic of AnyRes tiles with a newline token after
each row; of several images in one prompt each is padded to a square, one tile and one newline token. Quirk:
mosaics beyond nine tiles are reduced bilinearly (`anyres_max_9`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import anyres, tile_settings, tiles, tiny_models
from kvstore.contracts import Encoded, Inputs, Layout, View
from kvstore.errors import ModelError

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage

MODEL_TYPES = ("llava_onevision",)
ALIASES = {"llava-onevision-7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf"}
TINY = "tiny-onevision"
IMAGE_START = ""


def check(model: Any, processor: Any, settings: Mapping[str, Any]) -> None:
    """Settings that do not fit together are refused: see `kvstore.tile_settings`."""
    tile_settings.check(model, processor, settings, _tiling(model.config, processor))


def layout(config: Any, processor: Any, size: tuple[int, int], view: View) -> Layout:
    """The tokens of an image of `size` (width, height)."""
    return anyres.layout(_tiling(config, processor), size, view)


def preprocess(config: Any, processor: Any, image: PILImage.Image, view: View) -> Inputs:
    """Pixels [tiles, 3, side, side] and layout of one upright RGB image."""
    return tiles.preprocess(_tiling(config, processor), processor, image, view)


def several(config: Any, processor: Any, images: Sequence[PILImage.Image]) -> list[Inputs]:
    """Pixels and layout of each of several images of one prompt, both views alike."""
    return tiles.several(_tiling(config, processor), processor, images)


def encode(model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    """Run the vision tower and the projector on a batch."""
    setting = model.config.vision_aspect_ratio
    return tiles.encode(model, batch, encoder_layers, vision_aspect_ratio=setting)


def position_ids(model: Any, input_ids: torch.Tensor, batch: Sequence[Inputs]) -> None:
    """None: positions count up."""


def _tiling(config: Any, processor: Any) -> anyres.Tiling:
    vision, ratio = config.vision_config, config.vision_aspect_ratio
    known = re.fullmatch(r"anyres_max_([1-9]\d*)", ratio)
    if known is None:
        raise ModelError(
            f"vision_aspect_ratio '{ratio}' of config.json is not known; 'anyres_max_9' would be"
        )
    return anyres.Tiling(
        vision.image_size, vision.patch_size, processor.image_grid_pinpoints, int(known.group(1))
    )


# ------------------------------------------------------------------------------------ the tiny model

_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{# images come before all text #}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")


def tiny(folder: Path) -> None:
    """Write `tiny-onevision`: 14 x 14 patches in a tile of 114 px, like 384 no multiple of the patch."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessorPil,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tokenizer = tiny_models.tokenizer(_SPECIAL, _TEMPLATE, end="<|im_end|>", pad="<|endoftext|>")
    side = 114
    pinpoints = [[side * rows, side * columns] for rows, columns in ((1, 2), (2, 1))]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            **tiny_models.VISION, image_size=side, patch_size=8, vision_use_head=False
        ).to_dict(),
        text_config=Qwen2Config(
            **tiny_models.TEXT,
            **tiny_models.rope(1e6),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        ).to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": side, "width": side},
        image_grid_pinpoints=pinpoints,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    settings = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 196,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    }
    tiny_models.write(folder, LlavaOnevisionForConditionalGeneration, config, processor, tokenizer, settings)
