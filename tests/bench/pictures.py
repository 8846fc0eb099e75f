"""Images for benchmarks: drawn scenes, as PIL images or as JPEG files of 640 x 480."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from kvstore import datasets


def pictures(count: int) -> list[Image.Image]:
    """Drawn scenes, RGB."""
    images = datasets.load("shapes", limit=count).images
    return [Image.open(io.BytesIO(record.read())).convert("RGB") for record in images]


def jpeg_folder(folder: Path, count: int, distinct: int = 40) -> None:
    """`count` JPEG files of 640 x 480, all of different content, made of `distinct` scenes."""
    folder.mkdir(parents=True)
    scenes = [image.resize((640, 480)) for image in pictures(min(count, distinct))]
    for number in range(count):
        scene = scenes[number % len(scenes)].copy()
        scene.putpixel((number % 640, number // 640), (number % 256, 0, 0))
        scene.save(folder / f"{number:06d}.jpg", quality=90, comment=f"{number}".encode())
