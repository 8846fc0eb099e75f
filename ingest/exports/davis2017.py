"""DAVIS 2017: JPEGImages/480p/, Annotations/480p/ with palette masks, and ImageSets/2017/ with the clips.

What the official evaluation and the recipe `davis2017` read. A split whose name begins with ``train`` becomes
train, any other val. Frames are numbered anew, objects from 1 in each clip. A quirk: the evaluation looks for
``*.jpg`` only, so a frame in another format (of `shapes` all) is turned upright and compressed; its pixels
change by a little, its masks by nothing. An object without a mask, and a category, are not in it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kvstore.contracts import Annotations, Dataset
from kvstore.errors import DatasetError
from kvstore.export import of_image
from kvstore.images import Header, decode
from kvstore.names import place
from kvstore.upright import stored_size

from ._class_maps import annotated, stored  # noqa: TID252 - the recipes' package has no fixed name

_VOID = 255
#: Red, green and blue of each value: bit 3n + c of the value is bit 7 - n of colour c, as in VOC.
_COLOURS = [sum((v >> 3 * n + c & 1) << 7 - n for n in range(3)) for v in range(256) for c in range(3)]


def write(dataset: Dataset, folder: Path) -> None:
    """Write the clips' frames, their masks and the list of the clips that have any frame."""
    places = {name: (c.name, number) for c in dataset.clips for number, name in enumerate(c.frames)}
    clips: dict[str, _Numbers] = {}
    for record, (data, head, found) in zip(dataset.images, annotated(dataset), strict=True):
        if record.name not in places:
            continue
        clip, number = places[record.name]
        with of_image(record):
            jpeg, shown = _jpeg(data, head)
        place(folder, "JPEGImages", "480p", clip, f"{number:05d}.jpg").write_bytes(jpeg)
        values = clips.setdefault(clip, _Numbers(clip)).values(found, shown)
        _palette(values).save(place(folder, "Annotations", "480p", clip, f"{number:05d}.png"))
    if not clips:
        raise DatasetError(f"{dataset.name} {dataset.split} has no clips to export; name another --split")
    split = "train" if dataset.split.startswith("train") else "val"
    place(folder, "ImageSets", "2017", f"{split}.txt").write_text("".join(f"{c}\n" for c in clips))


def _jpeg(data: bytes, head: Header) -> tuple[bytes, Header]:
    """A frame's bytes, and what they say of themselves; those of a JPEG stay as they are."""
    if head.format == "JPEG":
        return data, head
    image, buffer = decode(data).image, io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue(), Header(image.width, image.height, "JPEG", 1)


@dataclass
class _Numbers:
    """The objects of one clip, numbered from 1 as they are first met."""

    clip: str
    numbers: dict[int, int] = field(default_factory=dict)  # object_id -> number

    def values(self, found: Annotations, head: Header) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """A frame's mask as stored [height, width]; where objects overlap, the last one's."""
        width, height = stored_size(head.width, head.height, head.orientation)
        values = np.zeros((height, width), np.uint8)
        for thing in found.objects:
            if thing.mask:
                values[stored(thing.mask, head)] = self._number(thing.object_id)
        if found.void:
            values[stored(found.void, head)] = _VOID
        return values

    def _number(self, object_id: int) -> int:
        number = self.numbers.setdefault(object_id, len(self.numbers) + 1)
        if number >= _VOID:
            raise DatasetError(f"clip {self.clip!r} has over {_VOID - 1} objects; DAVIS holds no more in one")
        return number


def _palette(values: np.ndarray[Any, np.dtype[np.uint8]]) -> Image.Image:
    image = Image.fromarray(values, "L")
    image.putpalette(_COLOURS)
    return image
