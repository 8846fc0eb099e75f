"""MSRC for co-segmentation: a folder for each category, in it the images that show it and GroundTruth/.

What the recipe `msrc` reads: an image lies in the folder of each of its categories, with a mask of all that
belongs to it there, 255 inside; in a store it is one image with all of them. Images keep their bytes,
whatever their format; masks are BMP. A quirk: there is no void, so crowds and void pixels are left out, and
so are images without an object that has a mask.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from kvstore import masks
from kvstore.contracts import Annotations, Dataset
from kvstore.errors import DatasetError
from kvstore.export import EXTENSIONS
from kvstore.names import place

from . import _class_maps  # noqa: TID252 - the recipes' package has no fixed name


def write(dataset: Dataset, folder: Path) -> None:
    """Write a folder per category into `folder`."""
    for number, (data, head, found) in enumerate(_class_maps.annotated(dataset), 1):
        for category, mask in _by_category(found).items():
            place(folder, category, f"{number:06d}{EXTENSIONS[head.format]}").write_bytes(data)
            inside = Image.fromarray(_class_maps.stored(mask, head)).convert("L")
            inside.save(place(folder, category, "GroundTruth", f"{number:06d}.bmp"))
    if not any(folder.iterdir()):
        raise DatasetError(f"{dataset.name} has no masks of objects, and MSRC consists of them")


def _by_category(found: Annotations) -> dict[str, str]:
    """Category -> the union of its objects' masks."""
    parts: dict[str, list[str]] = {}
    for thing in found.objects:
        if thing.mask and not thing.crowd:
            parts.setdefault(thing.category, []).append(thing.mask)
    return {category: masks.union(some) for category, some in parts.items()}
