"""Pascal-5i: JPEGImages/, SegmentationClassAug/ with class numbers, and a list for each of four folds.

What the recipe `pascal5i` reads: categories are numbered as they are met, named in ``classes.txt`` beside the
lists, and dealt to the folds in equal stretches (20 of them as in Pascal-5i). Images keep their bytes,
whatever their format, under its ending. A quirk: a pixel has one class; of objects that overlap the later is
seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kvstore.contracts import Dataset
from kvstore.errors import DatasetError
from kvstore.export import EXTENSIONS
from kvstore.names import lines

from . import _class_maps  # noqa: TID252 - the recipes' package has no fixed name

_FOLDS, _VOID = 4, 255


def write(dataset: Dataset, folder: Path) -> None:
    """Write images, class maps and lists into `folder`."""
    photos, masks = folder / "JPEGImages", folder / "SegmentationClassAug"
    photos.mkdir()
    masks.mkdir()
    ids: dict[str, int] = {}
    named: list[tuple[str, int]] = []
    for number, (data, head, found) in enumerate(_class_maps.annotated(dataset), 1):
        name = f"{number:06d}"
        pixels = _class_maps.painted(found, head, ids, _VOID)
        if len(ids) >= _VOID:
            raise DatasetError(f"{dataset.name} has over {_VOID - 1} categories; a mask of VOC holds no more")
        (photos / f"{name}{EXTENSIONS[head.format]}").write_bytes(data)
        Image.fromarray(pixels.astype(np.uint8)).save(masks / f"{name}.png")
        named += [(name, code) for code in np.unique(pixels).tolist() if code not in (0, _VOID)]
    if not named:
        raise DatasetError(f"{dataset.name} has no masks of objects, and Pascal-5i lists nothing else")
    _lists(folder / "splits" / "val", named, list(ids))


def _lists(folder: Path, named: Sequence[tuple[str, int]], categories: Sequence[str]) -> None:
    """``fold0.txt``, ... with lines ``name__class``, and the classes' names."""
    folder.mkdir(parents=True)
    size = -(-len(categories) // _FOLDS)
    for fold in range(_FOLDS):
        own = (f"{name}__{code:02d}" for name, code in named if (code - 1) // size == fold)
        (folder / f"fold{fold}.txt").write_text(lines(own), encoding="utf-8")
    (folder / "classes.txt").write_text(lines(categories), encoding="utf-8")
