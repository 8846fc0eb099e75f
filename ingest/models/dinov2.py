"""DINOv2 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193), with registers too, and DINOv3 (2025).

A vision encoder trained without text, and without a tokenizer. DINOv2 sees the middle of the image (shorter
side resized, a square cut out), DINOv3 all of it, squeezed. Quirk: the class token and the registers, no
patches, are left out; they come first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import tiny_models
from kvstore.contracts import Encoded, Inputs, Layout, View

from . import _towers  # noqa: TID252 - the recipes' package has no fixed name

if TYPE_CHECKING:
    from PIL import Image as PILImage

MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit")
ALIASES = {
    "dinov2-large": "facebook/dinov2-large",
    "dinov2-large-registers": "facebook/dinov2-with-registers-large",
    "dinov3-large": "facebook/dinov3-vitl16-pretrain-lvd1689m",
}
TINY = "tiny-dinov2"
IMAGE_START = None


def check(model: Any, processor: Any, settings: Mapping[str, Any]) -> None:
    """Settings that do not fit together are refused: see `_towers.check`."""
    _towers.check(model, processor, model.config.patch_size, _skip(model.config))


def layout(config: Any, processor: Any, size: tuple[int, int], view: View) -> Layout:
    """The patches of an image of `size` (width, height)."""
    return _towers.layout(processor, config.patch_size, size)


def preprocess(config: Any, processor: Any, image: PILImage.Image, view: View) -> Inputs:
    """Pixels [3, side, side] and layout of one upright RGB image."""
    tokens = layout(config, processor, image.size, view)
    return Inputs(_towers.pixels(processor, image), image.size, tokens)


def encode(model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    """Hidden states of a batch, before the last norm."""
    return _towers.encode(model, batch, encoder_layers, _skip(model.config))


def _skip(config: Any) -> int:
    """The class token and the registers."""
    return 1 + int(getattr(config, "num_register_tokens", 0))


# ------------------------------------------------------------------------------------ the tiny model


def tiny(folder: Path) -> None:
    """Write `tiny-dinov2`: 14 x 14 patches of 8 px, fewer than its positions, as in the models' own use."""
    import torch
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    sizes = {key: value for key, value in tiny_models.VISION.items() if key != "intermediate_size"}
    with torch.random.fork_rng(devices=[]):
        model = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=2, image_size=144, patch_size=8))
    tiny_models.fill(model)
    model.save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 128},
        crop_size={"height": 112, "width": 112},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
