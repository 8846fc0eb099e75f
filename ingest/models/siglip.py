"""SigLIP (Zhai et al. 2023, https://arxiv.org/abs/2303.15343) and SigLIP 2 (2025, arXiv 2502.14786).

Patches are those of the whole image, squeezed into a square; of SigLIP 2's NaFlex (model type siglip2)
those of the image with its aspect ratio about kept. Quirk: 384 pixels hold 27 patches of 14, and the last 6
belong to none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import tiny_models
from kvstore.contracts import Encoded, Grid, Inputs, Layout, View
from kvstore.errors import ModelError

from . import _towers  # noqa: TID252 - the recipes' package has no fixed name

if TYPE_CHECKING:
    from PIL import Image as PILImage

MODEL_TYPES = ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")
ALIASES = {
    "siglip-so400m": "google/siglip-so400m-patch14-384",
    "siglip2-so400m": "google/siglip2-so400m-patch14-384",
}
TINY = "tiny-encoder"
IMAGE_START = None


def check(model: Any, processor: Any, settings: Mapping[str, Any]) -> None:
    """Settings that do not fit together are refused: see `_towers.check`; of NaFlex another patch."""
    vision = getattr(model.config, "vision_config", model.config)
    if not _is_naflex(model.config):
        _towers.check(getattr(model, "vision_model", model), processor, vision.patch_size, skip=0)
    elif processor.patch_size != vision.patch_size:
        raise ModelError(
            f"patch_size of preprocessor_config.json is {processor.patch_size!r}, and of config.json "
            f"{vision.patch_size!r}; they have to be the same"
        )


def layout(config: Any, processor: Any, size: tuple[int, int], view: View) -> Layout:
    """The patches of an image of `size` (width, height)."""
    if _is_naflex(config):
        return _naflex(processor, size)
    return _towers.layout(processor, getattr(config, "vision_config", config).patch_size, size)


def preprocess(config: Any, processor: Any, image: PILImage.Image, view: View) -> Inputs:
    """Pixels [3, side, side] (NaFlex: [patches and padding, 3 * 16 * 16]) and layout of one RGB image."""
    tokens = layout(config, processor, image.size, view)
    if not _is_naflex(config):
        return Inputs(_towers.pixels(processor, image), image.size, tokens)
    made = processor(images=[image], return_tensors="pt")
    extra = {name: made[name][0] for name in ("pixel_attention_mask", "spatial_shapes")}
    return Inputs(made["pixel_values"][0].float(), image.size, tokens, extra)


def encode(model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    """Hidden states of a batch."""
    tower = getattr(model, "vision_model", model)
    return (_encode_naflex if _is_naflex(model.config) else _encode)(tower, batch, encoder_layers)


def _encode(tower: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    return _towers.encode(tower, batch, encoder_layers, skip=0)


def texts(model: Any, tokenizer: Any, texts: Sequence[str]) -> Any:
    """Pooled output of the text tower, which is as wide as hidden states of patches: [texts, width].

    Texts are in lower case and padded to the tower's length, and the padding is seen, as in training.
    """
    length = model.config.text_config.max_position_embeddings
    padded = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    ids = tokenizer([text.lower() for text in texts], **padded)["input_ids"]
    return model.text_model(input_ids=ids.to(model.device)).pooler_output


# ------------------------------------------------------------------------------------------- NaFlex


def _is_naflex(config: Any) -> bool:
    return bool(config.model_type.startswith("siglip2"))


def _naflex(processor: Any, size: tuple[int, int]) -> Layout:
    """As many whole patches as fit into the processor's most, both sides rounded up to patches."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    width, height = size
    patch = processor.patch_size
    high, wide = get_image_size_for_max_num_patches(height, width, patch, processor.max_num_patches)
    grid = Grid(high // patch, wide // patch, (0.0, 0.0, float(width), float(height)))
    return Layout((grid,), grid.patches)


def _encode_naflex(tower: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    """Padding, which attention leaves out, lies behind the patches of each image."""
    import torch

    pixels = torch.stack([item.pixels for item in batch]).to(tower.dtype)
    extra = {
        name: torch.stack([item.extra[name] for item in batch]).to(pixels.device)
        for name in ("pixel_attention_mask", "spatial_shapes")
    }
    states = tower(pixels, **extra, output_hidden_states=True, return_dict=True).hidden_states
    encoder = [
        {layer: states[layer][row, : item.layout.tokens] for layer in encoder_layers}
        for row, item in enumerate(batch)
    ]
    return Encoded([], encoder)


# ------------------------------------------------------------------------------------ the tiny model

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")


def tiny(folder: Path) -> None:
    """Write `tiny-encoder` untrained: the tower and the words of tiny-onevision, and a text tower."""
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    end, pad, side = "<|im_end|>", "<|endoftext|>", 114
    tokenizer = tiny_models.tokenizer(_SPECIAL, "", end=end, pad=pad)
    tokenizer.chat_template = None
    config = SiglipConfig(
        vision_config={**tiny_models.VISION, "image_size": side, "patch_size": 8},
        text_config={
            **tiny_models.VISION,
            "num_hidden_layers": 2,
            "vocab_size": tiny_models.VOCABULARY,
            "max_position_embeddings": 48,
            "bos_token_id": tokenizer.eos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    )
    processor = SiglipImageProcessorPil(size={"height": side, "width": side})
    settings = {"processor_class": "SiglipProcessor"}
    tiny_models.write(folder, SiglipModel, config, processor, tokenizer, settings)
