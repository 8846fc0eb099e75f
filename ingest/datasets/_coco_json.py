"""COCO's annotation files: read, grouped by image, and turned into objects when they are asked for."""

from __future__ import annotations

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstore import masks
from kvstore.contracts import Box, Keypoint, Object
from kvstore.errors import DatasetError
from kvstore.upright import stored_size, turn_box, turn_mask, turn_of, turn_point

_KEPT = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "caption"}
_KEPT |= {"segments_info", "file_name"}  # of a panoptic file

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Index:
    """The annotation files, grouped by image. Masks stay as the file gives them until they are asked for."""

    images: list[Row]  # each with its own id and file name
    objects: dict[Hashable, list[Row]]  # image id -> annotations
    captions: dict[Hashable, list[str]]  # image id -> texts
    points: dict[Hashable, Row]  # annotation id -> annotation with keypoints
    categories: dict[Hashable, str]
    point_names: dict[Hashable, list[str]]  # category id -> names of its keypoints

    @classmethod
    def read(cls, instances: Path, captions: Path | None, people: Path | None) -> Index:
        """Read the files; `DatasetError` with the file and what is wrong in it."""
        file = File(instances)
        categories = {c["id"]: str(c["name"]) for c in file.items("categories", "id", "name")}
        images = distinct(file.items("images", "id", "file_name"))
        objects = _grouped(file, {image["id"] for image in images}, categories)
        texts: dict[Hashable, list[str]] = defaultdict(list)
        for text in File(captions).items("annotations", "image_id", "caption") if captions else ():
            texts[text["image_id"]].append(str(text["caption"]))
        posed = File(people) if people else file
        wanted = ("id", "category_id", "keypoints") if people else ("id",)
        posed_items = (item for item in posed.items("annotations", *wanted) if "keypoints" in item)
        points = {
            item["id"]: {key: item[key] for key in ("category_id", "keypoints")} for item in posed_items
        }
        kinds = posed.items("categories", "id")
        names = {kind["id"]: kind["keypoints"] for kind in kinds if isinstance(kind.get("keypoints"), list)}
        return cls(images, objects, texts, points, categories, names)


class File:
    """One annotation file; what it lacks is told with its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = read_json(path, _packed)
        if not isinstance(self.content, dict):
            raise DatasetError(f"{path} holds no COCO annotations: its top level is no object")

    def items(self, key: str, *needed: str) -> list[Row]:
        """The list `key`, as `listed` wants it."""
        items = self.content.get(key)
        if not isinstance(items, list):
            raise DatasetError(f"{self.path} has no list '{key}'")
        return listed(self.path, key, items, *needed)


def read_json(path: Path, made: Callable[[Row], Any] | None = None) -> Any:
    """What a JSON file holds, each of its objects as `made` gives it back; `DatasetError` if it is none."""
    try:
        with path.open(encoding="utf-8-sig") as file:  # as text: from bytes, json holds it twice
            return json.load(file, object_hook=made)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}); unpack it again") from error


def listed(path: Path, key: str, items: list[Any], *needed: str) -> list[Row]:
    """The items of `path`, each an object that has the `needed` keys, its ids of a usable kind."""
    for place, item in enumerate(items):
        lacks = [k for k in needed if k not in item] if isinstance(item, dict) else list(needed)
        lacks += [k for k in needed if k.endswith("id") and k not in lacks and not _usable(item[k])]
        if lacks:
            raise DatasetError(f"{path}: {key}[{place}] has no usable '{lacks[0]}'")
    return items


def _usable(identity: Any) -> bool:
    return isinstance(identity, int | str)


def _packed(item: Row) -> Row:
    """An object of the file, as it is read: its numbers packed, what nobody asks for left out."""
    if "image_id" not in item:
        return item
    item = {key: value for key, value in item.items() if key in _KEPT}
    parts = item.get("segmentation")
    if isinstance(parts, list):
        item["segmentation"] = [part if isinstance(part, dict) else numbers(part) for part in parts]
    for key in item.keys() & {"bbox", "keypoints"}:
        item[key] = numbers(item[key])
    return item


def numbers(values: Any) -> array[float]:
    """Numbers as an array of doubles; an empty one for anything else."""
    try:
        return array("d", values)
    except (TypeError, OverflowError):
        return array("d")


def numbers_of(categories: dict[Hashable, str]) -> dict[int, str]:
    """`Dataset.categories`: those whose id is a number that the catalog's integers hold."""
    return {n: name for n, name in categories.items() if isinstance(n, int) and abs(n) < 2**31}


def distinct(images: list[Row]) -> list[Row]:
    """The images, the first of those with one id or one file name."""
    ids: set[Hashable] = set()
    names: set[str] = set()
    kept = []
    for image in images:
        name = str(image["file_name"])
        if image["id"] not in ids and name not in names:
            kept.append({key: image.get(key) for key in ("id", "width", "height")} | {"file_name": name})
        ids.add(image["id"])
        names.add(name)
    return kept


def _grouped(file: File, images: set[Hashable], categories: dict[Hashable, str]) -> dict[Hashable, list[Row]]:
    """Annotations by image id. An id that is missing or met before is replaced by a new number."""
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    items = file.items("annotations", "image_id", "category_id")
    fresh = max((item["id"] for item in items if _numbered(item)), default=0)
    seen: set[int] = set()
    for place, item in enumerate(items):
        if item["category_id"] not in categories:
            raise DatasetError(
                f"{file.path}: annotations[{place}] has category_id {item['category_id']!r}, not listed"
            )
        if not _numbered(item) or item["id"] in seen:
            item["id"] = fresh = fresh + 1
        seen.add(item["id"])
        if item["image_id"] in images:
            groups[item["image_id"]].append(item)
    return groups


def _numbered(item: Row) -> bool:
    return type(item.get("id")) is int and abs(item["id"]) < 2**62  # object.object_id is a bigint


# ----------------------------------------------------------------------------------------- objects, as asked


def turned(image: Row, width: int, height: int, orientation: int) -> tuple[tuple[int, int], int]:
    """The size (width, height) that an image was annotated at, and the turn from there to upright pixels."""
    declared = (image["width"], image["height"])
    turn = turn_of(declared if all(type(n) is int for n in declared) else None, width, height, orientation)
    return stored_size(width, height, turn), turn


def object_of(index: Index, item: Row, size: tuple[int, int], turn: int) -> Object | None:
    """One annotation of an image annotated at `size` (width, height); None if it says nowhere where it is."""
    mask = _mask(item.get("segmentation"), size)
    box = box_of(item.get("bbox")) or (masks.box(mask) if mask else None)
    if box is None:
        return None
    area = item.get("area")
    known = isinstance(area, int | float) and math.isfinite(area)
    return Object(
        object_id=item["id"],
        category=index.categories[item["category_id"]],
        box=turn_box(box, *size, turn),
        area=float(area) if known else (box[2] - box[0]) * (box[3] - box[1]),  # type: ignore[arg-type]
        crowd=bool(item.get("iscrowd")),
        mask=turn_mask(mask, *size, turn) if mask else None,
        keypoints=_keypoints(index, item["id"], size, turn),
    )


def _mask(segmentation: Any, size: tuple[int, int]) -> str | None:
    """The mask of COCO's forms, and of a list of run lengths, which RefCOCO's own code takes beside them."""
    if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
        parts = [mask for mask in (masks.from_coco(part, *size) for part in segmentation) if mask]
        return masks.union(parts) if len(parts) == len(segmentation) else None
    return masks.from_coco(segmentation, *size)


def box_of(bbox: array[float] | None) -> Box | None:
    """COCO's [x, y, width, height] as a box; as annotated, though it reach out of the image."""
    sides = bbox or array("d")
    if len(sides) != 4 or not all(map(math.isfinite, sides)) or min(sides[2:]) < 0:
        return None
    x, y, width, height = sides
    return x, y, x + width, y + height


def _keypoints(index: Index, object_id: int, size: tuple[int, int], turn: int) -> tuple[Keypoint, ...]:
    """The labelled points. COCO gives the number of a pixel; half a pixel on lies its centre."""
    item = index.points.get(object_id, {})
    flat = item.get("keypoints", ())
    found = []
    for name, x, y, visible in zip(
        index.point_names.get(item.get("category_id"), ()), flat[::3], flat[1::3], flat[2::3], strict=False
    ):
        if visible in (1, 2) and math.isfinite(x) and math.isfinite(y):
            found.append(Keypoint(str(name), *turn_point((x + 0.5, y + 0.5), *size, turn), int(visible)))
    return tuple(found)
