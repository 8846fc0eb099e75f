"""SPair-71k: JPEGImages/, PairAnnotation/, ImageAnnotation/ and Segmentation/ by category, Layout/large/.

What SPair-71k's readers and the recipe `spair71k` read: the pairs whose images are both exported, and those
images, once for each category of theirs. A split whose name begins with ``tr`` becomes trn, val stays, any
other becomes test. A quirk: images keep their bytes and so their true ending, ``.png`` for `shapes`, and
coordinates may be fractions. Keypoints get numbers, as SPair-71k's have, and ``kps_names`` beside them says
which; what a data set does not tell (pose, mirror, viewpoint, ...) is ``Unspecified`` or 0; an image has one
object of a category, that of its first pair.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kvstore import masks
from kvstore.contracts import Annotations, Box, Dataset, Pair
from kvstore.errors import DatasetError
from kvstore.export import EXTENSIONS
from kvstore.images import Header
from kvstore.names import place

from ._class_maps import annotated  # noqa: TID252 - the recipes' package has no fixed name

Row = dict[str, Any]

#: Each image lists so many keypoints, null where there is none.
_KEYPOINTS = 30
_UNKNOWN = ("mirror", "viewpoint_variation", "scale_variation", "truncation", "occlusion")


def write(dataset: Dataset, folder: Path) -> None:
    """Write the pairs and their images into `folder`."""
    names = {record.name for record in dataset.images}
    pairs = [pair for pair in dataset.pairs if pair.source in names and pair.target in names]
    if not pairs:
        raise DatasetError(
            f"no pair of {dataset.name} {dataset.split} lies within the {len(names)} images to export; "
            "export more of them, or another --split"
        )
    boxes, files = _boxes(pairs), _Files(folder)
    for number, (record, (data, head, found)) in enumerate(
        zip(dataset.images, annotated(dataset), strict=True), 1
    ):
        if record.name in boxes:
            shown = files.shown[record.name] = _Shown(number, head)
            for category, box in boxes[record.name].items():
                files.add(shown, data, category, box, found)
    split = "trn" if dataset.split.startswith("tr") else "val" if dataset.split == "val" else "test"
    listed = [files.pair(pair, split) for pair in pairs]
    place(folder, "Layout", "large", f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))


def _boxes(pairs: Iterable[Pair]) -> dict[str, dict[str, Box]]:
    """Image name -> category -> box of its object, by the first pair that has it."""
    boxes: dict[str, dict[str, Box]] = defaultdict(dict)
    for pair in pairs:
        boxes[pair.source].setdefault(pair.category, pair.source_box)
        boxes[pair.target].setdefault(pair.category, pair.target_box)
    return boxes


@dataclass(frozen=True)
class _Shown:
    """An image as it is written."""

    number: int
    head: Header

    @property
    def stem(self) -> str:
        return f"{self.number:06d}"

    @property
    def file(self) -> str:
        return self.stem + EXTENSIONS[self.head.format]


@dataclass
class _Files:
    """What is written of images, and then of their pairs."""

    folder: Path
    shown: dict[str, _Shown] = field(default_factory=dict)  # image name ->
    numbers: dict[str, dict[str, str]] = field(default_factory=dict)  # category -> keypoint -> number

    def add(self, shown: _Shown, data: bytes, category: str, box: Box, found: Annotations) -> None:
        """Write an image of a category, its annotation, and its object's mask where it has one."""
        place(self.folder, "JPEGImages", category, shown.file).write_bytes(data)
        own = (thing for thing in found.objects if (thing.category, thing.box) == (category, box))
        thing = next(own, None)
        seen = {p.name: [p.x, p.y] for p in thing.keypoints if p.visible == 2} if thing else {}
        points: Row = dict.fromkeys(map(str, range(_KEYPOINTS)))
        points |= {self._number(category, name): at for name, at in seen.items()}
        row = {
            "filename": shown.file,
            "image_width": shown.head.width,
            "image_height": shown.head.height,
            "image_depth": 3,
            "category": category,
            "pose": "Unspecified",
            "bndbox": box,
            "kps": points,
            "kps_names": self._names(category, seen),
        }
        _dump(place(self.folder, "ImageAnnotation", category, f"{shown.stem}.json"), row)
        if thing and thing.mask:
            _map(thing.mask).save(place(self.folder, "Segmentation", category, f"{shown.stem}.png"))

    def pair(self, pair: Pair, split: str) -> str:
        """Write a pair; return its name."""
        source, target = self.shown[pair.source], self.shown[pair.target]
        name = f"{pair.pair_id:06d}-{source.stem}-{target.stem}:{pair.category}"
        row: Row = {"pair_id": pair.pair_id, "filename": name, "category": pair.category}
        for end, shown, box in (("src", source, pair.source_box), ("trg", target, pair.target_box)):
            row |= {f"{end}_imname": shown.file, f"{end}_imsize": [shown.head.width, shown.head.height, 3]}
            row |= {f"{end}_bndbox": box, f"{end}_pose": "Unspecified"}
        row |= {
            "src_kps": [point.source for point in pair.keypoints],
            "trg_kps": [point.target for point in pair.keypoints],
            "kps_ids": [self._number(pair.category, point.name) for point in pair.keypoints],
            "kps_names": self._names(pair.category, (point.name for point in pair.keypoints)),
        }
        path = place(self.folder, "PairAnnotation", split, f"{name}.json")
        _dump(path, row | dict.fromkeys(_UNKNOWN, 0))
        return name

    def _number(self, category: str, name: str) -> str:
        """A keypoint's number within its category, in the order in which they are met."""
        known = self.numbers.setdefault(category, {})
        return known.setdefault(name, str(len(known)))

    def _names(self, category: str, names: Iterable[str]) -> Row:
        return {self._number(category, name): name for name in names}


def _map(mask: str) -> Image.Image:
    """A palette image: 1, in red, where the mask is."""
    image = Image.fromarray(masks.to_array(mask).astype(np.uint8), "L")
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


def _dump(path: Path, row: Row) -> None:
    path.write_text(json.dumps(row))
