"""COCO 2017: val2017/ or train2017/, and annotations/ with instances, keypoints and captions.

What cocoapi and the recipe `coco` read. A split whose name begins with ``train`` becomes train2017, any other
val2017. Images and annotations are numbered anew from 1. A quirk: masks are exact, so they are compressed run
lengths and not polygons (a crowd's are plain run lengths, as in COCO).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstore import images, masks
from kvstore.contracts import Dataset, Keypoint, Object
from kvstore.export import EXTENSIONS, contents, of_image
from kvstore.upright import stored_size, turn_box, turn_mask, turn_point

Row = dict[str, Any]
Turn = tuple[int, int, int]  # width, height and orientation, as `turn_box` takes them


def write(dataset: Dataset, folder: Path) -> None:
    """Write images and annotation files into `folder`; rows are held until the end, images are not."""
    split = "train2017" if dataset.split.startswith("train") else "val2017"
    (folder / split).mkdir()
    files = _Files()
    for number, (record, data) in enumerate(contents(dataset), 1):
        with of_image(record):
            head = images.header(data)
            found = record.annotate(head.width, head.height, head.orientation)
        name = f"{number:012d}{EXTENSIONS[head.format]}"
        (folder / split / name).write_bytes(data)
        width, height = stored_size(head.width, head.height, head.orientation)
        files.images.append({"id": number, "file_name": name, "width": width, "height": height})
        files.captions += [(number, text) for text in found.captions]
        files.add(number, found.objects, _back(head))
    (folder / "annotations").mkdir()
    for kind, content in files.contents(f"{dataset.name} {dataset.split}".strip()).items():
        with (folder / "annotations" / f"{kind}_{split}.json").open("w", encoding="utf-8") as file:
            json.dump(content, file)


def _back(head: images.Header) -> Turn:
    """The turn from upright pixels to those of the file: quarter turns undo each other, all else itself."""
    return head.width, head.height, {6: 8, 8: 6}.get(head.orientation, head.orientation)


@dataclass
class _Files:
    """Rows of the annotation files; categories get their ids, and their points' names, at the end."""

    images: list[Row] = field(default_factory=list)
    captions: list[tuple[int, str]] = field(default_factory=list)  # image id, text
    objects: list[Row] = field(default_factory=list)  # each with its category's name
    points: dict[int, dict[str, tuple[float, float, int]]] = field(default_factory=dict)  # annotation id ->
    names: dict[str, list[str]] = field(default_factory=dict)  # category -> its points

    def add(self, image: int, objects: Iterable[Object], back: Turn) -> None:
        """Rows of one image's objects, as the files hold them but for the category's id."""
        for thing in objects:
            number = len(self.objects) + 1
            row = {"id": number, "image_id": image, "category": thing.category}
            self.objects.append(row | _shape(thing, back))
            _merge(self.names.setdefault(thing.category, []), [point.name for point in thing.keypoints])
            if thing.keypoints:
                self.points[number] = {point.name: _point(point, back) for point in thing.keypoints}

    def contents(self, about: str) -> dict[str, Row]:
        """Each file's name and content; no file of keypoints or captions where there are none."""
        info = {"info": {"description": f"{about}, written by kvstore"}, "licenses": []}
        ids = {name: number for number, name in enumerate(sorted(self.names), 1)}
        kinds = [{"supercategory": "thing", "id": number, "name": name} for name, number in ids.items()]
        for row in self.objects:
            row["category_id"] = ids[row.pop("category")]
        shared = info | {"images": self.images}
        files = {"instances": shared | {"annotations": self.objects, "categories": kinds}}
        if self.points:
            files["person_keypoints"] = shared | self._posed(kinds)
        if self.captions:
            rows = enumerate(self.captions, 1)
            texts = [{"image_id": image, "id": number, "caption": text} for number, (image, text) in rows]
            files["captions"] = shared | {"annotations": texts}
        return files

    def _posed(self, kinds: list[Row]) -> Row:
        """Annotations and categories of the keypoints' file: those of the categories that have any."""
        kinds = [kind | {"keypoints": self.names[kind["name"]], "skeleton": []} for kind in kinds]
        names = {kind["id"]: kind["keypoints"] for kind in kinds if kind["keypoints"]}
        rows = []
        for row in self.objects:
            if row["category_id"] in names:
                own = self.points.get(row["id"], {})
                flat = [own.get(name, (0, 0, 0)) for name in names[row["category_id"]]]
                labelled = sum(visible > 0 for _, _, visible in flat)
                rows.append(row | {"keypoints": [v for p in flat for v in p], "num_keypoints": labelled})
        return {"annotations": rows, "categories": [kind for kind in kinds if kind["keypoints"]]}


def _merge(known: list[str], names: list[str]) -> None:
    """Put new names where they stand among the known: an object lacks points that are not labelled."""
    place = 0
    for name in names:
        if name not in known:
            known.insert(place, name)
        place = known.index(name) + 1


def _shape(thing: Object, back: Turn) -> Row:
    """Where an object is, in COCO's form: an empty list of polygons where it has no mask."""
    x0, y0, x1, y1 = turn_box(thing.box, *back)
    segmentation: Any = []
    if thing.mask:
        segmentation = json.loads(turn_mask(thing.mask, *back))
        if thing.crowd:
            segmentation["counts"] = masks.runs(json.dumps(segmentation))
    place = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": thing.area, "segmentation": segmentation}
    return place | {"iscrowd": int(thing.crowd)}


def _point(point: Keypoint, back: Turn) -> tuple[float, float, int]:
    """COCO gives the number of a pixel, half a pixel before its centre."""
    if not point.visible:
        return 0, 0, 0
    x, y = turn_point((point.x, point.y), *back)
    return x - 0.5, y - 0.5, point.visible
