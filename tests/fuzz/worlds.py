"""Small data sets to break things in: exports of `shapes`, and real samples (`tests/samples.py`).

Real samples are completed with noise and lists where they lack what their recipe needs, so that they load
without a fault while nothing is broken.
"""

from __future__ import annotations

import csv
import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kvstore import datasets, recipes
from kvstore.contracts import Dataset
from kvstore.errors import KvstoreError
from kvstore.export import export
from tests import samples
from tests.tiny import noise


@dataclass(frozen=True)
class World:
    """A data set's folder, called as the world is, and how a command names what lies in it.

    annotations   the file of an export in COCO's format, relative to the folder; then there is no split
    """

    name: str
    root: Path
    split: str | None = None
    annotations: str | None = None

    @property
    def label(self) -> str:
        """Its name among all worlds."""
        return self.root.name

    def load(self) -> Dataset:
        """The data set, as it stands now."""
        if self.annotations is None:
            return datasets.load(self.name, self.root, self.split)
        return datasets.load(self.name, annotations=self.root / self.annotations, images=self.root / "images")


def worlds(folder: Path, names: list[str], *, real: bool) -> Iterator[World]:
    """Those of some data sets or labels, or all, each made in a folder of its own below `folder`."""
    makers = DRAWN | (REAL if real and samples.root().is_dir() else {})
    for label, make in makers.items():
        name = label.removeprefix("real-").partition("-")[0]
        if not names or name in names or label in names:
            yield make(name, folder / label)


# ------------------------------------------------------------------------------------------------- drawn


def _exported(name: str, root: Path) -> World:
    """Three images of `shapes`."""
    export("shapes", name, root, split="clips" if name == "davis2017" else "test", limit=3)
    return World(name, root, _first_split(name, root))


def _first_split(name: str, root: Path) -> str | None:
    """The first split of a recipe that has anything in `root`."""
    for split in recipes.load("ingest/datasets", name).SPLITS:
        try:
            datasets.load(name, root, split)
        except KvstoreError:
            continue
        return str(split)
    return None


def _tools(name: str, root: Path) -> World:
    """One file with masks and keypoints, as annotation tools write it."""
    export("shapes", "coco", root / "made", split="test", limit=3)
    shutil.move(root / "made" / "annotations" / "person_keypoints_val2017.json", root / "export.json")
    shutil.move(root / "made" / "val2017", root / "images")
    shutil.rmtree(root / "made")
    return World(name, root, annotations="export.json")


def _panoptic(name: str, root: Path) -> World:
    """Two images of two segments each, and a piece that is in none."""
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    (root / "val2017").mkdir()
    rows, ids = [], np.zeros((24, 40), np.int64)
    ids[:, :8], ids[:4, 8:] = 66051, 5
    for number in (1, 2):
        noise((40, 24), number).save(root / "val2017" / f"{number}.jpg")
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(folder / f"{number}.png")
        segments = [
            {"id": 66051, "category_id": 7, "bbox": [0, 0, 8, 24], "area": 192, "iscrowd": 0},
            {"id": 5, "category_id": 9, "bbox": [8, 0, 32, 4], "area": 128, "iscrowd": 1},
        ]
        rows.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 24} for n in (1, 2)],
        "categories": [{"id": 7, "name": "cat", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}],
        "annotations": rows,
    }
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    return World(name, root, "val2017-panoptic")


def _side_cars(name: str, root: Path) -> World:
    """Images with side-car files that annotation tools leave, of which the recipe reads none."""
    (root / "inner").mkdir(parents=True)
    for number, stem in enumerate(("a", "inner/b")):
        noise((40, 24), number).save(root / f"{stem}.jpg")
        (root / f"{stem}.json").write_text(json.dumps({"file_name": f"{stem}.jpg", "objects": [{"id": 1}]}))
        (root / f"{stem}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        (root / f"{stem}.xml").write_text(
            f"<annotation><filename>{stem}.jpg</filename><object><name>cat</name>"
            "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    return World(name, root)


# -------------------------------------------------------------------------------------------------- real


def _real_coco(name: str, root: Path) -> World:
    """With the expressions of RefCOCOs."""
    _copied(
        root, "coco", "val2017", "annotations/instances_val2017.json", "annotations/captions_val2017.json"
    )
    _copied(root, "coco", "annotations/person_keypoints_val2017.json")
    shutil.copy(samples.root() / "refcocos" / "refcocos_test.json", root / "annotations")
    return World(name, root, "val2017")


def _real_panoptic(name: str, root: Path) -> World:
    _copied(root, "coco", "annotations/panoptic_val2017.json", "annotations/panoptic_val2017")
    _copied(root, "coco", "val2017/000000142238.jpg")
    return World(name, root, "val2017-panoptic")


def _real_spair71k(name: str, root: Path) -> World:
    """Noise stands for the photographs, and a list of the pairs that are there."""
    _copied(root, "SPair-71k", "PairAnnotation", "ImageAnnotation")
    (root / "Layout" / "large").mkdir(parents=True)
    names = sorted(path.stem for path in (root / "PairAnnotation" / "test").iterdir())
    (root / "Layout" / "large" / "test.txt").write_text("".join(f"{name}\n" for name in names))
    for number, path in enumerate(sorted(root.glob("ImageAnnotation/*/*.json"))):
        told = json.loads(path.read_text())
        picture = root / "JPEGImages" / path.parent.name / told["filename"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        noise((told["image_width"], told["image_height"]), number).save(picture)
    return World(name, root, "test")


def _real_davis2017(name: str, root: Path) -> World:
    """The first two frames of each clip: binary masks, and palettes with void."""
    for clip in ("tennis", "car-shadow", "bear"):
        frames = [f"JPEGImages/480p/{clip}/{number:05d}.jpg" for number in (0, 1)]
        _copied(
            root, "DAVIS", *frames, *(f.replace("JPEGImages", "Annotations")[:-3] + "png" for f in frames)
        )
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("tennis\ncar-shadow\nbear\n")
    return World(name, root, "val")


def _real_refcoco(name: str, root: Path) -> World:
    """Objects of RefCOCOg's near relative, each with what people said of it as a ref."""
    _copied(root, "google_refexp", "train2014")
    content = json.loads((samples.root() / "google_refexp" / "instances.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"COCO_train2014_{image['file_name']}"  # as RefCOCOg's own instances.json has it
    (root / "refcocog").mkdir()
    (root / "refcocog" / "instances.json").write_text(json.dumps(content))
    images = {item["id"]: item["image_id"] for item in content["annotations"]}
    with (samples.root() / "google_refexp" / "sample_generation_val1000.csv").open() as file:
        said = {int(n): text for row in csv.DictReader(file) for n, text in _said(row) if int(n) in images}
    refs = [
        {
            "ref_id": place,
            "ann_id": number,
            "image_id": images[number],
            "split": "test",
            "sentences": [{"sent_id": place, "sent": text}],
        }
        for place, (number, text) in enumerate(sorted(said.items()))
    ]
    (root / "refcocog" / "refs(umd).p").write_bytes(pickle.dumps(refs, 0))
    return World(name, root, "refcocog-test")


def _said(row: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Annotation ids of a line of the table, with an expression each."""
    for place in range(5):
        for number in re.findall(r"_ann_(\d+)_", row[f"image_url_mask_{place}"]):
            yield number, row[f"descrip_{place}_0"]


def _real_pascal5i(name: str, root: Path) -> World:
    """The one image that is there, with the XML that VOC has beside its masks."""
    _copied(root, "VOCdevkit/VOC2012", "JPEGImages", "SegmentationClassAug")
    (root / "fold2.txt").write_text("2007_000129__15\n")
    (root / "Annotations").mkdir()
    shutil.copy(
        samples.root() / "VOCdevkit/VOC2007/Annotations/000005.xml", root / "Annotations/2007_000129.xml"
    )
    return World(name, root, "fold2")


def _real_folder(name: str, root: Path) -> World:
    """VOC 2007's images beside its XML."""
    _copied(root, "VOCdevkit/VOC2007", "JPEGImages", "Annotations")
    for path in (root / "Annotations").iterdir():
        shutil.copy(path, root / "JPEGImages")
    return World(name, root)


def _real_msrc(name: str, root: Path) -> World:
    """A group of one class, with binary masks."""
    names = [f"cow/{place}5_{n}_s.bmp" for n in (1, 2, 3) for place in ("", "GroundTruth/")]
    _copied(root, "msrc", *names)
    return World(name, root)


def _real_msrc_colours(name: str, root: Path) -> World:
    """Maps of many classes as colours."""
    _copied(root, "msrc_v2", "Images", "GroundTruth")
    return World(name, root)


def _copied(root: Path, sample: str, *places: str) -> None:
    """Files and folders of a sample, writable."""
    for place in places:
        source = samples.root() / sample / place
        for file in [source] if source.is_file() else (path for path in source.rglob("*") if path.is_file()):
            made = root / file.relative_to(samples.root() / sample)
            made.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, made)


#: Label -> what makes its world from the data set's name, which is the label's, and a folder.
DRAWN: dict[str, Callable[[str, Path], World]] = {
    "coco": _exported,
    "coco-panoptic": _panoptic,
    "coco-export": _tools,
    "spair71k": _exported,
    "refcoco": _exported,
    "davis2017": _exported,
    "pascal5i": _exported,
    "imagenet_s": _exported,
    "msrc": _exported,
    "folder": _side_cars,
}
REAL: dict[str, Callable[[str, Path], World]] = {
    "real-coco": _real_coco,
    "real-coco-panoptic": _real_panoptic,
    "real-spair71k": _real_spair71k,
    "real-davis2017": _real_davis2017,
    "real-refcoco": _real_refcoco,
    "real-pascal5i": _real_pascal5i,
    "real-folder": _real_folder,
    "real-msrc": _real_msrc,
    "real-msrc-colours": _real_msrc_colours,
}
