"""RefCOCO: refcoco/ with refs(unc).p and instances.json, and train2014/ with the images.

What the recipe `refcoco` and the data set's own code (github.com/lichengunc/refer) read; for data sets with
expressions. Only images with expressions are written; they and their objects are numbered anew from 1. A
split that RefCOCO has, or whose end it has (``refcoco-testA``), keeps its name, one that begins with
``train`` becomes train, any other val. A quirk: masks are exact, so each is a list of one compressed run
lengths, which refer.py takes in place of polygons.
"""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstore.contracts import Annotations, Dataset, Object
from kvstore.errors import DatasetError
from kvstore.export import EXTENSIONS, contents, of_image
from kvstore.images import Header, header
from kvstore.upright import stored_size, turn_box, turn_mask

Row = dict[str, Any]

_PARTS = ("train", "val", "testA", "testB")


def write(dataset: Dataset, folder: Path) -> None:
    """Write images and annotation files into `folder`; rows are held until the end, images are not."""
    (folder / "train2014").mkdir()
    files = _Files(_part(dataset.split))
    for record, data in contents(dataset):
        with of_image(record):
            head = header(data)
            found = record.annotate(head.width, head.height, head.orientation)
        if found.expressions:
            (folder / "train2014" / files.add(head, found)).write_bytes(data)
    if not files.images:
        raise DatasetError(f"{dataset.name} {dataset.split} has no expressions, and RefCOCO is made of them")
    files.name_categories()
    (folder / "refcoco").mkdir()
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(files.refs, protocol=2))
    with (folder / "refcoco" / "instances.json").open("w", encoding="utf-8") as file:
        json.dump(files.instances(f"{dataset.name} {dataset.split}".strip()), file)


def _part(split: str) -> str:
    end = split.rpartition("-")[2]
    return end if end in _PARTS else "train" if split.startswith("train") else "val"


@dataclass
class _Files:
    """Rows of the annotation files."""

    part: str
    images: list[Row] = field(default_factory=list)
    objects: list[Row] = field(default_factory=list)  # these and refs: first with their category's name
    refs: list[Row] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    sentences: int = 0

    def add(self, head: Header, found: Annotations) -> str:
        """Rows of one image; returns the name for its file."""
        number = len(self.images) + 1
        name = f"COCO_train2014_{number:012d}{EXTENSIONS[head.format]}"
        width, height = stored_size(head.width, head.height, head.orientation)
        self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        ids = {}
        for thing in found.objects:
            ids[thing.object_id] = len(self.objects) + 1
            row = {"id": ids[thing.object_id], "image_id": number, "category": thing.category}
            self.objects.append(row | _place(thing, head))
        said: dict[int, list[str]] = defaultdict(list)
        for expression in found.expressions:
            said[ids[expression.object_id]].append(expression.text)
        for object_id, texts in said.items():
            self._refer(number, Path(name), object_id, texts)
        return name

    def _refer(self, image: int, name: Path, object_id: int, texts: list[str]) -> None:
        """One object's record. Its file name ends in the object's number, as RefCOCO's do."""
        sentences = [
            {"tokens": text.split(), "raw": text, "sent_id": number, "sent": text}
            for number, text in enumerate(texts, self.sentences)
        ]
        self.sentences += len(texts)
        self.refs.append(
            {
                "ref_id": len(self.refs),
                "ann_id": object_id,
                "image_id": image,
                "split": self.part,
                "file_name": f"{name.stem}_{object_id}{name.suffix}",
                "sent_ids": [sentence["sent_id"] for sentence in sentences],
                "sentences": sentences,
                "category": self.objects[object_id - 1]["category"],
            }
        )

    def name_categories(self) -> None:
        """Give the categories, now that all are known, their ids, and the rows these in place of names."""
        names = sorted({row["category"] for row in self.objects})
        self.categories = {name: number for number, name in enumerate(names, 1)}
        for row in (*self.objects, *self.refs):
            row["category_id"] = self.categories[row.pop("category")]

    def instances(self, about: str) -> Row:
        """The content of instances.json."""
        kinds = [
            {"supercategory": "thing", "id": number, "name": name} for name, number in self.categories.items()
        ]
        info = {"info": {"description": f"{about}, written by kvstore"}, "licenses": []}
        return info | {"images": self.images, "annotations": self.objects, "categories": kinds}


def _place(thing: Object, head: Header) -> Row:
    """Where an object is in the pixels of the file: quarter turns undo each other, all else itself."""
    back = head.width, head.height, {6: 8, 8: 6}.get(head.orientation, head.orientation)
    x0, y0, x1, y1 = turn_box(thing.box, *back)
    masks = [json.loads(turn_mask(thing.mask, *back))] if thing.mask else []
    place = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": thing.area, "segmentation": masks}
    return place | {"iscrowd": int(thing.crowd)}
