"""Objects of COCO's annotations, made when they are asked for; what is left out or mended is noted."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import Any

from kvstore import masks, segmentations
from kvstore.contracts import Box, Keypoint, Object
from kvstore.notes import Notes
from kvstore.upright import stored_size, turn_box, turn_mask, turn_of, turn_point

from ._coco_json import Index, Row  # noqa: TID252
from ._coco_values import box_of, flag, number, side  # noqa: TID252


def turned(image: Row, width: int, height: int, orientation: int) -> tuple[tuple[int, int], int]:
    """The size (width, height) that an image was annotated at, and the turn from there to upright pixels."""
    across, down = side(image["width"]), side(image["height"])
    turn = turn_of((across, down) if across and down else None, width, height, orientation)
    return stored_size(width, height, turn), turn


def object_of(
    index: Index, item: Row, size: tuple[int, int], turn: int, notes: Notes | None = None
) -> Object | None:
    """One annotation of an image annotated at `size` (width, height); None if it says nowhere where it is.

    notes   takes what is left out of the annotation, or mended
    """
    judged = _Judged(f"{index.file}, annotation {item['id']}", Notes() if notes is None else notes)
    mask, met = segmentations.read(item.get("segmentation"), *size)
    judged.take(met)
    box = _box(item.get("bbox"), mask, judged)
    if box is None:
        return None
    return Object(
        object_id=item["id"],
        category=index.categories[item["category_id"]],
        box=turn_box(box, *size, turn),
        area=_area(item, mask, box, judged),
        crowd=_crowd(item.get("iscrowd"), judged),
        mask=turn_mask(mask, *size, turn) if mask else None,
        keypoints=_keypoints(index, item["id"], size, turn, judged),
    )


@dataclass(frozen=True)
class _Judged:
    """One annotation's place, and where its notes go."""

    place: str
    notes: Notes

    def note(self, kind: str, lost: bool) -> None:
        self.notes.add(kind, self.place, lost=lost)

    def take(self, met: segmentations.Met) -> None:
        for kind, lost in met.items():
            self.note(kind, lost)


def _box(bbox: Any, mask: str | None, judged: _Judged) -> Box | None:
    box, as_text = box_of(bbox)
    if as_text:
        judged.note("boxes written as text", False)
    if box:
        return box
    if mask:
        absent = bbox is None or (isinstance(bbox, list | array) and not bbox)
        kind = "annotations without a box" if absent else "boxes that cannot be read"
        judged.note(f"{kind}, taken from the mask", False)
        return masks.box(mask)
    judged.note("annotations with neither a box nor a mask", True)
    return None


def _area(item: Row, mask: str | None, box: Box, judged: _Judged) -> float:
    """The file's own figure; without one the mask's pixels, else the box's."""
    given = item.get("area")
    found = number(given)
    if found is None or isinstance(given, str):
        judged.note(f"areas {'that are missing, computed' if found is None else 'written as text'}", False)
    if found is not None:
        return found
    return float(masks.area(mask)) if mask else (box[2] - box[0]) * (box[3] - box[1])


def _crowd(given: Any, judged: _Judged) -> bool:
    crowd, as_text = flag(given)
    if crowd is None:
        judged.note("values of 'iscrowd' that are neither 0 nor 1, taken as 0", True)
    elif as_text:
        judged.note("values of 'iscrowd' written as text", False)
    return bool(crowd)


def _keypoints(
    index: Index, object_id: int, size: tuple[int, int], turn: int, judged: _Judged
) -> tuple[Keypoint, ...]:
    """The labelled points. COCO gives the number of a pixel; half a pixel on lies its centre."""
    names, given = index.points.get(object_id, ([], None))
    if not given:
        return ()
    met: dict[str, bool] = {}
    flat = segmentations.coordinates(given, met)
    judged.take(met)
    if flat is None or len(flat) != 3 * len(names):
        if flat is None or any(flat):
            judged.note("keypoints that do not fit the names of their category", True)
        return ()
    found = []
    for name, x, y, visible in zip(names, flat[::3], flat[1::3], flat[2::3], strict=True):
        if visible in (1, 2) and math.isfinite(x) and math.isfinite(y):
            found.append(Keypoint(name, *turn_point((x + 0.5, y + 0.5), *size, turn), int(visible)))
        elif visible != 0:
            judged.note("keypoints that cannot be read", True)
    return tuple(found)
