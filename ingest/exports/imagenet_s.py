"""ImageNet-S: validation/ and validation-segmentation/ by class, the list of classes and their names.

What the recipe `imagenet_s` reads: the smallest of 50, 300 and 919 that the categories fit into. They are
numbered as they are met, their wnids made up from the number; an image lies with the class that has most of
its pixels, one without any in ``n00000000``. Images keep their bytes, whatever their format. A quirk: a
pixel has one class, the later of two objects; of a name what stands before a comma comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kvstore.contracts import Dataset
from kvstore.errors import DatasetError
from kvstore.export import EXTENSIONS
from kvstore.names import lines, place

from . import _class_maps  # noqa: TID252 - the recipes' package has no fixed name

_SIZES, _VOID = (50, 300, 919), 1000


def write(dataset: Dataset, folder: Path) -> None:
    """Write images, masks and lists into `folder`."""
    ids: dict[str, int] = {}
    for number, (data, head, found) in enumerate(_class_maps.annotated(dataset), 1):
        pixels = _class_maps.painted(found, head, ids, _VOID)
        if len(ids) > _SIZES[-1]:
            raise DatasetError(f"{dataset.name} has over {_SIZES[-1]} categories; ImageNet-S holds no more")
        wnid, name = _wnid(_main(pixels)), f"{number:08d}"
        place(folder, "validation", wnid, f"{name}{EXTENSIONS[head.format]}").write_bytes(data)
        coded = np.dstack([pixels % 256, pixels // 256, np.zeros_like(pixels)]).astype(np.uint8)
        Image.fromarray(coded).save(place(folder, "validation-segmentation", wnid, f"{name}.png"))
    _finish(folder, list(ids))


def _wnid(code: int) -> str:
    return f"n{code:08d}"


def _main(pixels: _class_maps.Pixels) -> int:
    """The class with most pixels; 0 where there is none."""
    counts = np.bincount(pixels[(pixels > 0) & (pixels < _VOID)], minlength=1)
    return int(counts.argmax())


def _finish(folder: Path, categories: Sequence[str]) -> None:
    """The lists, and the images' and masks' folders under the size that is known by now."""
    size = next(size for size in _SIZES if len(categories) <= size)
    for part in ("validation", "validation-segmentation"):
        (folder / part).rename(place(folder, f"ImageNetS{size}", part))
    rows = [(_wnid(code), name) for code, name in enumerate(categories, 1)]
    listed = place(folder, "data", "categories", f"ImageNetS_categories_im{size}.txt")
    listed.write_text(lines(wnid for wnid, _ in rows), encoding="utf-8")
    words = lines(f"{wnid} {name}" for wnid, name in rows)
    (folder / "synset_words.txt").write_text(words, encoding="utf-8")
