"""What is captured of images, in memory and before it is rounded, to be held against plain transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from kvstore import models, prompting
from kvstore.prefill.blocks import Blocks, Buffer
from kvstore.prefill.forward import Engine, Prompt, batches
from kvstore.prefill.moments import KeyMoments
from kvstore.vectors.schema import Shape
from tests import plain


def shape_of(loaded: models.Loaded, layers: tuple[int, ...] | None = None) -> Shape:
    d = loaded.description
    return Shape(
        layers=layers if layers is not None else tuple(range(d["layers"])),
        heads=d["kv_heads"],
        key=d["key_dim"],
        value=d["value_dim"],
        input=d["hidden_dim"],
        encoder=d["encoder_dim"],
        encoder_layers=(0, d["encoder_layers"]),
    )


class Exact(Buffer):
    """A buffer of float32 blocks, to look at what is captured before it is rounded."""

    def _take(self, name: str, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        return super()._take(name, rows, width, torch.float32 if dtype == torch.float16 else dtype)


def captured(
    loaded: models.Loaded,
    images: list[Image.Image],
    view: str,
    prefix: str = "",
    batch: int = 1,
    kind: type[Buffer] = Buffer,
    layers: tuple[int, ...] | None = None,
) -> list[Blocks]:
    prompt = Prompt(tuple(prompting.prompt_ids(loaded, prefix)), loaded.image_token_id)
    shape = shape_of(loaded, layers)
    engine = Engine(loaded.model, loaded.family, prompt, shape, 1, KeyMoments())
    inputs = [loaded.family.preprocess(loaded.config, loaded.image_processor, i, view) for i in images]
    blocks = kind(shape, "cpu").blocks([item.layout for item in inputs])
    for group in batches(inputs, batch, 1 << 20):
        engine.run([inputs[i] for i in group], [blocks[i] for i in group])
    return blocks


def assert_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the order of float32 sums: see tests/kvstore/prefill/test_capture.py."""
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    found, expected = found.nan_to_num(), expected.nan_to_num()
    assert float((found - expected).abs().max()) <= 2e-5 * float(expected.square().mean().sqrt())


def assert_as_plain(folder: Path, image: Image.Image, reference: Path | None = None) -> None:
    """What is captured of an image is what plain transformers makes of it with that or another folder."""
    loaded = models.load(str(folder), "cpu", "float32")
    if loaded.is_encoder:
        inputs = loaded.family.preprocess(loaded.config, loaded.image_processor, image, "base")
        states = plain.hidden_states(reference or folder, image)
        with torch.inference_mode():
            made = loaded.family.encode(loaded.model, [inputs], range(len(states))).encoder[0]
        for layer, state in enumerate(states):
            assert_equal(made[layer], state[-inputs.layout.patches :])
        return
    (block,) = captured(loaded, [image], "all", kind=Exact)
    keys, values = plain.keys_and_values(reference or folder, image)
    assert keys.shape[2] == block.layout.tokens
    picked = torch.from_numpy(block.layout.positions())
    assert_equal(block.site["key"], keys[:, :, picked])
    assert_equal(block.site["value"], values[:, :, picked])
