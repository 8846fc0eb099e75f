"""COCO against pycocotools on real samples, and on files made wrong in every way."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets
from kvstore.contracts import Annotations, Object
from kvstore.errors import DatasetError, ImageError
from kvstore.images import decode
from kvstore.notes import Notes
from tests import samples


def pixels(found: Object) -> np.ndarray:
    from pycocotools import mask as coco

    assert found.mask
    return coco.decode(json.loads(found.mask)).astype(bool)


def annotated(root: Path, place: int = 0) -> Annotations:
    record = datasets.load("coco", root).images[place]
    image = decode(record.read())
    return record.annotate(image.width, image.height, image.orientation)


def noted(root: Path, split: str | None = None) -> list[tuple[str, str, int, bool]]:
    """Kind, place (without the file), count and loss of all notes of a data set, its images' too."""
    dataset = datasets.load("coco", root, split)
    notes = Notes(dataset.notes)
    for record in dataset.images:
        image = decode(record.read())
        for note in record.annotate(image.width, image.height, image.orientation).notes:
            notes.take(note)
    return [(note.kind, note.place.partition(", ")[2], note.count, note.lost) for note in notes]


# ------------------------------------------------------------------------------------------ real samples


def reference(path: Path) -> Any:
    """pycocotools' own reading of an annotation file."""
    from pycocotools.coco import COCO

    return COCO(str(path))


@pytest.mark.parametrize(
    ("split", "images", "objects", "captions"), [("val2017", 25, 213, 125), ("train2017", 10, 167, 50)]
)
def test_real_annotations_equal_pycocotools(split: str, images: int, objects: int, captions: int) -> None:
    root = samples.folder("coco")
    official = reference(root / "annotations" / f"instances_{split}.json")
    dataset = datasets.load("coco", root, split)
    assert [record.name for record in dataset.images] == [
        f"{split}/{image['file_name']}" for image in official.dataset["images"]
    ]
    seen = words = 0
    for record in dataset.images:
        image = decode(record.read())
        annotations = record.annotate(image.width, image.height, image.orientation)
        words += len(annotations.captions)
        for found in annotations.objects:
            seen += 1
            theirs = official.anns[found.object_id]
            assert Path(record.name).stem == f"{theirs['image_id']:012d}"
            assert found.category == official.cats[theirs["category_id"]]["name"]
            x, y, width, height = theirs["bbox"]
            assert found.box == pytest.approx((x, y, x + width, y + height))
            assert (found.area, found.crowd) == (theirs["area"], bool(theirs["iscrowd"]))
            np.testing.assert_array_equal(pixels(found), official.annToMask(theirs).astype(bool))
    assert (len(dataset.images), seen, words) == (images, objects, captions)
    assert noted(root, split) == []


def test_real_keypoints_equal_the_person_keypoints_file() -> None:
    root = samples.folder("coco")
    official = reference(root / "annotations" / "person_keypoints_val2017.json")
    names = official.cats[1]["keypoints"]
    posed = 0
    for place in range(25):
        for found in annotated(root, place).objects:
            if not found.keypoints:
                continue
            posed += 1
            flat = np.array(official.anns[found.object_id]["keypoints"]).reshape(17, 3)
            labelled = {name: row for name, row in zip(names, flat.tolist(), strict=True) if row[2]}
            ours = {point.name: [point.x - 0.5, point.y - 0.5, point.visible] for point in found.keypoints}
            assert ours == labelled
    assert posed == sum(annotation["num_keypoints"] > 0 for annotation in official.anns.values())


def linked(root: Path, *also: Path) -> Path:
    """The real samples with further annotation files beside them."""
    folder = samples.folder("coco")
    (root / "annotations").mkdir()
    for split in ("val2017", "train2017"):
        (root / split).symlink_to(folder / split)
    for path in (*(folder / "annotations").iterdir(), *also):
        (root / "annotations" / path.name).symlink_to(path)
    return root


def test_real_refcocos_expressions_go_to_the_object_with_their_box(tmp_path: Path) -> None:
    path = samples.folder("refcocos") / "refcocos_test.json"
    dataset = datasets.load("coco", linked(tmp_path, path))
    found = {}
    for record in dataset.images:
        image = decode(record.read())
        made = record.annotate(image.width, image.height, image.orientation)
        boxes = {thing.object_id: thing.box for thing in made.objects}
        found |= {(record.name, said.text): boxes[said.object_id] for said in made.expressions}
    expected = {
        (record["image"], record["normal_caption"]): pytest.approx(record["solution"], abs=0.01)
        for record in json.loads(path.read_text())
    }
    assert found == expected
    assert len(found) == 3
    assert dataset.sources[-1].name == "refcocos_test.json"
    other = datasets.load("coco", tmp_path, "train2017")  # speaks of no image there
    sizes = (Image.open(io.BytesIO(record.read())).size for record in other.images)
    told = [record.annotate(*size, 1) for record, size in zip(other.images, sizes, strict=True)]
    assert not any(found.expressions for found in told)
    assert all(found.objects for found in told)


# --------------------------------------------------------------------------------------------- made by hand


def make(root: Path, *, picture: bytes | None = None, **instead: Any) -> Path:
    """A data set of one 40 x 24 image with one 10 x 6 object; `instead` replaces parts of the JSON."""
    (root / "val2017").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "val2017" / "a.jpg").write_bytes(picture or jpeg(Image.new("RGB", (40, 24))))
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 24}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [annotation()],
    } | instead
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def annotation(**instead: Any) -> dict[str, Any]:
    polygon = [[4, 2, 14, 2, 14, 8, 4, 8]]
    box = {"bbox": [4, 2, 10, 6], "area": 60, "segmentation": polygon}
    return {"id": 5, "image_id": 1, "category_id": 7, "iscrowd": 0} | box | instead


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def test_an_image_without_captions_and_keypoints_is_fine(tmp_path: Path) -> None:
    (found,) = annotated(make(tmp_path)).objects
    assert (found.object_id, found.category, found.box, found.area) == (5, "cat", (4, 2, 14, 8), 60)
    assert pixels(found)[2:8, 4:14].all()
    assert pixels(found).sum() == 60
    assert annotated(tmp_path).captions == ()


def test_what_is_missing_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no .*val2017 .*zips/val2017\.zip && unzip val2017\.zip -d"):
        datasets.load("coco", tmp_path)
    (tmp_path / "val2017").mkdir()
    with pytest.raises(DatasetError, match=r"instances_val2017\.json .*annotations_trainval2017\.zip"):
        datasets.load("coco", tmp_path)
    make(tmp_path)
    with pytest.raises(DatasetError, match="train2017"):
        datasets.load("coco", tmp_path, "train2017")


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        ({"images": None}, "no list 'images'"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no usable 'file_name'"),
        ({"images": [{"id": True, "file_name": "a.jpg"}]}, r"images\[0\] has no usable 'id'"),
        ({"images": [{"id": [1], "file_name": "a.jpg"}]}, r"images\[0\] has no usable 'id'"),
        ({"annotations": {}}, "no list 'annotations'"),
        ({"categories": None}, "no list 'categories'"),
    ],
)
def test_malformed_annotations_are_told_with_the_file(
    tmp_path: Path, instead: dict[str, Any], told: str
) -> None:
    with pytest.raises(DatasetError, match=r"instances_val2017\.json.*" + told):
        datasets.load("coco", make(tmp_path, **instead))


@pytest.mark.parametrize("content", [b"", b'{"images": [', b"[1]", b"\xff\xfe{}", b"[" * 100_000])
def test_a_file_that_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    make(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"instances_val2017\.json"):
        datasets.load("coco", tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.jpg", "missing"),
        ("../../x.jpg", "unsafe-path"),
        ("../annotations/instances_val2017.json", "unsafe-path"),
        ("/etc/hostname", "unsafe-path"),
    ],
)
def test_a_bad_file_name_spoils_only_its_own_image(tmp_path: Path, name: str, reason: str) -> None:
    listed = [{"id": 2, "file_name": name}, {"id": 1, "file_name": "a.jpg", "width": 40, "height": 24}]
    bad, good = datasets.load("coco", make(tmp_path, images=listed)).images
    with pytest.raises(ImageError) as caught:
        bad.read()
    assert caught.value.reason == reason
    assert decode(good.read()).width == 40


def test_unlisted_files_and_annotations_of_unlisted_images_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, annotations=[annotation(), annotation(id=6, image_id=99)])
    (tmp_path / "val2017" / "b.jpg").write_bytes(b"")
    assert [record.name for record in datasets.load("coco", tmp_path).images] == ["val2017/a.jpg"]
    assert [found.object_id for found in annotated(tmp_path).objects] == [5]
    assert noted(tmp_path) == [("annotations of images that are not listed", "annotation 6", 1, True)]


def test_ids_met_twice_or_missing_get_new_numbers(tmp_path: Path) -> None:
    nameless = annotation()
    del nameless["id"]
    make(tmp_path, annotations=[annotation(), annotation(), nameless, annotation(id=6), annotation(id="x")])
    assert [found.object_id for found in annotated(tmp_path).objects] == [5, 7, 8, 6, 9]
    assert noted(tmp_path) == [
        ("annotation ids that are met twice", "annotation 5", 1, False),
        ("annotation ids that are no numbers", "annotations[2]", 2, False),
    ]


def test_images_met_twice_count_once(tmp_path: Path) -> None:
    one = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 24}
    make(tmp_path, images=[one, one, one | {"id": 2}, one | {"file_name": "b.jpg"}])
    assert [record.name for record in datasets.load("coco", tmp_path).images] == ["val2017/a.jpg"]
    assert noted(tmp_path) == [
        ("images listed more than once, put together", "images[1]", 2, False),
        ("images whose id an earlier one has", "images[3]", 1, True),
    ]


def test_degenerate_shapes_do_not_crash(tmp_path: Path) -> None:
    make(
        tmp_path,
        annotations=[
            annotation(id=1, segmentation=[[1, 1, 2, 2]]),
            annotation(id=2, segmentation=[]),
            annotation(id=3, bbox=[-5, -5, 500, 500]),
            annotation(id=4, bbox=None),
            annotation(id=5, bbox=None, segmentation=None),
            annotation(id=6, bbox=[1, 2, "x", 4], segmentation={"size": [24, 40], "counts": "\x00"}),
            annotation(id=7, area=None, segmentation={"size": [24, 40], "counts": [0, 24, 936]}, iscrowd=1),
        ],
    )
    found = {thing.object_id: thing for thing in annotated(tmp_path).objects}
    assert set(found) == {1, 2, 3, 4, 7}  # 5 and 6 say nowhere where they are
    assert found[1].mask is None
    assert found[2].mask is None
    assert found[3].box == (-5, -5, 495, 495)  # as annotated
    assert found[4].box == (4, 2, 14, 8)  # from the mask
    assert (found[7].crowd, found[7].area, pixels(found[7])[:, 0].all()) == (True, 24, True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("declared", ["stored", "upright"])
def test_annotations_turn_with_the_pixels_they_speak_of(
    tmp_path: Path, orientation: int, declared: str
) -> None:
    """A white box is painted where the annotation says; after decoding it must still be there."""
    stored = Image.new("RGB", (40, 24))
    upright_already = declared == "upright" and orientation >= 5  # elsewhere the two sizes are one
    where = (4, 2, 14, 8)
    if upright_already:  # annotated on the upright 24 x 40 image: paint there, then store it turned back
        from PIL import ImageOps

        upright = Image.new("RGB", (24, 40))
        upright.paste("white", where)
        upright.getexif()[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)
        stored = ImageOps.exif_transpose(upright)
    else:
        stored.paste("white", where)
    size = {"width": 24, "height": 40} if upright_already else {"width": 40, "height": 24}
    make(tmp_path, picture=jpeg(stored, orientation), images=[{"id": 1, "file_name": "a.jpg"} | size])
    (found,) = annotated(tmp_path).objects
    image = decode((tmp_path / "val2017" / "a.jpg").read_bytes()).image
    bright = np.asarray(image.convert("L")) > 128
    assert pixels(found).shape == bright.shape
    assert (pixels(found) != bright).sum() <= 8  # JPEG's edges
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    assert found.box == pytest.approx((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), abs=1)


def test_an_image_resized_since_it_was_annotated_is_refused(tmp_path: Path) -> None:
    record = datasets.load("coco", make(tmp_path)).images[0]
    with pytest.raises(ImageError, match="was it resized"):
        record.annotate(20, 12, 1)


# ------------------------------------------------------------------------------------- expressions (RefCOCOs)


def referring(root: Path, **instead: Any) -> Path:
    """One record in RefCOCOs' form on the box of the object made by hand."""
    record = {"image": "val2017/a.jpg", "normal_caption": "the cat", "solution": [4, 2, 14.001, 8]} | instead
    (root / "annotations" / "refcocos_test.json").write_text(json.dumps([record]))
    return root


def test_expressions_without_an_object_are_left_out_where_they_say_so(tmp_path: Path) -> None:
    make(tmp_path)
    assert [said.object_id for said in annotated(referring(tmp_path)).expressions] == [5]
    told = {"categories": {"empty_case": True}, "solution": []}
    assert annotated(referring(tmp_path, **told)).expressions == ()
    kind = "expressions that fit no object, as the file says, passed over"
    assert noted(tmp_path) == [(kind, "[0]", 1, False)]
    told = {"categories": {"empty_case": -1}}
    assert annotated(referring(tmp_path, **told)).expressions == ()
    kind = "expressions whose 'empty_case' is neither true nor false"
    assert noted(tmp_path) == [(kind, "[0]", 1, True)]
    assert annotated(referring(tmp_path, image="val2017/b.jpg")).expressions == ()


def test_a_record_listed_twice_and_an_image_of_no_split_are_told(tmp_path: Path) -> None:
    path = referring(make(tmp_path)) / "annotations" / "refcocos_test.json"
    record, other = json.loads(path.read_text())[0], {"normal_caption": "the animal"}
    path.write_text(json.dumps([record, record | other, record]))
    assert [said.text for said in annotated(tmp_path).expressions] == ["the cat", "the animal"]
    assert noted(tmp_path) == [("expressions listed twice, taken once", "[2]", 1, False)]
    images = ("train2017/a.jpg", "\ud83d", "a.jpg")
    path.write_text(json.dumps([record | {"image": image} for image in images]))
    assert annotated(tmp_path).expressions == ()
    assert noted(tmp_path) == [("expressions of images of no split", "[1]", 2, True)]


@pytest.mark.parametrize("solution", [[4, 2, 14, 8.5], [4, 2, 10, 6], [], "box", None])
def test_an_expression_for_a_box_that_no_object_has_is_told(tmp_path: Path, solution: Any) -> None:
    make(tmp_path)
    with pytest.raises(DatasetError, match=r"refcocos_test\.json: \[0\] means the box .*move the file away"):
        datasets.load("coco", referring(tmp_path, solution=solution))
