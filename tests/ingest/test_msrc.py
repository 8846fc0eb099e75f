"""MSRC's groups and MSRC v2 on real samples, made wrong by hand, and as an export read back."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, masks, recipes
from kvstore.contracts import Annotations, Dataset, ImageRecord, Object
from kvstore.errors import DatasetError, ImageError
from kvstore.export import export
from kvstore.images import decode
from tests import samples
from tests.ingesting import assert_clean, ingest, query

Array = np.ndarray[Any, Any]


def pixels(mask: str | None) -> Array:
    from pycocotools import mask as coco

    assert mask
    return coco.decode(json.loads(mask)).astype(bool)


def told(record: ImageRecord) -> Annotations:
    image = decode(record.read())
    return record.annotate(image.width, image.height, image.orientation)


# ------------------------------------------------------------------------------------------- real samples


def test_a_real_group_has_one_object_an_image() -> None:
    root = samples.folder("msrc")
    dataset = datasets.load("msrc", root)
    assert [record.name for record in dataset.images] == [f"cow/5_{n}_s.bmp" for n in range(1, 9)]
    ids = set()
    for record in dataset.images:
        (cow,) = told(record).objects
        ids.add(cow.object_id)
        grey = np.asarray(Image.open(root / "cow/GroundTruth" / Path(record.name).name)).mean(2)
        np.testing.assert_array_equal(pixels(cow.mask), grey > 127.5)
        assert (cow.category, cow.area) == ("cow", (grey > 127.5).sum())
        assert told(record).void is None
    assert len(ids) == 8


def test_real_maps_of_colours_have_an_object_a_class() -> None:
    dataset = datasets.load("msrc", samples.folder("msrc_v2"))
    assert [record.name for record in dataset.images] == [f"Images/7_{n}_s.bmp" for n in (10, 11, 12, 17)]
    found = [told(record) for record in dataset.images]
    areas = [{thing.category: thing.area for thing in said.objects} for said in found]
    assert areas == [  # pixels of each colour, counted with numpy
        {"building": 8492, "car": 38264},
        {"building": 11415, "car": 43797},
        {"building": 9780, "water": 4690, "car": 35475},
        {"car": 36665},
    ]
    assert [pixels(said.void).sum() for said in found] == [21404, 12948, 18215, 31495]
    assert len({thing.object_id for said in found for thing in said.objects}) == 8


# ---------------------------------------------------------------------------------------------- made by hand


def make(root: Path, mask: Image.Image | None, size: tuple[int, int] = (6, 4), ending: str = "png") -> Path:
    (root / "dog" / "GroundTruth").mkdir(parents=True)
    (root / "dog" / "Thumbs.db").write_bytes(b"no image")
    (root / "dog" / "._a.bmp").write_bytes(b"no image")
    Image.new("RGB", size).save(root / "dog" / "a.bmp")
    if mask:
        mask.save(root / "dog" / "GroundTruth" / f"a.{ending}")
    return root


def test_half_white_is_inside_and_the_masks_ending_is_free(tmp_path: Path) -> None:
    mask = Image.new("L", (6, 4))
    mask.putpixel((1, 2), 128)
    mask.putpixel((2, 2), 127)
    mask.putpixel((3, 2), 255)
    (record,) = datasets.load("msrc", make(tmp_path, mask)).images
    (dog,) = told(record).objects
    assert (dog.category, dog.box, dog.area) == ("dog", (1, 2, 4, 3), 2)


def test_a_mask_without_white_has_no_object(tmp_path: Path) -> None:
    (record,) = datasets.load("msrc", make(tmp_path, Image.new("L", (6, 4)))).images
    assert told(record) == Annotations()


def test_a_mask_of_another_size_or_none_spoils_its_own_image(tmp_path: Path) -> None:
    (record,) = datasets.load("msrc", make(tmp_path / "a", Image.new("L", (6, 5)))).images
    with pytest.raises(ImageError, match=r"dog/GroundTruth/a\.png'.* 6 x 5 .* 6 x 4") as caught:
        told(record)
    assert caught.value.reason == "changed"
    make(tmp_path / "b", Image.new("L", (6, 4)))
    (tmp_path / "b" / "cat" / "GroundTruth").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(tmp_path / "b" / "cat" / "a.bmp")
    cat, dog = datasets.load("msrc", tmp_path / "b").images
    with pytest.raises(ImageError, match=r"no file 'cat/GroundTruth/a\.bmp'"):
        told(cat)
    assert told(dog) == Annotations()


def test_an_unknown_colour_is_told(tmp_path: Path) -> None:
    for folder in ("Images", "GroundTruth"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "Images" / "1_1_s.bmp")
    Image.new("RGB", (6, 4), (0, 0, 3)).save(tmp_path / "GroundTruth" / "1_1_s_GT.bmp")
    (record,) = datasets.load("msrc", tmp_path).images
    with pytest.raises(ImageError, match=r"1_1_s_GT\.bmp' holds 3, which is none of 23"):
        told(record)


@pytest.mark.parametrize("mask", [None, "empty"])
def test_what_is_missing_is_told_with_where_to_get_it(tmp_path: Path, mask: str | None) -> None:
    root = tmp_path if mask else make(tmp_path / "a", None)
    with pytest.raises(DatasetError, match=r"GroundTruth.*mrub/ObjectDiscovery"):
        datasets.load("msrc", root)


# ------------------------------------------------------------------------------------------ exports read back


def by_content(dataset: Dataset) -> dict[bytes, dict[str, Array]]:
    """An image's bytes -> category -> the union of its objects."""
    found: dict[bytes, dict[str, Array]] = {}
    for record in dataset.images:
        classes = found.setdefault(record.read(), {})
        for thing in told(record).objects:
            classes[thing.category] = classes.get(thing.category, False) | pixels(thing.mask)
    return found


def test_what_was_drawn_is_read_back(tmp_path: Path) -> None:
    drawn = by_content(export("shapes", "msrc", tmp_path / "m", limit=24))
    dataset = datasets.load("msrc", tmp_path / "m")
    assert len(dataset.images) == sum(map(len, drawn.values())) > 24  # one per image and category
    assert len({thing.object_id for record in dataset.images for thing in told(record).objects}) == len(
        dataset.images
    )
    read = by_content(dataset)
    assert read.keys() == drawn.keys()
    for data, classes in drawn.items():
        assert read[data].keys() == classes.keys()
        for category, mask in classes.items():
            np.testing.assert_array_equal(read[data][category], mask)


def test_an_image_of_several_groups_is_one_image_in_a_store(tmp_path: Path) -> None:
    drawn = by_content(export("shapes", "msrc", tmp_path / "m", limit=2))
    store, done = ingest(tmp_path / "store", tmp_path / "m", dataset="msrc")
    assert (done.images, done.quarantined) == (2, 0)
    found = query(store, "select image_id, list(category order by category) from object group by image_id")
    assert sorted(categories for _, categories in found) == sorted(map(sorted, drawn.values()))
    assert_clean(store)


def written(things: list[Object], folder: Path, orientation: int = 1) -> bytes:
    """An image stored as 6 x 4 with some objects, exported; its bytes."""
    folder.mkdir()
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(buffer, "JPEG", exif=exif)
    record = ImageRecord("a.jpg", buffer.getvalue, lambda *upright: Annotations(tuple(things)))
    recipes.load("ingest/exports", "msrc").write(Dataset("made", "", [record]), folder)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_has_its_mask_as_it_is_stored(tmp_path: Path, orientation: int) -> None:
    mask = np.zeros((6, 4) if orientation >= 5 else (4, 6), bool)
    mask[1, 0:3] = True
    mask[2, 0] = True
    data = written(
        [Object(0, "cat", (0, 1, 3, 3), 4, mask=masks.from_array(mask))], tmp_path / "m", orientation
    )
    assert Image.open(tmp_path / "m/cat/GroundTruth/000001.bmp").size == (6, 4)
    (record,) = datasets.load("msrc", tmp_path / "m").images
    assert (record.name, record.read()) == ("cat/000001.jpg", data)
    (cat,) = told(record).objects
    np.testing.assert_array_equal(pixels(cat.mask), mask)


def test_what_has_no_group_is_left_out_or_refused(tmp_path: Path) -> None:
    mask = masks.from_array(np.ones((4, 6), bool))
    bare, crowd = Object(0, "box", (0, 0, 1, 1), 1), Object(0, "cow", (0, 0, 6, 4), 24, True, mask)
    with pytest.raises(DatasetError, match="no masks of objects"):
        written([bare, crowd], tmp_path / "a")
    written([bare, crowd, Object(0, "cat", (0, 0, 6, 4), 24, mask=mask)], tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["cat"]
    for name in ("../x", ".x", "a/b"):
        with pytest.raises(DatasetError, match="cannot be a folder's name"):
            written(
                [Object(0, name, (0, 0, 6, 4), 24, mask=mask)], tmp_path / name.replace("/", "-").strip(".")
            )


# ------------------------------------------------------------------------------------ nothing without a word


def test_what_is_not_taken_is_told(tmp_path: Path) -> None:
    root = make(tmp_path, Image.new("L", (6, 4), 255))
    for path in ("a.jpg", "inner/b.png", "GroundTruth/z.png", "GroundTruth/a.bmp", "a.json"):
        (root / "dog" / path).parent.mkdir(exist_ok=True)
        (root / "dog" / path).write_bytes(b"")
    (root / "b.png").write_bytes(b"")
    dataset = datasets.load("msrc", root)
    assert [record.name for record in dataset.images] == ["dog/a.bmp"]
    assert {(note.place, note.count, note.lost) for note in dataset.notes} == {
        ("b.png", 1, True),
        ("dog/a.jpg", 2, True),  # and one of the two masks that both are a's
        ("dog/inner", 1, True),
        ("dog/GroundTruth/z.png", 1, True),
        ("dog/._a.bmp", 1, False),
        ("dog/Thumbs.db", 1, False),
        ("dog/a.json", 1, False),
    }


def test_groups_beside_msrc_v2_are_told(tmp_path: Path) -> None:
    root = make(tmp_path, Image.new("L", (6, 4), 255))
    for folder in ("Images", "GroundTruth"):
        (root / folder).mkdir()
    Image.new("RGB", (6, 4)).save(root / "Images" / "1_1_s.bmp")
    Image.new("RGB", (6, 4), (128, 0, 0)).save(root / "GroundTruth" / "1_1_s_GT.bmp")
    Image.new("RGB", (6, 4)).save(root / "GroundTruth" / "1_1_s.bmp")
    dataset = datasets.load("msrc", root)
    assert [[thing.category for thing in told(record).objects] for record in dataset.images] == [["building"]]
    assert {(note.place, note.lost) for note in dataset.notes} == {
        ("dog", True),
        ("GroundTruth/1_1_s.bmp", True),
    }


@pytest.mark.parametrize(("value", "area", "lost"), [(1, 3, False), (2, 0, True), (127, 0, True)])
def test_a_mask_that_is_nowhere_white_is_told(tmp_path: Path, value: int, area: int, lost: bool) -> None:
    values = np.zeros((4, 6), np.uint8)
    values[0, :3] = value
    (record,) = datasets.load("msrc", make(tmp_path, Image.fromarray(values))).images
    found = told(record)
    assert sum(thing.area for thing in found.objects) == area
    assert [(note.place, note.lost) for note in found.notes] == [("dog/GroundTruth/a.png", lost)]


def test_a_groups_name_that_is_no_unicode_can_be_stored(tmp_path: Path) -> None:
    root = make(tmp_path, Image.new("L", (6, 4), 255))
    (root / "dog").rename(root / os.fsdecode(b"d\xf6g"))
    (record,) = datasets.load("msrc", root).images
    assert (record.name, told(record).objects[0].category) == (r"d\xf6g/a.bmp", r"d\xf6g")
