"""Drawn scenes, kept as arrays: pixels as each family's processor makes them, dense labels, questions.

Drawing costs more than a training step, so it is done once, by worker processes, a file per shard of scenes.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from kvstore import models
from kvstore.contracts import Layout

from ..datasets import _categories, _language, _scenes, _styles, _things

SHARD = 250
#: Pixels along each side of the map of labels, which covers the whole image.
FINE = 128

PARTS = {
    (category.name, place): number
    for number, (category, place) in enumerate(
        ((c, p) for c in _categories.CATEGORIES for p in range(len(c.parts))), 1
    )
}
KINDS, HUES, STYLES = _things.KINDS, _things.HUES, _styles.STYLES
#: Rows and columns in which the middle of a patch's object is told.
BINS = 14

Array = np.ndarray[Any, np.dtype[Any]]
#: Kind, question, answer.
Asked = tuple[str, str, str]


@dataclass(frozen=True)
class Sheet:
    """One scene as the trainer uses it.

    number   of the scene in its `split`
    pixels   family -> uint8 values of the family's overview, in the shape of `Inputs.pixels`
    labels   family -> uint8 [patches, 6]: category, hue and part of the object shown (0 background), row and
             column of that object's middle (0 background, else from 1), whether a middle is in the patch
    style    index in `STYLES`
    asked    questions and drills: (kind, text, answer)
    """

    number: int
    pixels: dict[str, Array]
    size: tuple[int, int]
    labels: dict[str, Array]
    style: int
    asked: list[Asked]
    split: str = "train"


def draw(folder: Path, split: str, count: int, families: Sequence[str], workers: int) -> None:
    """Draw a split's first `count` scenes for `families`, SHARD to a file; what is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {start: folder / f"{split}-{start:06d}.pickle" for start in range(0, count, SHARD)}
    missing = [start for start, path in paths.items() if not path.is_file()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        work = partial(_shard, split=split, families=families)
        for done, _ in enumerate(pool.map(work, [paths[start] for start in missing], missing), 1):
            print(f"drawn: {done * SHARD} of {len(missing) * SHARD} scenes of {split}", flush=True)


def read(folder: Path, split: str, families: Sequence[str], part: tuple[int, int] = (0, 1)) -> list[Sheet]:
    """The scenes drawn, with the pixels of `families`; of several processes, each reads its own shards."""
    place, parts = part
    found: list[Sheet] = []
    for path in sorted(folder.glob(f"{split}-*.pickle"))[place::parts]:
        for sheet in pickle.loads(path.read_bytes()):  # noqa: S301 - written by `draw`
            pixels = {name: sheet.pixels[name] for name in families}
            found.append(replace(sheet, pixels=pixels, split=split))
    return found


def _shard(path: Path, start: int, *, split: str, families: Sequence[str]) -> None:
    loaded = {name: models.load_config(f"{name}-untrained") for name in families}
    made = [_sheet(split, number, loaded) for number in range(start, start + SHARD)]
    aside = path.with_suffix(".part")
    aside.write_bytes(pickle.dumps(made, protocol=5))
    aside.rename(path)


def _sheet(split: str, number: int, loaded: dict[str, models.Loaded]) -> Sheet:
    scene = _scenes.compose(split, number)
    image, seen = _scenes.paint(scene), _language.things(scene)
    parts, objects = _maps(scene)
    pixels, labels = {}, {}
    for name, each in loaded.items():
        made = each.family.preprocess(each.config, each.image_processor, image, "base")
        pixels[name] = to_bytes(each, made.pixels.numpy())
        labels[name] = _sampled(scene, seen, parts, objects, made.layout)
    asked = _language.everything(scene, seen, random.Random(f"{split}/{number}"))
    texts = [(one.kind, one.text, one.answer) for one in asked]
    texts += [("caption", "Describe the image.", text) for text in _language.captions(scene, seen)]
    return Sheet(number, pixels, image.size, labels, STYLES.index(scene.style), texts, split)


def _maps(scene: Any) -> tuple[Array, Array]:
    """Which part (numbers of `PARTS`) and which object (from 1) each point shows; uint8 [FINE, FINE]."""
    parts, objects = (Image.new("L", (FINE, FINE), 0) for _ in range(2))
    pens = ImageDraw.Draw(parts), ImageDraw.Draw(objects)
    for number, placed in enumerate(scene.objects, 1):
        for place, outline in enumerate(placed.outlines):
            corners = [(x / scene.width * FINE - 0.5, y / scene.height * FINE - 0.5) for x, y in outline]
            pens[0].polygon(corners, PARTS[placed.category.name, place])
            pens[1].polygon(corners, number)
    return np.asarray(parts), np.asarray(objects)


def _sampled(scene: Any, seen: Sequence[Any], parts: Array, objects: Array, layout: Layout) -> Array:
    """The labels at the patches' centres, and which patches hold the middle of an object."""
    grid = layout.grids[0]
    x0, y0, x1, y1 = grid.box
    columns = ((np.arange(grid.columns) + 0.5) / grid.columns * (x1 - x0) + x0) / scene.width
    rows = ((np.arange(grid.rows) + 0.5) / grid.rows * (y1 - y0) + y0) / scene.height
    down = np.clip((rows * FINE).astype(int), 0, FINE - 1)[:, None]
    across = np.clip((columns * FINE).astype(int), 0, FINE - 1)[None]
    part, thing = parts[down, across], objects[down, across]

    def of_object(values: list[int]) -> Array:
        told: Array = np.array([0, *values], np.uint8)[thing]
        return told

    middle = np.zeros_like(thing)
    for each in seen:
        middle[np.abs(rows - each.y).argmin(), np.abs(columns - each.x).argmin()] = 1
    labels = [
        of_object([KINDS.index(each.category) + 1 for each in seen]),
        of_object([HUES.index(each.hue) + 1 for each in seen]),
        part,
        of_object([1 + int(each.y * BINS) for each in seen]),
        of_object([1 + int(each.x * BINS) for each in seen]),
        middle,
    ]
    return np.stack(labels, -1).reshape(grid.patches, len(labels)).astype(np.uint8)


def to_bytes(loaded: models.Loaded, pixels: Array) -> Array:
    """Normalised pixels back as the bytes that they were; of Qwen's two equal frames, one."""
    mean, std = _scale(loaded, pixels.ndim)
    if pixels.ndim == 2:  # Qwen: [patches, channels * frames * side * side]
        pixels = pixels.reshape(len(pixels), 3, 2, -1)[:, :, 0]
    kept: Array = np.rint((pixels * std + mean) * 255).astype(np.uint8)
    return kept


def from_bytes(loaded: models.Loaded, kept: Array) -> Array:
    """Pixels as the processor gave them, float32."""
    flat = kept.ndim == 3  # Qwen: [patches, channels, side * side]
    mean, std = _scale(loaded, 2 if flat else 4)
    pixels: Array = ((kept.astype(np.float32) / 255 - mean) / std).astype(np.float32)
    return np.repeat(pixels[:, :, None], 2, 2).reshape(len(pixels), -1) if flat else pixels


def _scale(loaded: models.Loaded, dimensions: int) -> tuple[Array, Array]:
    processor = loaded.image_processor
    shape = (1, 3, 1) if dimensions == 2 else (1, 3, 1, 1)
    mean, std = (np.array(each, np.float32) for each in (processor.image_mean, processor.image_std))
    return mean.reshape(shape), std.reshape(shape)
