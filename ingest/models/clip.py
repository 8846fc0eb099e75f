"""CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020): a vision encoder trained with captions.

Patches are those of the middle of the image: its shorter side is resized, and a square cut out. Quirk: the
class token, no patch, is left out; it comes first.
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

MODEL_TYPES = ("clip", "clip_vision_model")
ALIASES = {"clip-large": "openai/clip-vit-large-patch14-336"}
TINY = "tiny-clip"
IMAGE_START = None


def check(model: Any, processor: Any, settings: Mapping[str, Any]) -> None:
    """Settings that do not fit together are refused: see `_towers.check`."""
    vision = getattr(model.config, "vision_config", model.config)
    _towers.check(getattr(model, "vision_model", model), processor, vision.patch_size, skip=1)


def layout(config: Any, processor: Any, size: tuple[int, int], view: View) -> Layout:
    """The patches of an image of `size` (width, height)."""
    return _towers.layout(processor, getattr(config, "vision_config", config).patch_size, size)


def preprocess(config: Any, processor: Any, image: PILImage.Image, view: View) -> Inputs:
    """Pixels [3, side, side] and layout of one upright RGB image."""
    tokens = layout(config, processor, image.size, view)
    return Inputs(_towers.pixels(processor, image), image.size, tokens)


def encode(model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
    """Hidden states of a batch."""
    return _towers.encode(getattr(model, "vision_model", model), batch, encoder_layers, skip=1)


def texts(model: Any, tokenizer: Any, texts: Sequence[str]) -> Any:
    """Text embeddings t, taken back through the visual projection W to the width of patches: [texts, width].

    The dot product of a hidden state h with W^T t is that of the projected W h with t. CLIP itself puts a
    layer norm between h and W, which is left out: it is not linear, and of the class token only.
    """
    made = tokenizer(
        list(texts), padding=True, truncation=True, max_length=_length(model), return_tensors="pt"
    )
    return model.get_text_features(**made.to(model.device)).pooler_output @ model.visual_projection.weight


def _length(model: Any) -> int:
    return int(model.config.text_config.max_position_embeddings)


# ------------------------------------------------------------------------------------ the tiny model


def tiny(folder: Path) -> None:
    """Write `tiny-clip`: 14 x 14 patches of 8 px, and a text tower of two layers."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    begin, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = tiny_models.tokenizer((begin, end), "", end=end, pad=end, begin=begin)
    tokens = [(each, tokenizer.convert_tokens_to_ids(each)) for each in (begin, end)]
    ended = TemplateProcessing(single=f"{begin} $A {end}", special_tokens=tokens)  # a text is its end's state
    tokenizer.backend_tokenizer.post_processor = ended
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    config = CLIPConfig(
        vision_config={**tiny_models.VISION, "image_size": 112, "patch_size": 8},
        text_config={
            **tiny_models.VISION,
            "num_hidden_layers": 2,
            "vocab_size": tiny_models.VOCABULARY,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=tiny_models.VISION["hidden_size"],
    )
    with torch.random.fork_rng(devices=[]):
        model = CLIPModel(config)
    tiny_models.fill(torch.nn.ModuleDict(dict(model.named_children())))  # all but the scale of the logits
    model.save_pretrained(folder)
    size, crop = {"shortest_edge": 112}, {"height": 112, "width": 112}
    CLIPImageProcessorPil(size=size, crop_size=crop).save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}\n')
