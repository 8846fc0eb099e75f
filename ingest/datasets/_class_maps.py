"""What recipes of class maps share: image files that name, pixel by pixel, what class is to be seen.

A map is checked against its image and becomes one object per class, the union of all that belongs to it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kvstore import masks
from kvstore.contracts import Annotations, Object
from kvstore.datasets import read_file
from kvstore.errors import DatasetError, ImageError
from kvstore.images import FORMATS, check_sums
from kvstore.lines import one_line
from kvstore.upright import turn_mask, turn_of

Pixels = np.ndarray[Any, np.dtype[Any]]

#: Object ids of an image start at its place times this: no map has so many classes.
_CLASSES = 1000


def first(dataset: str, root: Path, places: Sequence[str], remedy: str) -> Path:
    """The first of some places under `root` that is there; `DatasetError` with the remedy where none is."""
    for place in places:
        if os.path.exists(root / place):  # noqa: PTH110 - Path.exists raises for a name that is too long
            return root / place
    missing = " nor ".join(one_line(place, 50) for place in places)
    raise DatasetError(f"{dataset}: no {missing} in {root} (--root). Get it: {remedy}")


def opened(root: Path, name: str) -> Image.Image:
    """The map `name` in `root`, its mode kept; `ImageError` when it is missing or cannot be read."""
    data = read_file(root, name)()
    try:
        check_sums(data)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except Exception as error:  # a hostile file can raise anything from a reader
        raise ImageError("unreadable", f"mask {name!r} in {root}: {error}") from error
    return image


def told(
    codes: Pixels,
    names: Mapping[int, str],
    void: int | None,
    *,
    file: str,
    place: int,
    upright: tuple[int, int, int],
) -> Annotations:
    """One object per class of a map, in upright pixels.

    codes    int [height, width]: the class of each pixel as stored; 0 is none of `names`
    names    code -> category
    void     the code of pixels that no evaluation counts
    file     the map's name, told in errors
    place    of the image in its data set: object ids are made from it
    upright  width and height of the upright image, and its orientation

    Raises `ImageError`: ``changed`` for a map of another size than its image, ``unreadable`` for a code that
    is neither in `names` nor 0 nor `void`.
    """
    height, width = codes.shape
    try:
        turn = turn_of((width, height), *upright)
    except ImageError as error:
        raise ImageError(error.reason, f"mask {file!r}: {error.detail}") from error
    present = set(np.unique(codes).tolist())
    if strange := sorted(present - {*names, 0, void}):
        raise ImageError(
            "unreadable", f"mask {file!r} holds {strange[0]}, which is none of {len(names)} classes"
        )

    def mask(code: int) -> str:
        return turn_mask(masks.from_array(codes == code), width, height, turn)

    objects = tuple(
        _object(place * _CLASSES + number, category, mask(code))
        for number, (code, category) in enumerate(names.items(), 1)
        if code in present
    )
    return Annotations(objects, void=mask(void) if void is not None and void in present else None)


def _object(object_id: int, category: str, mask: str) -> Object:
    return Object(object_id, category, masks.box(mask), float(masks.area(mask)), mask=mask)
