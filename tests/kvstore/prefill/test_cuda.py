"""The CUDA path: pinned buffers, copies on a stream of their own, moments on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kvstore import models, prompting
from kvstore.prefill.blocks import Blocks, Buffer
from kvstore.prefill.forward import Engine, Prompt
from kvstore.prefill.moments import KeyMoments
from kvstore.prefill.options import Options
from kvstore.prefill.plan import shape_of
from tests import tiny

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

BATCHES = 5  # more than the two device buffers, so that each is used again


def stored(device: str, dtype: str) -> tuple[list[Blocks], KeyMoments]:
    loaded = models.load("tiny-onevision", device, dtype)
    shape = shape_of(Options("shapes", "tiny-onevision"), loaded.description)
    moments = KeyMoments()
    prompt = Prompt(tuple(prompting.prompt_ids(loaded)), loaded.image_token_id)
    engine = Engine(loaded.model, loaded.family, prompt, shape, 1, moments)
    images = [tiny.noise((100, 80), seed) for seed in range(2 * BATCHES)]
    inputs = [loaded.family.preprocess(loaded.config, loaded.image_processor, i, "base") for i in images]
    blocks = Buffer(shape, "cpu", pinned=device == "cuda").blocks([item.layout for item in inputs])
    for first in range(0, len(inputs), 2):
        engine.run(inputs[first : first + 2], blocks[first : first + 2])
    engine.mark()()
    return blocks, moments


def test_float32_on_cuda_equals_the_cpu() -> None:
    """Within a few units of float16: the sums are taken in another order, and TF32 is off by default."""
    (cpu, sums), (cuda, cuda_sums) = stored("cpu", "float32"), stored("cuda", "float32")
    for a, b in zip(cpu, cuda, strict=True):
        for site, vectors in a.site.items():
            np.testing.assert_allclose(b.site[site].numpy(), vectors.numpy(), rtol=5e-3, atol=5e-3)
        assert bool(b.good)
    for shape, mine in sums.sums.items():
        theirs = cuda_sums.sums[shape]
        assert float(theirs.n) == float(mine.n) == 2 * BATCHES
        np.testing.assert_allclose(theirs.square.cpu(), mine.square, rtol=1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(dtype: str) -> None:
    """bfloat16 has 8 bits: a relative error of some hundredths after eight layers."""
    (cpu, _), (cuda, _) = stored("cpu", "float32"), stored("cuda", dtype)
    for a, b in zip(cpu, cuda, strict=True):
        expected, found = a.site["value"].float(), b.site["value"].float()
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert float(error) < 0.1
