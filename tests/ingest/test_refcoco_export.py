"""Data sets with expressions written as RefCOCO: read back by the recipe, and as RefCOCO's own code reads."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, recipes
from kvstore.contracts import Annotations, Dataset, Expression, ImageRecord, Object
from kvstore.errors import DatasetError
from kvstore.export import export
from kvstore.images import decode
from kvstore.masks import from_array
from tests.ingesting import assert_clean, ingest, query

Array = np.ndarray[Any, Any]


def pixels(mask: str | None) -> Array:
    from pycocotools import mask as coco

    assert mask
    return coco.decode(json.loads(mask)).astype(bool)


def annotated(dataset: Dataset) -> list[Annotations]:
    found = []
    for record in dataset.images:
        image = decode(record.read())
        found.append(record.annotate(image.width, image.height, image.orientation))
    return found


def said(annotations: Annotations) -> list[tuple[int, str]]:
    return [(expression.object_id, expression.text) for expression in annotations.expressions]


@pytest.fixture(scope="module", params=["test", "train"])
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Dataset]:
    """Where drawn scenes were written as RefCOCO, the split's name there, and what was written."""
    root = tmp_path_factory.mktemp("exports") / "refcoco"
    dataset = export("shapes", "refcoco", root, split=request.param, limit=12)
    return root, "refcoco-train" if request.param == "train" else "refcoco-val", dataset


def told(annotations: Annotations) -> list[tuple[Any, ...]]:
    """What is said of each object referred to, without its number."""
    texts: dict[int, list[str]] = {}
    for number, text in said(annotations):
        texts.setdefault(number, []).append(text)
    objects = [found for found in annotations.objects if found.object_id in texts]
    return [(o.category, o.box, o.area, o.crowd, o.mask, texts[o.object_id]) for o in objects]


def test_the_recipe_reads_back_what_was_drawn(exported: tuple[Path, str, Dataset]) -> None:
    root, split, dataset = exported
    read = datasets.load("refcoco", root, split)
    referring = [
        (record, image)
        for record, image in zip(dataset.images, annotated(dataset), strict=True)
        if image.expressions
    ]
    assert len(read.images) == len(referring) > 6
    for record, (drawn, ours), theirs in zip(read.images, referring, annotated(read), strict=True):
        assert record.read() == drawn.read()
        assert told(theirs) == told(ours)
        assert sorted(text for _, text in said(theirs)) == sorted(text for _, text in said(ours))


def test_the_files_are_what_the_data_sets_own_code_reads(exported: tuple[Path, str, Dataset]) -> None:
    """As refer.py goes about it: refs by pickle, masks by decoding the list that `segmentation` is."""
    from pycocotools import mask as coco

    root, split, dataset = exported
    content = (root / "refcoco" / "refs(unc).p").read_bytes()
    assert content[:2] == b"\x80\x02"
    refs = pickle.loads(content)  # noqa: S301 - our own
    instances = json.loads((root / "refcoco" / "instances.json").read_text())
    images, objects, kinds = (
        {item["id"]: item for item in instances[key]} for key in ("images", "annotations", "categories")
    )
    drawn = [a for a in annotated(dataset) if a.expressions]
    assert {one["split"] for one in refs} == {split.removeprefix("refcoco-")}
    assert [one["ref_id"] for one in refs] == list(range(len(refs)))
    numbers = [sentence["sent_id"] for one in refs for sentence in one["sentences"]]
    assert numbers == [number for one in refs for number in one["sent_ids"]] == list(range(len(numbers)))
    for one in refs:
        thing, image = objects[one["ann_id"]], images[one["image_id"]]
        assert (thing["image_id"], thing["category_id"]) == (one["image_id"], one["category_id"])
        assert image["file_name"] == f"COCO_train2014_{image['id']:012d}.png"
        assert one["file_name"] == f"COCO_train2014_{image['id']:012d}_{one['ann_id']}.png"
        ours = drawn[image["id"] - 1]
        texts = [sentence["sent"] for sentence in one["sentences"]]
        assert [sentence["tokens"] for sentence in one["sentences"]] == [text.split() for text in texts]
        (meant,) = {number for number, text in said(ours) if text in texts}
        (object_,) = [found for found in ours.objects if found.object_id == meant]
        mask = np.sum(coco.decode(thing["segmentation"]), axis=2)
        np.testing.assert_array_equal(mask, pixels(object_.mask))
        assert mask.shape == (image["height"], image["width"])
        assert kinds[thing["category_id"]]["name"] == object_.category


def test_an_ingest_of_the_export_has_the_expressions_of_an_ingest_of_shapes(tmp_path: Path) -> None:
    export("shapes", "refcoco", tmp_path / "data", limit=3)
    store, drawn = ingest(tmp_path / "store", tmp_path, dataset="shapes", limit=3)
    _, read = ingest(tmp_path / "store", tmp_path / "data", dataset="refcoco")
    assert (drawn.images, drawn.quarantined, read.quarantined) == (3, 0, 0)
    told: dict[str, set[Any]] = {}
    joined = "expression e join object o using (dataset_id, image_id, object_id)"
    for dataset, *row in query(store, f"select dataset_id, image_id, number, text, mask from {joined}"):
        told.setdefault(dataset, set()).add(str(row))
    ours, theirs = told.values()
    assert ours == theirs
    assert len(ours) > 3
    assert_clean(store)


def written(folder: Path, split: str, *images: tuple[bytes, Annotations]) -> Path:
    records = [
        ImageRecord(f"{place}.jpg", lambda data=data: data, lambda w, h, o, found=found: found)
        for place, (data, found) in enumerate(images)
    ]
    folder.mkdir()
    recipes.load("ingest/exports", "refcoco").write(Dataset("made", split, records), folder)
    return folder


def picture(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (40, 24), (90, 40, orientation)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_and_boxes_stay_where_they_are_in_turned_images(tmp_path: Path, orientation: int) -> None:
    width, height = (24, 40) if orientation >= 5 else (40, 24)
    painted = np.zeros((height, width), dtype=bool)
    painted[3:9, 5:7] = True
    thing = Object(8, "cat", (5.0, 3.0, 7.0, 9.0), 12.0, mask=from_array(painted))
    apart = Object(9, "cat", (0.0, 0.0, 1.0, 1.0), 1.0)
    found = Annotations((apart, thing), expressions=(Expression(8, "the cat"),))
    root = written(tmp_path / "x", "", (picture(orientation), Annotations()), (picture(orientation), found))
    (back,) = annotated(datasets.load("refcoco", root))
    assert told(back) == [("cat", (5.0, 3.0, 7.0, 9.0), 12.0, False, thing.mask, ["the cat"])]


@pytest.mark.parametrize(
    ("split", "part"),
    [
        ("test", "val"),
        ("", "val"),
        ("train2017", "train"),
        ("refcoco-testA", "testA"),
        ("refcoco+-testB", "testB"),
    ],
)
def test_splits_keep_their_names_where_refcoco_has_them(tmp_path: Path, split: str, part: str) -> None:
    found = Annotations((Object(1, "cat", (0, 0, 4, 4), 16),), expressions=(Expression(1, "the cat"),))
    root = written(tmp_path / "x", split, (picture(1), found))
    assert len(datasets.load("refcoco", root, f"refcoco-{part}").images) == 1


def test_a_data_set_without_expressions_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"folder .*has no expressions"):
        export("folder", "refcoco", tmp_path / "new", root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
