"""What exports to class maps share: images with annotations, and objects painted as numbers of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kvstore import images, masks
from kvstore.contracts import Annotations, Dataset
from kvstore.export import contents, of_image
from kvstore.upright import stored_size, turn_mask

Pixels = np.ndarray[Any, np.dtype[Any]]


def annotated(dataset: Dataset) -> Iterator[tuple[bytes, images.Header, Annotations]]:
    """Each image's bytes, what they say of themselves, and its annotations."""
    for record, data in contents(dataset):
        with of_image(record):
            head = images.header(data)
            found = record.annotate(head.width, head.height, head.orientation)
        yield data, head, found


def stored(mask: str, head: images.Header) -> Pixels:
    """Pixels of a mask as the image's file has them, turned back: bool [height, width].

    Quarter turns undo each other, all else itself.
    """
    back = {6: 8, 8: 6}.get(head.orientation, head.orientation)
    return masks.to_array(turn_mask(mask, head.width, head.height, back))


def painted(found: Annotations, head: images.Header, ids: dict[str, int], void: int) -> Pixels:
    """The class of each pixel as stored, 0 for none; int64 [height, width].

    A category not met before gets the next number in `ids`. Of objects that overlap the later is seen; crowds
    are void, and void is void whatever else lies there. Objects without a mask are left out.
    """
    width, height = stored_size(head.width, head.height, head.orientation)
    pixels = np.zeros((height, width), np.int64)
    blank = [found.void] if found.void else []
    for thing in found.objects:
        if thing.mask and thing.crowd:
            blank.append(thing.mask)
        elif thing.mask:
            pixels[stored(thing.mask, head)] = ids.setdefault(thing.category, len(ids) + 1)
    for mask in blank:
        pixels[stored(mask, head)] = void
    return pixels
