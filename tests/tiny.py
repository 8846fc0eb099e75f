"""The untrained tiny models and images that tests of models share; each is loaded once a process.

Their weights follow from their names, so what a test measures does not move when the models are trained anew.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from kvstore import models, prompting

NAMES = ("tiny-onevision", "tiny-next", "tiny-qwen")


@cache
def loaded(name: str) -> models.Loaded:
    """An untrained tiny model on the CPU in float32."""
    return models.load(f"{name}-untrained", "cpu", "float32")


@cache
def named(name: str) -> models.Loaded:
    """What a name stands for, as a command takes it: the trained model where there is one."""
    return models.load(name, "cpu", "float32")


@cache
def processor(name: str) -> Any:
    """The real processor of a tiny model."""
    return prompting.processor(loaded(name))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """An RGB image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def painted(size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """A dark image, with a white rectangle where `box` says so."""
    image = Image.new("RGB", size, (20, 20, 20))
    if box is not None:
        image.paste((255, 255, 255), box)
    return image
