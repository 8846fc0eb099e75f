"""COCO's panoptic segments as objects: things and stuff, each pixel in one of them or in none.

A segment's pixels are those of its colour in a PNG (id = red + 256 green + 65536 blue). Ids count anew in
each image, so an object's number is ``image id * 2**24 + segment id``. Pixels in no segment are void.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kvstore import masks
from kvstore.contracts import Annotations, Dataset, ImageRecord, Object
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError, ImageError
from kvstore.images import decode
from kvstore.notes import Notes
from kvstore.upright import turn_box, turn_mask

from ._coco_json import File, Row, categories_of, distinct, listed, numbers_of  # noqa: TID252
from ._coco_objects import turned  # noqa: TID252
from ._coco_values import Id, Ids, box_of, flag, identity, number, text, whole  # noqa: TID252

_ARCHIVE = "panoptic_annotations_trainval2017"


def load(root: Path, year: str) -> Dataset:
    """The images of ``val2017`` or ``train2017`` with their segments."""
    notes = root / "annotations"
    path, folder = notes / f"panoptic_{year}.json", notes / f"panoptic_{year}"
    for missing in (path, folder):
        if not missing.exists():
            raise DatasetError(_where_to_get(missing, root))
    told = Notes()
    file = File(path, told)
    images, ids = distinct(file, lambda row: text(row.get("file_name")))
    names, kinds = categories_of(file)
    rows: dict[Id, Row] = {}
    for place, row in file.rows("annotations"):
        known, other = ids.find(row.get("image_id"))
        if known is None or known in rows:
            wrong = "met twice for an image" if known in rows else "of images that are not listed"
            file.lost(f"segments {wrong}", f"annotations[{place}]")
            continue
        if other:
            file.mended("ids that are text in one place and numbers in another", f"annotations[{place}]")
        rows[known] = row
    for image in images:
        _check(file, image, rows, kinds)
    record = partial(_record, root / year, folder, images, rows, names)
    records, categories = Lazy(len(images), record), numbers_of(names)
    return Dataset(
        "coco", f"{year}-panoptic", records, root, (path,), categories=categories, notes=list(told)
    )


def _where_to_get(missing: Path, root: Path) -> str:
    notes, name = root / "annotations", missing.stem
    return (
        f"coco: no {missing} (looked for it under --root {root}). "
        f"Get it: curl -O http://images.cocodataset.org/annotations/{_ARCHIVE}.zip && unzip {_ARCHIVE}.zip "
        f"-d {root} && unzip {notes / name}.zip -d {notes}"
    )


def _check(file: File, image: Row, rows: dict[Id, Row], kinds: Ids) -> None:
    """Make an image's segments what objects need; `DatasetError` where that cannot be."""
    path, known = file.path, image["id"]
    row = rows.get(known)
    if row is None or not isinstance(known, int) or abs(known) >= 2**38:
        raise DatasetError(f"{path} has no segments of image {str(known)[:40]}, or its id is no such number")
    segments, name = row.get("segments_info"), row.get("file_name")
    if not isinstance(segments, list) or not isinstance(name, str):
        raise DatasetError(f"{path}: the annotation of image {known} has no 'segments_info' or 'file_name'")
    where = f"segments_info of image {known}, "
    drawn: set[int] = set()
    for segment in listed(path, where, segments, "id", "category_id", "bbox", "area"):
        read = _segment(segment, kinds)
        if None in read.values() or read["id"] in drawn:
            raise DatasetError(
                f"{path}: {where}segment {str(segment['id'])[:40]} has no usable id, area, category or box"
            )
        if any(isinstance(segment.get(key), str) for key in ("id", "area", "iscrowd")):
            file.mended("segments with numbers written as text", f"image {known}, segment {read['id']}")
        segment.update(read)
        drawn.add(read["id"])


def _segment(segment: Row, kinds: Ids) -> Row:
    """A segment's values, None where one cannot be used."""
    own = whole(identity(segment["id"]) or "")
    return {
        "id": own if own is not None and 0 < own < 2**24 else None,
        "category_id": kinds.find(segment["category_id"])[0],
        "bbox": box_of(segment["bbox"])[0],
        "area": number(segment["area"]),
        "iscrowd": flag(segment.get("iscrowd"))[0],
    }


# --------------------------------------------------------------------------------------- records, as asked


def _record(
    pictures: Path,
    folder: Path,
    images: list[Row],
    rows: dict[Id, Row],
    names: dict[Id, str],
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
    names: dict[Id, str],
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
            box=turn_box(segment["bbox"], *size, turn),
            area=segment["area"],
            crowd=segment["iscrowd"],
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
