"""Plain transformers over a model's folder, image in and cache out; nothing here is kvstore's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

#: model_type -> the processor and the image processor that the family's own examples use.
CLASSES = {
    "llava_next": ("LlavaNextProcessor", "LlavaNextImageProcessorPil"),
    "llava_onevision": ("LlavaOnevisionProcessor", "LlavaOnevisionImageProcessorPil"),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", "Qwen2VLImageProcessorPil"),
    "siglip": ("", "SiglipImageProcessorPil"),
    "clip": ("", "CLIPImageProcessorPil"),
    "dinov2": ("", "BitImageProcessorPil"),
}


def keys_and_values(folder: Path, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of all of an image's tokens, newlines too: float32 [layers, heads, tokens, width]."""
    config = transformers.AutoConfig.from_pretrained(folder)
    inputs = processor(folder, config.model_type)(
        images=[image], text=_turn(folder, config.model_type), return_tensors="pt"
    )
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    places = (inputs["input_ids"][0] == config.image_token_id).nonzero()[:, 0]
    keys = [layer.keys[0][:, places] for layer in cache.layers]
    return torch.stack(keys), torch.stack([layer.values[0][:, places] for layer in cache.layers])


def hidden_states(folder: Path, image: Image.Image) -> torch.Tensor:
    """All hidden states of a vision encoder alone: float32 [states, vectors, width]."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = _images(folder, model.config.model_type)(images=[image], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = getattr(model, "vision_model", model)(pixel_values=pixels, output_hidden_states=True)
    return torch.stack([state[0] for state in states.hidden_states])


def processor(folder: Path, model_type: str) -> Any:
    """The family's processor; its video part, which would need torchvision, is left out."""
    real = getattr(transformers, CLASSES[model_type][0])

    class Without(real):  # type: ignore[misc, valid-type]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None if argument is None else super().check_argument_for_proper_class(name, argument)

    Without.__name__, Without.__module__ = real.__name__, real.__module__
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    template = folder / "chat_template.jinja"
    settings = json.loads((folder / "processor_config.json").read_text())
    chosen = template.read_text() if template.is_file() else tokenizer.chat_template
    return Without(_images(folder, model_type), tokenizer, **{"chat_template": chosen, **settings})


def _images(folder: Path, model_type: str) -> Any:
    return getattr(transformers, CLASSES[model_type][1]).from_pretrained(folder)


def _turn(folder: Path, model_type: str) -> str:
    """The prompt of an image and no question, by the folder's chat template."""
    turn = [{"role": "user", "content": [{"type": "image"}]}]
    text: str = processor(folder, model_type).apply_chat_template(turn, add_generation_prompt=True)
    return text
