"""COCO's panoptic segments as objects: things and stuff, each pixel in one of them or in none.

A segment's pixels are those of its colour in a PNG (id = red + 256 green + 65536 blue). Ids count anew in
each image, so an object's number is ``image id * 2**24 + segment id``. Pixels in no segment are void.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kvstore import masks
from kvstore.contracts import Annotations, Dataset, ImageRecord, Object
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError, ImageError
from kvstore.images import decode
from kvstore.upright import turn_box, turn_mask

from ._coco_json import File, Row, box_of, distinct, listed, numbers, numbers_of, turned  # noqa: TID252

_ARCHIVE = "panoptic_annotations_trainval2017"


def load(root: Path, year: str) -> Dataset:
    """The images of ``val2017`` or ``train2017`` with their segments."""
    notes = root / "annotations"
    path, folder = notes / f"panoptic_{year}.json", notes / f"panoptic_{year}"
    for missing in (path, folder):
        if not missing.exists():
            raise DatasetError(_where_to_get(missing, root))
    file = File(path)
    images = distinct(file.items("images", "id", "file_name"))
    names = {kind["id"]: str(kind["name"]) for kind in file.items("categories", "id", "name")}
    rows = {
        row["image_id"]: row for row in file.items("annotations", "image_id", "file_name", "segments_info")
    }
    for image in images:
        _check(path, image, rows, names)
    record = partial(_record, root / year, folder, images, rows, names)
    records, categories = Lazy(len(images), record), numbers_of(names)
    return Dataset("coco", f"{year}-panoptic", records, root, (path,), categories=categories)


def _where_to_get(missing: Path, root: Path) -> str:
    notes, name = root / "annotations", missing.stem
    return (
        f"coco: no {missing} (looked for it under --root {root}). "
        f"Get it: curl -O http://images.cocodataset.org/annotations/{_ARCHIVE}.zip && unzip {_ARCHIVE}.zip "
        f"-d {root} && unzip {notes / name}.zip -d {notes}"
    )


def _check(path: Path, image: Row, rows: dict[Hashable, Row], names: dict[Hashable, str]) -> None:
    """`DatasetError` where an image has no segments, or one of them is not what objects need."""
    if image["id"] not in rows or type(image["id"]) is not int:
        raise DatasetError(f"{path} has no segments of image {image['id']!r}")
    needed = ("id", "category_id", "bbox", "area")
    where = f"segments_info of image {image['id']}, "
    for segment in listed(path, where, rows[image["id"]]["segments_info"], *needed):
        sound = type(segment["id"]) is int and isinstance(segment["area"], int | float)
        if not sound or segment["category_id"] not in names or not box_of(numbers(segment["bbox"])):
            raise DatasetError(
                f"{path}: {where}segment {segment['id']} has no usable id, area, category or box"
            )


# --------------------------------------------------------------------------------------- records, as asked


def _record(
    pictures: Path,
    folder: Path,
    images: list[Row],
    rows: dict[Hashable, Row],
    names: dict[Hashable, str],
    place: int,
) -> ImageRecord:
    image = images[place]
    name = image["file_name"]
    annotate = partial(_annotations, folder, image, rows[image["id"]], names)
    return ImageRecord(storable(f"{pictures.name}/{name}"), read_file(pictures, name), annotate)


def _annotations(
    folder: Path,
    image: Row,
    row: Row,
    names: dict[Hashable, str],
    width: int,
    height: int,
    orientation: int,
) -> Annotations:
    """The segments of one image, in upright pixels, and as void what is in none."""
    size, turn = turned(image, width, height, orientation)
    ids = _ids(folder, row, size)
    objects = []
    for segment in row["segments_info"]:
        found = Object(
            object_id=(image["id"] << 24) + segment["id"],
            category=names[segment["category_id"]],
            box=turn_box(box_of(numbers(segment["bbox"])), *size, turn),  # type: ignore[arg-type] # checked
            area=float(segment["area"]),
            crowd=bool(segment.get("iscrowd")),
            mask=turn_mask(masks.from_array(ids == segment["id"]), *size, turn),
        )
        objects.append(found)
    void = turn_mask(masks.from_array(ids == 0), *size, turn) if (ids == 0).any() else None
    return Annotations(tuple(objects), void=void)


def _ids(folder: Path, row: Row, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Segment ids [height, width] from the PNG; `ImageError` unless they are those of the JSON file."""
    name = row["file_name"]
    colours = np.asarray(decode(read_file(folder, name)()).image).astype(np.int64)
    ids: np.ndarray[Any, np.dtype[np.int64]] = colours @ np.array([1, 256, 65536])
    listed_ids = {segment["id"] for segment in row["segments_info"]}
    drawn = set(np.unique(ids).tolist()) - {0}
    if ids.shape != size[::-1]:
        raise ImageError("changed", f"{folder.name}/{name} has {ids.shape[::-1]} pixels, its image {size}")
    if drawn != listed_ids:
        odd = min(drawn ^ listed_ids)
        raise ImageError(
            "changed", f"segment {odd} of {folder.name}/{name} is in the PNG or the JSON file alone"
        )
    return ids
