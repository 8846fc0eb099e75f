"""RefCOCO against pycocotools on real objects and expressions, and on files made by hand."""

from __future__ import annotations

import csv
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, recipes
from kvstore.contracts import Annotations, Dataset
from kvstore.errors import DatasetError
from kvstore.images import decode
from kvstore.masks import from_array
from tests import samples

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


# ---------------------------------------------------------------------- real objects and expressions (Google)


def human(folder: Path) -> dict[int, str]:
    """What people said of the objects here, by annotation id: the samples' own table of real expressions."""
    found = {}
    with (folder / "sample_generation_val1000.csv").open() as file:
        for row in csv.DictReader(file):
            for place in range(5):
                picture, number = re.findall(r"coco_(\d+)_ann_(\d+)_", row[f"image_url_mask_{place}"])[0]
                column = 0 if row[f"descrip_type_{place}_0"] == "GT" else 1
                if list((folder / "train2014").glob(f"*_{int(picture):012d}.jpg")):
                    found[int(number)] = row[f"descrip_{place}_{column}"]
    return found


@pytest.mark.parametrize("form", ["0", "1", "2", "json"])
def test_real_objects_equal_pycocotools_and_expressions_the_table(tmp_path: Path, form: str) -> None:
    from pycocotools.coco import COCO

    folder = samples.folder("google_refexp")
    (tmp_path / "train2014").symlink_to(folder / "train2014")
    (tmp_path / "refcocog").mkdir()
    content = json.loads((folder / "instances.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"COCO_train2014_{image['file_name']}"  # as RefCOCOg's own instances.json has it
    (tmp_path / "refcocog" / "instances.json").write_text(json.dumps(content))
    official, expected = COCO(str(tmp_path / "refcocog" / "instances.json")), human(folder)
    refs = [
        ref(number, official.anns[number]["image_id"], text, split="test")
        for number, text in expected.items()
    ]
    if form == "json":
        (tmp_path / "refcocog" / "refs(umd).json").write_text(json.dumps(refs))
    else:
        (tmp_path / "refcocog" / "refs(umd).p").write_bytes(pickle.dumps(refs, int(form)))
    dataset = datasets.load("refcoco", tmp_path, "refcocog-test")
    assert len(dataset.images) == 3
    told = {}
    for record, image in zip(dataset.images, annotated(dataset), strict=True):
        told |= dict(said(image))
        assert {found.object_id for found in image.objects} == dict(said(image)).keys()
        for found in image.objects:
            theirs = official.anns[found.object_id]
            assert record.name == f"train2014/{official.imgs[theirs['image_id']]['file_name']}"
            assert found.category == official.cats[theirs["category_id"]]["name"]
            x, y, width, height = theirs["bbox"]
            assert found.box == pytest.approx((x, y, x + width, y + height))
            assert found.area == theirs["area"]
            np.testing.assert_array_equal(pixels(found.mask), official.annToMask(theirs).astype(bool))
    assert told == expected
    assert len(told) == 4


# --------------------------------------------------------------------------------------------- made by hand


def ref(ann_id: Any, image_id: Any, *texts: str, split: str = "val") -> dict[str, Any]:
    """A record of ``refs(...).p``; what was typed (`raw`) is not what is said (`sent`)."""
    sentences = [
        {"tokens": text.split(), "raw": f"{text.upper()}!", "sent_id": place, "sent": text}
        for place, text in enumerate(texts)
    ]
    name = f"COCO_train2014_{image_id:012d}_{ann_id}.jpg"
    shared = {"ann_id": ann_id, "image_id": image_id, "split": split, "sentences": sentences}
    return shared | {"ref_id": 0, "file_name": name, "category_id": 7, "sent_ids": list(range(len(texts)))}


def instance(number: int, image: int, segmentation: Any = None, **instead: Any) -> dict[str, Any]:
    shared = {
        "id": number,
        "image_id": image,
        "category_id": 7,
        "bbox": [4, 2, 10, 6],
        "area": 60,
        "iscrowd": 0,
    }
    return shared | {"segmentation": segmentation or [[4, 2, 14, 2, 14, 8, 4, 8]]} | instead


REFS = [
    ref(33, 3, "the third", "in front"),
    ref(21, 2, "left cat"),
    ref(11, 1, "a player", split="testA"),
    ref(20, 2, "right cat", "cat by the wall"),
    ref(40, 4, "to learn from", split="train"),
]


def make(root: Path, name: str = "refcoco", refs: Any = REFS, by: str = "unc", **instead: Any) -> Path:
    """A data set of four 40 x 24 images, listed as 4, 2, 3, 1."""
    (root / "train2014").mkdir(parents=True, exist_ok=True)
    (root / name).mkdir(exist_ok=True)
    images = []
    for number in (4, 2, 3, 1):
        file = f"COCO_train2014_{number:012d}.jpg"
        Image.new("RGB", (40, 24), (number, 0, 0)).save(root / "train2014" / file)
        images.append({"id": number, "file_name": file, "width": 40, "height": 24})
    objects = [instance(n, n // 10) for n in (40, 20, 21, 22, 33, 11)]
    content = {"images": images, "categories": [{"id": 7, "name": "cat"}], "annotations": objects} | instead
    (root / name / "instances.json").write_text(json.dumps(content))
    (root / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, 2))
    return root


def names(dataset: Dataset) -> list[int]:
    return [int(Path(record.name).stem[-12:]) for record in dataset.images]


def test_a_split_has_the_images_and_objects_that_its_refs_mean(tmp_path: Path) -> None:
    dataset = datasets.load("refcoco", make(tmp_path))
    assert (dataset.split, names(dataset)) == ("refcoco-val", [2, 3])  # in the order of instances.json
    second, third = annotated(dataset)
    assert [found.object_id for found in second.objects] == [20, 21]
    assert said(second) == [(21, "left cat"), (20, "right cat"), (20, "cat by the wall")]
    assert said(third) == [(33, "the third"), (33, "in front")]
    assert names(datasets.load("refcoco", tmp_path, "refcoco-testA")) == [1]
    assert names(datasets.load("refcoco", tmp_path, "refcoco-train")) == [4]


@pytest.mark.parametrize(
    ("split", "folder", "by"),
    [
        ("refcoco-val", "refcoco", "unc"),
        ("refcoco+-val", "refcoco+", "unc"),
        ("refcocog-val", "refcocog", "umd"),
        ("refcoco-google-val", "refcoco", "google"),
        ("refcocog-google-val", "refcocog", "google"),
    ],
)
def test_each_split_has_its_own_files(tmp_path: Path, split: str, folder: str, by: str) -> None:
    make(tmp_path, folder, by=by)
    assert names(datasets.load("refcoco", tmp_path, split)) == [2, 3]
    others = {"refcoco-val", "refcoco+-val", "refcocog-val", "refcoco-google-val", "refcocog-google-val"}
    for other in others - {split}:
        with pytest.raises(DatasetError, match=r"no .*Get it"):
            datasets.load("refcoco", tmp_path, other)


def test_parts_are_those_that_the_data_set_has() -> None:
    splits = recipes.load("ingest/datasets", "refcoco").SPLITS
    parts = {split for split in splits if "google" not in split}
    sides = ("val", "testA", "testB", "train")
    expected = {f"{name}-{side}" for name in ("refcoco", "refcoco+") for side in sides}
    assert parts == expected | {"refcocog-val", "refcocog-test", "refcocog-train"}
    assert splits[0] == "refcoco-val"


def test_photographs_may_lie_in_either_folder_and_are_the_same(tmp_path: Path) -> None:
    first = datasets.load("refcoco", make(tmp_path))
    before = datasets.fingerprint(first)
    (tmp_path / "images").mkdir()
    (tmp_path / "train2014").rename(tmp_path / "images" / "train2014")
    second = datasets.load("refcoco", tmp_path)
    assert [record.name for record in second.images] == [record.name for record in first.images]
    assert datasets.fingerprint(second) == before
    assert [decode(record.read()).width for record in second.images] == [40, 40]


def test_json_with_the_same_records_is_the_same(tmp_path: Path) -> None:
    expected = annotated(datasets.load("refcoco", make(tmp_path)))
    (tmp_path / "refcoco" / "refs(unc).p").unlink()
    (tmp_path / "refcoco" / "refs(unc).json").write_text(json.dumps(REFS))
    assert annotated(datasets.load("refcoco", tmp_path)) == expected


def square(x0: int, x1: int) -> Array:
    painted = np.zeros((24, 40), dtype=bool)
    painted[2:8, x0:x1] = True
    return painted


def runs(painted: Array) -> list[int]:
    """Run lengths by hand: column by column, the first of what is outside."""
    flat = painted.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    return np.diff([0, *edges, flat.size]).tolist()


def test_every_form_of_a_mask_is_read(tmp_path: Path) -> None:
    expected = square(4, 14)
    two = square(4, 14) | square(20, 30)
    packed = json.loads(from_array(expected))
    plain = {"size": [24, 40], "counts": runs(expected)}
    forms = [
        ([[4, 2, 14, 2, 14, 8, 4, 8]], expected),
        ([[4, 2, 14, 2, 14, 8, 4, 8], [20, 2, 30, 2, 30, 8, 20, 8]], two),
        (packed, expected),
        (plain, expected),
        ([packed], expected),  # a list of run lengths: as refer.py takes them
        ([packed, json.loads(from_array(square(20, 30)))], two),
    ]
    objects = [instance(n, 2, form, iscrowd=int(form is plain)) for n, (form, _) in enumerate(forms, 1)]
    make(tmp_path, refs=[ref(n, 2, "x") for n in range(1, len(forms) + 1)], annotations=objects)
    (found,) = annotated(datasets.load("refcoco", tmp_path))
    assert len(found.objects) == len(forms)
    for thing, (form, painted) in zip(found.objects, forms, strict=True):
        np.testing.assert_array_equal(pixels(thing.mask), painted)
        assert thing.crowd == (form is plain)


def test_a_list_of_run_lengths_that_do_not_fit_the_image_is_no_mask(tmp_path: Path) -> None:
    small = {"size": [12, 40], "counts": [480]}
    objects = [instance(1, 2, [small, json.loads(from_array(square(4, 14)))])]
    make(tmp_path, refs=[ref(1, 2, "x")], annotations=objects)
    (found,) = annotated(datasets.load("refcoco", tmp_path))
    assert [thing.mask for thing in found.objects] == [None]


# ---------------------------------------------------------------------------------- what is missing or wrong


def test_what_is_missing_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no .*refs\(unc\)\.p .*refcoco\.zip && unzip refcoco\.zip -d"):
        datasets.load("refcoco", tmp_path)
    with pytest.raises(DatasetError, match=r"no .*refs\(unc\)\.p .*/refcoco\+\.zip"):
        datasets.load("refcoco", tmp_path, "refcoco+-testB")
    make(tmp_path)
    shutil.rmtree(tmp_path / "train2014")
    with pytest.raises(
        DatasetError, match=r"neither .*/train2014 nor .*/images/train2014 .*zips/train2014\.zip"
    ):
        datasets.load("refcoco", tmp_path)
    (tmp_path / "refcoco" / "instances.json").unlink()
    with pytest.raises(DatasetError, match=r"no .*instances\.json .*refcoco\.zip"):
        datasets.load("refcoco", tmp_path)


@pytest.mark.parametrize(
    ("refs", "told"),
    [
        ({"refs": []}, "no list of refs but a dict"),
        ([3], r"\[0\] has no usable 'ann_id'"),
        ([ref(20, 2, "x") | {"ann_id": [1]}], r"\[0\] has no usable 'ann_id'"),
        ([{k: v for k, v in ref(20, 2, "x").items() if k != "split"}], r"\[0\] has no usable 'split'"),
        ([ref(20, 2, "x"), ref(99, 2, "x")], r"\[1\] refers to object 99 of image 2, which .* does not have"),
        ([ref(20, 3, "x")], r"\[0\] refers to object 20 of image 3"),
        ([ref(20, 2, "x") | {"sentences": "x"}], r"\[0\] has no list 'sentences'"),
        ([ref(20, 2, "x") | {"sentences": [{"raw": "x"}]}], r"\[0\]\.sentences\[0\] has no usable 'sent'"),
        ([ref(20, 2, "x", split="testB")], "no refs of the split 'val'"),
    ],
)
def test_malformed_refs_are_told_with_the_file(tmp_path: Path, refs: Any, told: str) -> None:
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p.*" + told):
        datasets.load("refcoco", make(tmp_path, refs=refs))


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    trace = tmp_path / "trace"
    content = f"cos\nsystem\n(S'touch {trace}'\ntR.".encode()
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(content)
    with pytest.raises(DatasetError, match=r"refs\(unc\)\.p holds GLOBAL at byte 0"):
        datasets.load("refcoco", tmp_path)
    assert not trace.exists()


# ------------------------------------------------------------------------------------ nothing without a word


def noted(notes: Any) -> set[tuple[str, str, int, bool]]:
    return {(note.kind, note.place, note.count, note.lost) for note in notes}


@pytest.mark.parametrize("ending", [".p", ".json"])
def test_what_is_no_expression_is_told_and_never_none(tmp_path: Path, ending: str) -> None:
    texts = [None, "  ", 7, ["x"], "left \ud83d cat"]
    sentences = [{"sent": text, "sent_id": place} for place, text in enumerate(texts)]
    refs = [
        ref(20, 2, "x") | {"sentences": sentences},
        ref(21, 2),
        ref(21, 2, "right") | {"split": "valid"},
        ref(33, 3, "the third"),
        ref(33, 3, "the third"),
        ref(33, 3, "in front") | {"ann_id": "33", "image_id": "3"},
    ]
    make(tmp_path, refs=refs)
    if ending == ".json":
        (tmp_path / "refcoco" / "refs(unc).p").unlink()
        (tmp_path / "refcoco" / "refs(unc).json").write_text(json.dumps(refs))
    dataset = datasets.load("refcoco", tmp_path)
    assert [said(image) for image in annotated(dataset)] == [
        [(20, "left \\ud83d cat")],
        [(33, "the third"), (33, "in front")],
    ]
    file = f"refs(unc){ending}"
    assert noted(dataset.notes) == {
        ("expressions that are no text", f"{file}, [0].sentences[0]", 3, True),
        ("expressions without a word", f"{file}, [0].sentences[1]", 1, True),
        ("refs without a sentence", f"{file}, [1]", 1, True),
        ("refs of no split that the data set has", f"{file}, [2]", 1, True),
        ("refs listed twice, taken once", f"{file}, [4]", 1, False),
        ("refs whose ids are written as text", f"{file}, [5]", 1, False),
    }


def test_a_sentence_listed_twice_is_taken_once_and_two_that_say_the_same_are_two(tmp_path: Path) -> None:
    sentences = [{"sent_id": number, "sent": "left cat"} for number in (7, 7, 8)]
    make(tmp_path, refs=[ref(20, 2) | {"sentences": sentences}])
    dataset = datasets.load("refcoco", tmp_path)
    assert [said(image) for image in annotated(dataset)] == [[(20, "left cat"), (20, "left cat")]]
    told = ("sentences listed twice, taken once", "refs(unc).p, [0].sentences[1]", 1, False)
    assert noted(dataset.notes) == {told}


def test_expressions_for_an_object_without_a_place_are_told(tmp_path: Path) -> None:
    objects = [instance(20, 2), instance(21, 2, segmentation=[], bbox=[None] * 4)]
    objects[1]["segmentation"] = None
    make(tmp_path, refs=[ref(20, 2, "a"), ref(21, 2, "b", "c")], annotations=objects)
    (found,) = annotated(datasets.load("refcoco", tmp_path))
    assert said(found) == [(20, "a")]
    lost = ("expressions for objects that have no place", "COCO_train2014_000000000002.jpg", 2, True)
    assert lost in noted(found.notes)


def test_notes_of_instances_are_told(tmp_path: Path) -> None:
    make(tmp_path, annotations=[instance(20, 2), instance(21, 2), instance(33, 3), instance(50, 99)])
    assert any(note.lost for note in datasets.load("refcoco", tmp_path).notes)
