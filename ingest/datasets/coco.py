"""COCO 2017: photographs of everyday scenes with objects, person keypoints and captions (cocodataset.org).

Under --root lie ``val2017/`` and ``annotations/instances_val2017.json``, and where wanted
``captions_val2017.json``, ``person_keypoints_val2017.json`` and ``refcocos_test.json`` (the RefCOCOs
expressions, github.com/kuoyang1999/refcocos-annotator); the same for train2017. The images are those that the
instances file lists, in its order. The split ``val2017-panoptic`` needs ``panoptic_val2017.json`` and the
folder ``panoptic_val2017/`` instead: its objects are the segments, stuff such as sky and grass among them. A
quirk: a crowd's `area` often differs from its mask's pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from functools import partial
from pathlib import Path

from kvstore.contracts import Annotations, Dataset, Expression, ImageRecord
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError

from . import _panoptic  # noqa: TID252 - the recipes' package has no fixed name
from ._coco_json import Index, Row, box_of, listed, numbers, numbers_of, object_of, read_json, turned  # noqa: TID252

SPLITS = ("val2017", "train2017", "val2017-panoptic", "train2017-panoptic")

_NEAR = 0.01  # RefCOCOs gives an object's box by its corners, with the last digits rounded


def load(root: Path | None, split: str | None) -> Dataset:
    """COCO's `split` under `root`; `DatasetError` says what is missing or malformed."""
    root, split = root or Path("data/coco"), split or SPLITS[0]
    year, panoptic = split.removesuffix("-panoptic"), split.endswith("-panoptic")
    if not (root / year).is_dir():
        raise DatasetError(_where_to_get(root / year, root, f"zips/{year}.zip"))
    return _panoptic.load(root, year) if panoptic else _instances(root, year)


def _instances(root: Path, split: str) -> Dataset:
    notes = root / "annotations"
    instances = notes / f"instances_{split}.json"
    if not instances.is_file():
        raise DatasetError(_where_to_get(instances, root, "annotations/annotations_trainval2017.zip"))
    wanted = [f"captions_{split}.json", f"person_keypoints_{split}.json", "refcocos_test.json"]
    captions, people, referring = (path if (path := notes / name).is_file() else None for name in wanted)
    index = Index.read(instances, captions, people)
    said = _referring(referring, split, index) if referring else {}
    images = Lazy(len(index.images), partial(_record, root / split, index, said))
    sources = (instances, *(path for path in (captions, people, referring) if path))
    return Dataset("coco", split, images, root, sources, categories=numbers_of(index.categories))


def _where_to_get(missing: Path, root: Path, archive: str) -> str:
    name = archive.rpartition("/")[2]
    return (
        f"coco: no {missing} (looked for it under --root {root}). "
        f"Get it: curl -O http://images.cocodataset.org/{archive} && unzip {name} -d {root}"
    )


def _record(folder: Path, index: Index, said: dict[Hashable, list[Expression]], place: int) -> ImageRecord:
    image = index.images[place]
    name = image["file_name"]
    annotate = partial(_annotations, index, image, tuple(said.get(image["id"], ())))
    return ImageRecord(storable(f"{folder.name}/{name}"), read_file(folder, name), annotate)


def _annotations(
    index: Index, image: Row, said: tuple[Expression, ...], width: int, height: int, orientation: int
) -> Annotations:
    """All that the files say of one image, in upright pixels."""
    size, turn = turned(image, width, height, orientation)
    objects = (object_of(index, item, size, turn) for item in index.objects.get(image["id"], ()))
    captions = tuple(index.captions.get(image["id"], ()))
    return Annotations(tuple(found for found in objects if found), captions, said)


# ----------------------------------------------------------------------------- RefCOCOs: expressions by box


def _referring(path: Path, split: str, index: Index) -> dict[Hashable, list[Expression]]:
    """RefCOCOs' expressions by image id, those left out that fit no object (``empty_case``)."""
    found: dict[Hashable, list[Expression]] = {}
    ids = {f"{split}/{image['file_name']}": image["id"] for image in index.images}
    for place, record in _records(path):
        image = ids.get(record["image"])
        if image is not None:
            meant = _meant(record, index.objects.get(image, ()))
            if meant is None:
                raise DatasetError(
                    f"{path}: [{place}] means the box {record['solution']} of {record['image']}, which no "
                    "object there has; it is not of these instances: move the file away, or get it again"
                )
            found.setdefault(image, []).append(Expression(meant, str(record["normal_caption"])))
    return found


def _records(path: Path) -> Iterator[tuple[int, Row]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise DatasetError(f"{path} holds no RefCOCOs records: its top level is no list")
    for place, record in enumerate(listed(path, "", content, "image", "normal_caption", "solution")):
        kinds = record.get("categories")
        if not (isinstance(kinds, dict) and kinds.get("empty_case")):
            yield place, record


def _meant(record: Row, objects: Iterable[Row]) -> int | None:
    """The id of the object that has the record's box, its corners."""
    corners = numbers(record["solution"])
    for item in objects:
        box = box_of(item.get("bbox"))
        if box and len(corners) == 4 and max(abs(a - b) for a, b in zip(box, corners, strict=True)) <= _NEAR:
            return int(item["id"])
    return None
