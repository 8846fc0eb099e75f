"""Stage 1: the vision encoder alone, a SigLIP, on dense labels of patches and on contrast with captions."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kvstore import devices, models

from . import loop, sheets
from .asking import CAPTION
from .heads import Heads
from .learner import initialise
from .sheets import Sheet
from .whole import replacing

_SOURCE = "tiny-onevision"  # whose tower it becomes, and whose pixels and words it takes
_TEXT_LENGTH = 48
_CONTRAST = 0.3


def config(loaded: models.Loaded) -> Any:
    """A SigLIP with a tower of the MLM's shape, and a small text tower."""
    from transformers import SiglipConfig

    vision = {**loaded.config.vision_config.to_dict(), "vision_use_head": True}
    end = loaded.tokenizer.eos_token_id
    text = {
        "vocab_size": loaded.config.text_config.vocab_size,
        "hidden_size": vision["hidden_size"],
        "intermediate_size": vision["intermediate_size"],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": _TEXT_LENGTH,
        "pad_token_id": loaded.tokenizer.pad_token_id,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    return SiglipConfig(vision_config=vision, text_config=text)


def train(folder: Path, scenes: Sequence[Sheet], *, seed: int, steps: int, batch: int) -> None:
    """Train it; the state stays in ``<folder>/encoder.state``."""
    from transformers import SiglipModel

    loaded = models.load_config(f"{_SOURCE}-untrained")
    model = SiglipModel(config(loaded))
    initialise(model, seed)
    loop.attend_in_float32(model)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-5.0)
    heads = Heads(loaded.config.vision_config.hidden_size)
    device = devices.choose_device()
    model.to(device)
    heads.to(device)

    def loss(step: int, rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
        some = rng.sample(list(scenes), batch)
        made = model.vision_model(_pixels(loaded, some).to(device), output_hidden_states=True)
        dense, right = _dense(heads, made.hidden_states[-1], some)
        texts = [rng.choice([text for kind, _, text in s.asked if kind == CAPTION]) for s in some]
        written = model.text_model(_padded(loaded.tokenizer, texts).to(device)).pooler_output
        contrast = _sigmoid_contrast(model, made.pooler_output, written)
        figures = {"dense": dense.item(), "contrast": contrast.item()}
        figures |= dict(zip(("category", "hue", "style"), right, strict=True))
        return dense + _CONTRAST * contrast, figures

    loop.run(
        "encoder",
        folder,
        {"model": model, "heads": heads},
        loop.optimisers([(model, 1.0), (heads, 1.0)]),
        loop.Schedule(steps, warmup=60, decay=0.5),
        loss,
        seed=seed,
    )


def _pixels(loaded: models.Loaded, scenes: Sequence[Sheet]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(sheets.from_bytes(loaded, s.pixels[_SOURCE])) for s in scenes])


def _dense(heads: Heads, states: torch.Tensor, scenes: Sequence[Sheet]) -> tuple[torch.Tensor, list[float]]:
    """Loss of the labels of all patches; `states` [images, patches, width]."""
    labels = torch.from_numpy(np.concatenate([scene.labels[_SOURCE] for scene in scenes]))
    image = torch.arange(len(scenes)).repeat_interleave(states.shape[1])
    style = torch.tensor([scene.style for scene in scenes])
    return heads.loss(states.flatten(0, 1), *(each.to(states.device) for each in (labels, image, style)))


def _padded(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"][:_TEXT_LENGTH] for text in texts]
    return torch.tensor([each + [tokenizer.pad_token_id] * (_TEXT_LENGTH - len(each)) for each in ids])


def _sigmoid_contrast(model: Any, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss (Zhai et al. 2023, https://arxiv.org/abs/2303.15343): each pair is together or not."""
    similar = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    logits = similar * model.logit_scale.exp() + model.logit_bias
    signs = 2 * torch.eye(len(images), device=images.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(images)


def into_tower(folder: Path, tower: nn.Module) -> None:
    """Give the trained encoder's weights to an MLM's vision tower."""
    trained = torch.load(folder / "encoder.state", map_location="cpu", weights_only=True)["modules"]["model"]
    tower.load_state_dict({name: trained[f"vision_model.{name}"] for name in tower.state_dict()})


def keep(folder: Path, out: Path) -> None:
    """Write the trained encoder as a hub snapshot is: weights, configuration, processor, tokenizer."""
    from transformers import SiglipImageProcessorPil, SiglipModel

    loaded = models.load_config(f"{_SOURCE}-untrained")
    model = SiglipModel(config(loaded))
    state = torch.load(folder / "encoder.state", map_location="cpu", weights_only=True)
    model.load_state_dict(state["modules"]["model"])
    side = loaded.config.vision_config.image_size
    with replacing(out) as aside:
        model.half().save_pretrained(aside)
        SiglipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(aside)
        loaded.tokenizer.save_pretrained(aside)
        (aside / "chat_template.jinja").unlink(missing_ok=True)
        (aside / "processor_config.json").write_text(
            json.dumps({"processor_class": "SiglipProcessor"}) + "\n"
        )
