"""COCO 2017: photographs of everyday scenes with objects, person keypoints and captions (cocodataset.org).

Under --root lie ``val2017/`` and ``annotations/instances_val2017.json``, and where wanted
``captions_val2017.json`` and ``person_keypoints_val2017.json``; the same for train2017. The images are those
that the instances file lists, in its order. A quirk: a crowd's `area` often differs from its mask's pixels.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kvstore import masks
from kvstore.contracts import Annotations, Box, Dataset, ImageRecord, Keypoint, Object
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError
from kvstore.upright import stored_size, turn_box, turn_mask, turn_of, turn_point

SPLITS = ("val2017", "train2017")

_KEPT = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "caption"}


def load(root: Path | None, split: str | None) -> Dataset:
    """COCO's `split` under `root`; `DatasetError` says what is missing or malformed."""
    root, split = root or Path("data/coco"), split or SPLITS[0]
    instances = root / "annotations" / f"instances_{split}.json"
    for path, there, archive in (
        (root / split, (root / split).is_dir(), f"zips/{split}.zip"),
        (instances, instances.is_file(), "annotations/annotations_trainval2017.zip"),
    ):
        if not there:
            raise DatasetError(_where_to_get(path, root, archive))
    captions, people = (
        root / "annotations" / f"{kind}_{split}.json" for kind in ("captions", "person_keypoints")
    )
    sources = (instances, *(path for path in (captions, people) if path.is_file()))
    index = _Index.read(instances, *(path if path in sources else None for path in (captions, people)))
    images = Lazy(len(index.images), partial(_record, root / split, index))
    return Dataset("coco", split, images, root, sources)


def _where_to_get(missing: Path, root: Path, archive: str) -> str:
    name = archive.rpartition("/")[2]
    return (
        f"coco: no {missing} (looked for it under --root {root}). "
        f"Get it: curl -O http://images.cocodataset.org/{archive} && unzip {name} -d {root}"
    )


# ------------------------------------------------------------------------------- annotation files, as read


@dataclass(frozen=True, eq=False)
class _Index:
    """The annotation files, grouped by image. Masks stay as the file gives them until they are asked for."""

    images: list[dict[str, Any]]  # each with its own id and file name
    objects: dict[Hashable, list[dict[str, Any]]]  # image id -> annotations
    captions: dict[Hashable, list[str]]  # image id -> texts
    points: dict[Hashable, dict[str, Any]]  # annotation id -> annotation with keypoints
    categories: dict[Hashable, str]
    point_names: dict[Hashable, list[str]]  # category id -> names of its keypoints

    @classmethod
    def read(cls, instances: Path, captions: Path | None, people: Path | None) -> _Index:
        """Read the files; `DatasetError` with the file and what is wrong in it."""
        file = _File(instances)
        categories = {c["id"]: str(c["name"]) for c in file.items("categories", "id", "name")}
        images = _distinct(file.items("images", "id", "file_name"))
        objects = _grouped(file, {image["id"] for image in images}, categories)
        texts: dict[Hashable, list[str]] = defaultdict(list)
        for text in _File(captions).items("annotations", "image_id", "caption") if captions else ():
            texts[text["image_id"]].append(str(text["caption"]))
        posed = _File(people) if people else file
        wanted = ("id", "category_id", "keypoints") if people else ("id",)
        posed_items = (item for item in posed.items("annotations", *wanted) if "keypoints" in item)
        points = {
            item["id"]: {key: item[key] for key in ("category_id", "keypoints")} for item in posed_items
        }
        kinds = posed.items("categories", "id")
        names = {kind["id"]: kind["keypoints"] for kind in kinds if isinstance(kind.get("keypoints"), list)}
        return cls(images, objects, texts, points, categories, names)


class _File:
    """One annotation file; what it lacks is told with its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open(encoding="utf-8-sig") as file:  # as text: from bytes, json holds it twice
                self.content = json.load(file, object_hook=_packed)
        except OSError as error:
            raise DatasetError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} is not valid JSON ({error}); unpack it again") from error
        if not isinstance(self.content, dict):
            raise DatasetError(f"{path} holds no COCO annotations: its top level is no object")

    def items(self, key: str, *needed: str) -> list[dict[str, Any]]:
        """The list `key`, each item an object that has the `needed` keys, its ids of a usable kind."""
        items = self.content.get(key)
        if not isinstance(items, list):
            raise DatasetError(f"{self.path} has no list '{key}'")
        for place, item in enumerate(items):
            lacks = [k for k in needed if k not in item] if isinstance(item, dict) else list(needed)
            lacks += [k for k in needed if k.endswith("id") and k not in lacks and not _usable(item[k])]
            if lacks:
                raise DatasetError(f"{self.path}: {key}[{place}] has no usable '{lacks[0]}'")
        return items


def _usable(identity: Any) -> bool:
    return isinstance(identity, int | str)


def _packed(item: dict[str, Any]) -> dict[str, Any]:
    """An object of the file, as it is read: its numbers packed, what nobody asks for left out."""
    if "image_id" not in item:
        return item
    item = {key: value for key, value in item.items() if key in _KEPT}
    polygons = item.get("segmentation")
    if isinstance(polygons, list):
        item["segmentation"] = [_numbers(polygon) for polygon in polygons]
    for key in item.keys() & {"bbox", "keypoints"}:
        item[key] = _numbers(item[key])
    return item


def _numbers(values: Any) -> array[float]:
    """Numbers as an array of doubles; an empty one for anything else."""
    try:
        return array("d", values)
    except (TypeError, OverflowError):
        return array("d")


def _distinct(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
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


def _grouped(
    file: _File, images: set[Hashable], categories: dict[Hashable, str]
) -> dict[Hashable, list[dict[str, Any]]]:
    """Annotations by image id. An id that is missing or met before is replaced by a new number."""
    groups: dict[Hashable, list[dict[str, Any]]] = defaultdict(list)
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


def _numbered(item: dict[str, Any]) -> bool:
    return type(item.get("id")) is int and abs(item["id"]) < 2**62  # object.object_id is a bigint


# --------------------------------------------------------------------------------------- records, as asked


def _record(folder: Path, index: _Index, place: int) -> ImageRecord:
    image = index.images[place]
    name = image["file_name"]
    return ImageRecord(
        storable(f"{folder.name}/{name}"), read_file(folder, name), partial(_annotations, index, image)
    )


def _annotations(
    index: _Index, image: dict[str, Any], width: int, height: int, orientation: int
) -> Annotations:
    """All that the files say of one image, in upright pixels."""
    declared = (image["width"], image["height"])
    turn = turn_of(declared if all(type(n) is int for n in declared) else None, width, height, orientation)
    size = stored_size(width, height, turn)
    objects = (_object(index, item, size, turn) for item in index.objects.get(image["id"], ()))
    return Annotations(tuple(found for found in objects if found), tuple(index.captions.get(image["id"], ())))


def _object(index: _Index, item: dict[str, Any], size: tuple[int, int], turn: int) -> Object | None:
    """One annotation of an image annotated at `size` (width, height); None if it says nowhere where it is."""
    mask = masks.from_coco(item.get("segmentation"), *size)
    box = _box(item.get("bbox")) or (masks.box(mask) if mask else None)
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


def _box(bbox: array[float] | None) -> Box | None:
    """COCO's [x, y, width, height] as a box; as annotated, though it reach out of the image."""
    numbers = bbox or array("d")
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) < 0:
        return None
    x, y, width, height = numbers
    return x, y, x + width, y + height


def _keypoints(index: _Index, object_id: int, size: tuple[int, int], turn: int) -> tuple[Keypoint, ...]:
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
