"""COCO's panoptic segments against the official conversion of real ones, and on files made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, masks
from kvstore.contracts import Note, Object
from kvstore.errors import DatasetError, ImageError
from tests import samples


def pixels(found: Object) -> np.ndarray:
    from pycocotools import mask as coco

    assert found.mask
    return coco.decode(json.loads(found.mask)).astype(bool)


# ------------------------------------------------------------------------------------------ real samples


def test_real_segments_equal_the_official_conversion_to_run_lengths() -> None:
    root = samples.folder("coco")
    official = json.loads((root / "annotations" / "panoptic_coco_detection_format_val2017.json").read_text())
    names = {kind["id"]: kind["name"] for kind in official["categories"]}
    dataset = datasets.load("coco", root, "val2017-panoptic")
    (record,) = dataset.images
    assert record.name == "val2017/000000142238.jpg"
    made = record.annotate(640, 427, 1)
    assert len(made.objects) == len(official["annotations"]) == 18
    covered = np.zeros((427, 640), dtype=int)
    for found, theirs in zip(made.objects, official["annotations"], strict=True):
        assert (found.category, found.area) == (names[theirs["category_id"]], theirs["area"])
        x, y, width, height = theirs["bbox"]
        assert found.box == (x, y, x + width, y + height)
        assert found.crowd == bool(theirs["iscrowd"])
        np.testing.assert_array_equal(pixels(found), masks.to_array(json.dumps(theirs["segmentation"])))
        covered += pixels(found)
    assert {found.category for found in made.objects} >= {"person", "tree-merged", "sky-other-merged"}
    assert made.void
    np.testing.assert_array_equal(masks.to_array(made.void), covered == 0)
    assert masks.area(made.void) == 2712  # black pixels of the PNG
    assert len(dataset.categories) == 133
    assert made.objects[0].object_id == 142238 * 2**24 + 3937500


def test_real_segments_of_another_image_have_the_areas_that_they_say(tmp_path: Path) -> None:
    folder = samples.folder("coco_hf_fixture")
    kinds = json.loads((samples.folder("coco") / "annotations" / "panoptic_val2017.json").read_text())
    (tmp_path / "val2017").symlink_to(folder)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "panoptic_val2017").symlink_to(folder / "coco_panoptic")
    name, segments = "000000039769.png", json.loads((folder / "coco_panoptic_annotations.txt").read_text())
    content = {
        "images": [{"id": 39769, "file_name": name, "width": 640, "height": 480}],
        "categories": kinds["categories"],
        "annotations": [{"image_id": 39769, "file_name": name, "segments_info": segments}],
    }
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    record = datasets.load("coco", tmp_path, "val2017-panoptic").images[0]
    made = record.annotate(640, 480, 1)
    assert [found.category for found in made.objects] == [
        "cat",
        "cat",
        "couch",
        "remote",
        "remote",
        "blanket",
    ]
    assert [masks.area(found.mask or "") for found in made.objects] == [entry["area"] for entry in segments]
    assert masks.area(made.void or "") == 640 * 480 - sum(entry["area"] for entry in segments)


# --------------------------------------------------------------------------------------------- made by hand


def panoptic(root: Path, ids: np.ndarray, *segments: dict[str, Any], **instead: Any) -> Path:
    """One image of 40 x 24 pixels: `ids` [24, 40] as colours of a PNG, and what the JSON says of them."""
    (root / "val2017").mkdir(parents=True)
    Image.new("RGB", (40, 24)).save(root / "val2017" / "a.jpg")
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 24}],
        "categories": [{"id": 7, "name": "cat", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    } | instead
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    return root


def segment(number: Any, category: int, **instead: Any) -> dict[str, Any]:
    return {"id": number, "category_id": category, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0} | instead


def drawn() -> np.ndarray:
    """Segment 66051 = 3 + 2 * 256 + 65536 on the left, 5 above, nothing elsewhere."""
    ids = np.zeros((24, 40), dtype=np.int64)
    ids[:, :8], ids[:4, 8:] = 66051, 5
    return ids


def test_things_and_stuff_are_objects_and_the_rest_is_void(tmp_path: Path) -> None:
    panoptic(tmp_path, drawn(), segment(66051, 7), segment(5, 9))
    record = datasets.load("coco", tmp_path, "val2017-panoptic").images[0]
    cat, sky = (made := record.annotate(40, 24, 1)).objects
    assert (cat.category, sky.category, sky.object_id) == ("cat", "sky", 2**24 + 5)
    np.testing.assert_array_equal(pixels(cat), drawn() == 66051)
    np.testing.assert_array_equal(pixels(sky), drawn() == 5)
    assert made.void
    np.testing.assert_array_equal(masks.to_array(made.void), drawn() == 0)
    everywhere = np.full((24, 40), 5)
    other = panoptic(tmp_path / "other", everywhere, segment(5, 9))
    assert datasets.load("coco", other, "val2017-panoptic").images[0].annotate(40, 24, 1).void is None


def test_segments_turn_with_their_image(tmp_path: Path) -> None:
    panoptic(tmp_path, drawn(), segment(66051, 7, bbox=[0, 0, 8, 24]), segment(5, 9))
    record = datasets.load("coco", tmp_path, "val2017-panoptic").images[0]
    cat = (made := record.annotate(24, 40, 6)).objects[0]  # stored on its side: a quarter turn clockwise
    assert cat.box == (0, 0, 24, 8)
    np.testing.assert_array_equal(pixels(cat), np.rot90(drawn() == 66051, -1))
    assert made.void
    np.testing.assert_array_equal(masks.to_array(made.void), np.rot90(drawn() == 0, -1))


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        ([segment(66051, 7)], "segment 5 of panoptic_val2017/a.png"),
        ([segment(66051, 7), segment(5, 9), segment(6, 9)], "segment 6 of panoptic_val2017/a.png"),
    ],
)
def test_a_png_that_is_not_of_its_json_spoils_its_image(
    tmp_path: Path, segments: list[dict[str, Any]], told: str
) -> None:
    panoptic(tmp_path, drawn(), *segments)
    record = datasets.load("coco", tmp_path, "val2017-panoptic").images[0]
    with pytest.raises(ImageError, match=told) as caught:
        record.annotate(40, 24, 1)
    assert caught.value.reason == "changed"


def test_a_png_of_another_size_spoils_its_image(tmp_path: Path) -> None:
    panoptic(tmp_path, drawn()[:12], segment(66051, 7), segment(5, 9))
    record = datasets.load("coco", tmp_path, "val2017-panoptic").images[0]
    with pytest.raises(ImageError, match=r"a\.png has \(40, 12\) pixels, its image \(40, 24\)"):
        record.annotate(40, 24, 1)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (segment(5, 8), "segment 5 has no usable"),
        (segment("x", 9), "segment x has no usable"),
        (segment(5, 9, bbox=[1]), "segment 5 has no usable"),
        (segment(5, 9, area="x"), "segment 5 has no usable"),
        ({"id": 5}, r"\[0\] has no usable 'category_id'"),
    ],
)
def test_malformed_segments_are_told_with_the_file(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    panoptic(tmp_path, drawn(), wrong)
    with pytest.raises(DatasetError, match=r"panoptic_val2017\.json: segments_info of image 1, .*" + told):
        datasets.load("coco", tmp_path, "val2017-panoptic")


def test_an_image_without_segments_is_told(tmp_path: Path) -> None:
    panoptic(tmp_path, drawn(), annotations=[])
    with pytest.raises(DatasetError, match=r"panoptic_val2017\.json has no segments of image 1"):
        datasets.load("coco", tmp_path, "val2017-panoptic")


def test_missing_segments_are_told_with_where_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    get = r"panoptic_annotations_trainval2017\.zip .*unzip .*/panoptic_val2017\.zip -d .*/annotations"
    with pytest.raises(DatasetError, match=r"no .*panoptic_val2017\.json .*" + get):
        datasets.load("coco", tmp_path, "val2017-panoptic")
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"no .*panoptic_val2017 .*" + get):
        datasets.load("coco", tmp_path, "val2017-panoptic")


def test_what_is_of_no_image_or_said_twice_is_noted(tmp_path: Path) -> None:
    row = {"image_id": 1, "file_name": "a.png", "segments_info": [segment(66051, 7), segment(5, 9)]}
    again = row | {"segments_info": [segment(66051, 9), segment(5, 7)]}
    panoptic(tmp_path, drawn(), annotations=[row | {"image_id": "1"}, again, row | {"image_id": 2}, "x"])
    dataset = datasets.load("coco", tmp_path, "val2017-panoptic")
    assert [thing.category for thing in dataset.images[0].annotate(40, 24, 1).objects] == ["cat", "sky"]
    file = "panoptic_val2017.json, "
    assert list(dataset.notes) == [
        Note("ids that are text in one place and numbers in another", f"{file}annotations[0]", lost=False),
        Note("segments met twice for an image", f"{file}annotations[1]"),
        Note("segments of images that are not listed", f"{file}annotations[2]"),
        Note("entries of 'annotations' that are no objects", f"{file}annotations[3]"),
    ]


def test_numbers_of_segments_as_text_are_read_and_noted(tmp_path: Path) -> None:
    panoptic(tmp_path, drawn(), segment("66051", 7, iscrowd="0"), segment(5, 9, area="30", iscrowd="1"))
    dataset = datasets.load("coco", tmp_path, "val2017-panoptic")
    cat, sky = dataset.images[0].annotate(40, 24, 1).objects
    assert (cat.object_id, cat.crowd, sky.area, sky.crowd) == (2**24 + 66051, False, 30, True)
    assert [(note.count, note.lost) for note in dataset.notes] == [(2, False)]


@pytest.mark.parametrize("key", ["id", "category_id", "bbox", "area", "iscrowd"])
@pytest.mark.parametrize("value", [None, ["x"], -1, float("nan"), float("inf"), "\ud83d", "x" * 9999, True])
def test_any_value_in_a_segment_is_taken_or_told_in_one_line(tmp_path: Path, key: str, value: Any) -> None:
    panoptic(tmp_path, drawn(), segment(66051, 7) | {key: value}, segment(5, 9))
    try:
        made = datasets.load("coco", tmp_path, "val2017-panoptic").images[0].annotate(40, 24, 1)
    except DatasetError as error:
        told = str(error)
    else:
        told = "taken" if key == "iscrowd" or (key, value) == ("area", -1) else f"{made} should not be taken"
    assert told == "taken" or "panoptic_val2017.json" in told
    assert len(told) < 300
