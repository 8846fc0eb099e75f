"""What COCO's recipe leaves out of a file, or reads though COCO writes it otherwise: told, with the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvstore import datasets
from kvstore.contracts import Annotations, Object
from kvstore.errors import DatasetError, ImageError
from kvstore.images import decode
from tests.ingest.test_coco import annotated, annotation, make, noted, pixels

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 24}
RING = [4, 2, 14, 2, 14, 8, 4, 8]
RUNS = [4 * 24 + 2, 6, *[18, 6] * 9, 24 - 8 + 26 * 24]  # the same 10 x 6 pixels, column by column


def only(root: Path, **instead: Any) -> Object:
    (found,) = annotated(make(root, annotations=[annotation(**instead)])).objects
    return found


def test_two_entries_of_one_file_are_one_image_with_the_objects_and_captions_of_both(tmp_path: Path) -> None:
    rows = [annotation(), annotation(id=6, image_id=2, bbox=[1, 1, 2, 2])]
    make(tmp_path, images=[IMAGE, IMAGE | {"id": 2}], annotations=rows)
    texts = [{"image_id": 2, "id": 1, "caption": "second"}, {"image_id": 1, "id": 2, "caption": "first"}]
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps({"annotations": texts}))
    assert [found.object_id for found in annotated(tmp_path).objects] == [5, 6]
    assert annotated(tmp_path).captions == ("second", "first")
    told = [("images listed more than once, put together", "images[1]", 1, False)]
    assert noted(tmp_path) == told


def test_a_second_entry_of_another_size_is_left_out_with_its_annotations(tmp_path: Path) -> None:
    rows = [annotation(), annotation(id=6, image_id=2)]
    make(tmp_path, images=[IMAGE, IMAGE | {"id": 2, "width": 80, "height": 48}], annotations=rows)
    assert [found.object_id for found in annotated(tmp_path).objects] == [5]
    assert noted(tmp_path) == [
        ("images listed again with another size", "images[1]", 1, True),
        ("annotations of images that are not listed", "annotation 6", 1, True),
    ]


# ------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        (RING, "segmentations of one flat list"),
        ([[4, 2], [14, 2], [14, 8], [4, 8]], "segmentations of pairs [x, y]"),
        ([[[4, 2], [14, 2], [14, 8], [4, 8]]], "segmentations of pairs [x, y]"),
        ([[RING]], "segmentations of a list too many"),
        ([[str(number) for number in RING]], "coordinates written as text"),
        ({"size": [24, 40], "counts": [float(run) for run in RUNS]}, "run lengths written as floats or text"),
        ({"size": [24, 40], "counts": [str(run) for run in RUNS]}, "run lengths written as floats or text"),
    ],
)
def test_a_mask_that_can_be_meant_in_one_way_only_is_read(
    tmp_path: Path, segmentation: Any, kind: str
) -> None:
    found = pixels(only(tmp_path, segmentation=segmentation))
    assert found[2:8, 4:14].all()
    assert found.sum() == 60
    assert noted(tmp_path) == [(kind, "annotation 5", 1, False)]


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ("text", "segmentations that cannot be read"),
        (True, "segmentations that cannot be read"),
        ([True] * 8, "polygons that cannot be read"),
        ([[4, 2, None, 2, 14, 8]], "polygons that cannot be read"),
        ([[4, 2, 1e400, 2, 14, 8]], "polygons that cannot be read"),
        ([[[[[RING]]]]], "polygons that cannot be read"),
        ([[], []], None),
        ([[4, 2, 14, 8]], "polygons of fewer than 3 points"),
        ([{"x": 4, "y": 2}], "segmentations that cannot be read"),
        ({"size": [40, 24], "counts": RUNS}, "run lengths of [width, height] for their image"),
        ({"size": [12, 20], "counts": [240]}, "run lengths of another size for their image"),
        ({"size": [24, 40], "counts": [959]}, "run lengths that do not add up to their image"),
        ({"size": [24, 40], "counts": [0.5, 959.5]}, "segmentations that cannot be read"),
        ({"size": [24, 40], "counts": None}, "segmentations that cannot be read"),
        ({"size": [24, 40], "counts": []}, "segmentations that cannot be read"),
        ({}, "segmentations that cannot be read"),
    ],
)
def test_a_mask_that_cannot_be_read_is_lost_and_the_object_stays(
    tmp_path: Path, segmentation: Any, kind: str | None
) -> None:
    found = only(tmp_path, segmentation=segmentation)
    assert (found.mask, found.box) == (None, (4, 2, 14, 8))
    assert noted(tmp_path) == ([(kind, "annotation 5", 1, True)] if kind else [])


@pytest.mark.parametrize(
    ("other", "kind", "lost"),
    [
        ([1, 1, 2, 2], "polygons of fewer than 3 points", True),
        (["x"], "polygons that cannot be read", True),
        ([20, 2, 24, 2, 24, 6, 20, 6, 3], "polygons with an odd count of numbers, without the last", True),
        ([1e9, 0, 1e9, 1, 1e9, 2], "polygons with corners far outside of their image, drawn nearer", False),
    ],
)
def test_one_bad_polygon_among_good_ones_is_told(tmp_path: Path, other: Any, kind: str, lost: bool) -> None:
    assert pixels(only(tmp_path, segmentation=[RING, other]))[2:8, 4:14].all()
    assert noted(tmp_path) == [(kind, "annotation 5", 1, lost)]


# ------------------------------------------------------------------------------------------- single values


@pytest.mark.parametrize(
    ("given", "crowd", "note"),
    [
        (0, False, None),
        (1, True, None),
        (False, False, None),
        (True, True, None),
        (1.0, True, None),
        (None, False, None),
        ("0", False, False),
        ("false", False, False),
        ("False", False, False),
        ("1", True, False),
        ("true", True, False),
        ("perhaps", False, True),
        (2, False, True),
        (-1, False, True),
        ([1], False, True),
    ],
)
def test_iscrowd_is_read_as_it_is_meant(tmp_path: Path, given: Any, crowd: bool, note: bool | None) -> None:
    assert only(tmp_path, iscrowd=given).crowd is crowd
    assert [lost for *_, lost in noted(tmp_path)] == ([] if note is None else [note])


FROM_MASK = "taken from the mask"


@pytest.mark.parametrize(
    ("instead", "box", "area", "told"),
    [
        ({"bbox": ["4", "2", "10", "6"]}, (4, 2, 14, 8), 60, "boxes written as text"),
        ({"bbox": None}, (4, 2, 14, 8), 60, f"annotations without a box, {FROM_MASK}"),
        ({"bbox": []}, (4, 2, 14, 8), 60, f"annotations without a box, {FROM_MASK}"),
        ({"bbox": [4, 2, -10, 6]}, (4, 2, 14, 8), 60, f"boxes that cannot be read, {FROM_MASK}"),
        ({"bbox": [1, 2, 1e308, 1]}, (1, 2, 1e308, 3), 60, None),
        ({"bbox": [1e308, 2, 1e308, 1]}, (4, 2, 14, 8), 60, f"boxes that cannot be read, {FROM_MASK}"),
        ({"area": "60.5"}, (4, 2, 14, 8), 60.5, "areas written as text"),
        ({"area": None, "bbox": [4, 2, 11, 6]}, (4, 2, 15, 8), 60, "areas that are missing, computed"),
        ({"area": True, "segmentation": []}, (4, 2, 14, 8), 60, "areas that are missing, computed"),
        ({"bbox": [], "segmentation": []}, None, 0, "annotations with neither a box nor a mask"),
        ({"bbox": "x", "segmentation": None}, None, 0, "annotations with neither a box nor a mask"),
    ],
)
def test_boxes_and_areas(
    tmp_path: Path, instead: dict[str, Any], box: Any, area: float, told: str | None
) -> None:
    found = annotated(make(tmp_path, annotations=[annotation(**instead)])).objects
    assert [(thing.box, thing.area) for thing in found] == ([(box, area)] if box else [])
    assert [(kind, lost) for kind, _, _, lost in noted(tmp_path)] == ([(told, not found)] if told else [])


def test_ids_that_are_text_in_one_place_and_numbers_in_another_are_matched(tmp_path: Path) -> None:
    rows = [annotation(image_id="1"), annotation(id="6", category_id="7"), annotation(id=9.0, image_id=1.0)]
    make(tmp_path, annotations=rows)
    assert [(found.object_id, found.category) for found in annotated(tmp_path).objects] == [
        (5, "cat"),
        (6, "cat"),
        (9, "cat"),
    ]
    assert noted(tmp_path) == [
        ("ids that are text in one place and numbers in another", "annotation 5", 2, False)
    ]


def test_ids_that_two_images_have_as_text_and_as_number_are_not_guessed(tmp_path: Path) -> None:
    (make(tmp_path) / "val2017" / "b.jpg").write_bytes((tmp_path / "val2017" / "a.jpg").read_bytes())
    images = [IMAGE | {"id": "1"}, IMAGE | {"id": "01", "file_name": "b.jpg"}]
    make(tmp_path, images=images, annotations=[annotation(image_id="01"), annotation(id=6, image_id=1)])
    assert annotated(tmp_path, 0).objects == ()
    assert [found.object_id for found in annotated(tmp_path, 1).objects] == [5]
    assert noted(tmp_path) == [("annotations of images that are not listed", "annotation 6", 1, True)]


UNNAMED, UNLISTED = "categories without a usable id or name", "annotations of categories that are not listed"
CAT = {"id": 7, "name": "cat"}


@pytest.mark.parametrize(
    ("categories", "name", "told"),
    [
        ([{"id": 7, "name": None}], None, [UNNAMED, UNLISTED]),
        ([{"id": 7, "name": ["cat"]}], None, [UNNAMED, UNLISTED]),
        ([{"id": None, "name": "cat"}], None, [UNNAMED, UNLISTED]),
        ([{"id": 8, "name": "dog"}], None, [UNLISTED]),
        ([3, CAT], "cat", ["entries of 'categories' that are no objects"]),
        ([{"id": 7, "name": 5}], "5", ["names of categories that are numbers"]),
        ([CAT, {"id": 7, "name": "dog"}], "dog", ["categories whose id a later one has"]),
        ([CAT, CAT], "cat", []),
        ([{"id": 0, "name": "cat"}, CAT], "cat", ["categories with the name of another, taken as one"]),
    ],
)
def test_categories(tmp_path: Path, categories: Any, name: str | None, told: list[str]) -> None:
    found = annotated(make(tmp_path, categories=categories)).objects
    assert [thing.category for thing in found] == ([name] if name else [])
    assert [kind for kind, *_ in noted(tmp_path)] == told


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((0, 0), ["sizes that no image has, taken from its file"]),
        ((-1, 24), ["sizes that no image has, taken from its file"]),
        ((40, None), ["sizes that no image has, taken from its file"]),
        ((True, 1e400), ["sizes that no image has, taken from its file"]),
        (("40", "24"), ["sizes written as text"]),
        ((40.0, 24.0), []),
        ((None, None), []),
    ],
)
def test_a_size_that_says_nothing_is_taken_from_the_file(tmp_path: Path, size: Any, told: list[str]) -> None:
    make(tmp_path, images=[IMAGE | {"width": size[0], "height": size[1]}])
    assert len(annotated(tmp_path).objects) == 1
    assert [kind for kind, *_ in noted(tmp_path)] == told


def captioned(root: Path, *texts: Any) -> Annotations:
    rows = [{"image_id": image, "id": n, "caption": said} for n, (image, said) in enumerate(texts)]
    (make(root) / "annotations" / "captions_val2017.json").write_text(json.dumps({"annotations": rows}))
    return annotated(root)


def test_a_caption_listed_twice_is_taken_once_and_two_that_say_the_same_are_two(tmp_path: Path) -> None:
    rows = [{"image_id": 1, "id": n, "caption": "a cat"} for n in (4, 4, 5)]
    (make(tmp_path) / "annotations" / "captions_val2017.json").write_text(json.dumps({"annotations": rows}))
    assert annotated(tmp_path).captions == ("a cat", "a cat")
    assert noted(tmp_path) == [("captions listed twice, taken once", "annotations[1]", 1, False)]


def test_captions_are_texts_and_never_none(tmp_path: Path) -> None:
    said = captioned(
        tmp_path, (1, "a"), (1, None), (1, ["b"]), (1, 5), ("1", "c"), (9, "d"), (1, True)
    ).captions
    assert said == ("a", "5", "c")
    assert noted(tmp_path) == [
        ("captions that are no text", "annotations[1]", 3, True),
        ("captions that are numbers", "annotations[3]", 1, False),
        ("ids that are text in one place and numbers in another", "annotations[4]", 1, False),
        ("captions of images that are not listed", "annotations[5]", 1, True),
    ]


@pytest.mark.parametrize(
    ("flat", "kept", "told"),
    [
        ([1, 1, 2, 3, 3, 1], ["nose", "tail"], []),
        ([1, 1, 2, 3, 3, 0], ["nose"], []),
        ([0, 0, 0], [], []),  # nothing is labelled
        ([1, 1, 2], [], ["keypoints that do not fit the names of their category"]),
        ([1, 1, 2, 3, 3, 1, 4], [], ["keypoints that do not fit the names of their category"]),
        ("text", [], ["keypoints that do not fit the names of their category"]),
        ([1, 1, 7, 3, 3, 1], ["tail"], ["keypoints that cannot be read"]),
        ([1e400, 1, 2, 3, 3, 1], ["tail"], ["keypoints that cannot be read"]),
        (["1", "1", "2", "3", "3", "1"], ["nose", "tail"], ["coordinates written as text"]),
    ],
)
def test_keypoints(tmp_path: Path, flat: Any, kept: list[str], told: list[str]) -> None:
    kinds = [{"id": 7, "name": "cat", "keypoints": ["nose", "tail"]}]
    (found,) = annotated(make(tmp_path, categories=kinds, annotations=[annotation(keypoints=flat)])).objects
    assert [point.name for point in found.keypoints] == kept
    assert [kind for kind, *_ in noted(tmp_path)] == told


def test_keypoints_of_their_own_file(tmp_path: Path) -> None:
    kinds = [{"id": "7", "name": "cat", "keypoints": ["nose"]}]
    rows = [
        {"id": 5, "category_id": 7, "keypoints": [1, 1, 2]},
        {"id": 5, "category_id": 7, "keypoints": [2, 2, 2]},
        {"id": 6, "category_id": [7], "keypoints": [1, 1, 2]},
    ]
    people = tmp_path / "annotations" / "person_keypoints_val2017.json"
    make(tmp_path)
    people.write_text(json.dumps({"annotations": rows, "categories": kinds}))
    (found,) = annotated(tmp_path).objects
    assert [(point.name, point.x) for point in found.keypoints] == [("nose", 1.5)]
    assert noted(tmp_path) == [
        ("keypoints met twice", "annotations[1]", 1, True),
        ("keypoints of annotations that are not listed", "annotations[2]", 1, True),
    ]


def test_nothing_of_a_list_that_holds_other_things_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, images=[IMAGE, 3, {"id": 2}], annotations=[annotation(), None, "x"])
    assert [kind for kind, *_ in noted(tmp_path)] == [
        "entries of 'images' that are no objects",
        "images without a usable id or file name",
        "entries of 'annotations' that are no objects",
    ]
    assert noted(tmp_path)[2][1:3] == ("annotations[1]", 2)


# ---------------------------------------------------------------------- any value in any field: told, or used

HOSTILE = (
    None,
    "text",
    ["x"],
    {"x": 1},
    -1,
    float("inf"),
    float("nan"),
    "\ud83d",
    "x" * 100_000,
    True,
    10**400,
    [[[[]]]],
)


@pytest.mark.parametrize("where", ["images", "annotations", "categories"])
def test_any_value_in_any_field_ends_in_an_object_a_note_or_one_line(tmp_path: Path, where: str) -> None:
    kind = {"id": 7, "name": "cat", "keypoints": ["nose"]}
    rows = {"images": IMAGE, "annotations": annotation(keypoints=[1, 1, 2]), "categories": kind}
    for key in rows[where]:
        for value in (*HOSTILE, ...):
            row = {k: v for k, v in rows[where].items() if k != key}
            make(tmp_path, **{"categories": [kind], where: [row if value is ... else row | {key: value}]})
            told = outcome(tmp_path)
            assert len(told) < 300, (key, value)
            assert "1 objects" in told or "lost" in told or "instances_val2017.json" in told, (key, value)


def outcome(root: Path) -> str:
    """What comes of a data set of one image: its objects and whether something is lost, or the one line."""
    try:
        dataset = datasets.load("coco", root)
        record = dataset.images[0]
        image = decode(record.read())
        made = record.annotate(image.width, image.height, 1)
    except (DatasetError, ImageError) as error:
        return "lost image" if isinstance(error, ImageError) else str(error)
    assert all(np.isfinite([*thing.box, thing.area]).all() for thing in made.objects)
    lost = any(note.lost for note in (*dataset.notes, *made.notes))
    return f"{len(made.objects)} objects{', lost' if lost else ''}"
