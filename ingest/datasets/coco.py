"""COCO 2017: photographs of everyday scenes with objects, person keypoints and captions (cocodataset.org).

Under --root lie ``val2017/`` and ``annotations/instances_val2017.json``, and where wanted
``captions_val2017.json``, ``person_keypoints_val2017.json`` and ``refcocos_test.json`` (the RefCOCOs
expressions, github.com/kuoyang1999/refcocos-annotator); the same for train2017. The images are those that the
instances file lists, in its order. The split ``val2017-panoptic`` needs ``panoptic_val2017.json`` and the
folder ``panoptic_val2017/`` instead: its objects are the segments, stuff such as sky and grass among them.

``--annotations FILE --images DIR`` reads any file in COCO's format instead, as LVIS, Roboflow, CVAT, Label
Studio, Datumaro and FiftyOne write it; the split is then called as the file. A quirk: a crowd's `area` often
differs from its mask's pixels.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kvstore.contracts import Annotations, Dataset, Expression, ImageRecord
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError
from kvstore.notes import Notes

from . import _file_names, _panoptic, _refcocos  # noqa: TID252 - the recipes' package has no fixed name
from ._coco_json import Index, Row, numbers_of  # noqa: TID252
from ._coco_objects import object_of, turned  # noqa: TID252
from ._coco_values import Id  # noqa: TID252

SPLITS = ("val2017", "train2017", "val2017-panoptic", "train2017-panoptic")


def load(
    root: Path | None, split: str | None, annotations: Path | None = None, images: Path | None = None
) -> Dataset:
    """COCO's `split` under `root`, or an export; `DatasetError` says what is missing or malformed."""
    if annotations is not None:
        return _export(annotations, images or annotations.parent)
    root, split = root or Path("data/coco"), split or SPLITS[0]
    year, panoptic = split.removesuffix("-panoptic"), split.endswith("-panoptic")
    if not (root / year).is_dir():
        raise DatasetError(_where_to_get(root / year, root, f"zips/{year}.zip"))
    return _panoptic.load(root, year) if panoptic else _instances(root, year)


def _instances(root: Path, split: str) -> Dataset:
    folder = root / "annotations"
    instances = folder / f"instances_{split}.json"
    if not instances.is_file():
        raise DatasetError(_where_to_get(instances, root, "annotations/annotations_trainval2017.zip"))
    wanted = [f"captions_{split}.json", f"person_keypoints_{split}.json", "refcocos_test.json"]
    captions, people, referring = (path if (path := folder / name).is_file() else None for name in wanted)
    index = Index.read(instances, captions, people)
    said = _refcocos.read(referring, split, index) if referring else {}
    images = Lazy(len(index.images), partial(_record, root / split, index, said))
    sources = (instances, *(path for path in (captions, people, referring) if path))
    categories = numbers_of(index.categories)
    return Dataset("coco", split, images, root, sources, categories=categories, notes=list(index.notes))


def _export(annotations: Path, images: Path) -> Dataset:
    """What an annotation tool wrote: one file, and a folder in which the images lie."""
    if not images.is_dir():
        raise DatasetError(f"coco: no folder {images} of images; name it with --images")
    index = Index.read(annotations, None, None, _file_names.name_of)
    files = _file_names.FileNames(images, [image["file_name"] for image in index.images])
    records = Lazy(len(index.images), partial(_exported, files, index))
    categories, notes = numbers_of(index.categories), list(index.notes)
    return Dataset(
        "coco", annotations.stem, records, images, (annotations,), categories=categories, notes=notes
    )


def _where_to_get(missing: Path, root: Path, archive: str) -> str:
    name = archive.rpartition("/")[2]
    return (
        f"coco: no {missing} (looked for it under --root {root}). "
        f"Get it: curl -O http://images.cocodataset.org/{archive} && unzip {name} -d {root}"
    )


def _record(folder: Path, index: Index, said: dict[Id, list[Expression]], place: int) -> ImageRecord:
    image = index.images[place]
    name = image["file_name"]
    annotate = partial(_annotations, index, image, tuple(said.get(image["id"], ())))
    return ImageRecord(storable(f"{folder.name}/{name}"), read_file(folder, name), annotate)


def _exported(files: _file_names.FileNames, index: Index, place: int) -> ImageRecord:
    image = index.images[place]
    name = image["file_name"]
    annotate = partial(_annotations_of_export, files, index, image)
    return ImageRecord(storable(name), partial(files.read, name), annotate)


def _annotations_of_export(
    files: _file_names.FileNames, index: Index, image: Row, width: int, height: int, orientation: int
) -> Annotations:
    notes = Notes()
    if files.find(image["file_name"]) != image["file_name"]:
        notes.add("images found by the end of their file names", image["file_name"], lost=False)
    return _annotations(index, image, (), width, height, orientation, notes)


def _annotations(
    index: Index,
    image: Row,
    said: tuple[Expression, ...],
    width: int,
    height: int,
    orientation: int,
    notes: Notes | None = None,
) -> Annotations:
    """All that the files say of one image, in upright pixels."""
    notes = notes or Notes()
    size, turn = turned(image, width, height, orientation)
    found = (object_of(index, item, size, turn, notes) for item in index.objects.get(image["id"], ()))
    objects = tuple(thing for thing in found if thing)
    captions = tuple(index.captions.get(image["id"], ()))
    return Annotations(objects, captions, said, notes=tuple(notes))
