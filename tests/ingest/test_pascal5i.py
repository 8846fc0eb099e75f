"""Pascal-5i against the real image, masks and fold lists, made wrong by hand, and as an export read back."""

from __future__ import annotations

import json
import shutil
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

Array = np.ndarray[Any, Any]


def pixels(mask: str | None) -> Array:
    from pycocotools import mask as coco

    assert mask
    return coco.decode(json.loads(mask)).astype(bool)


def told(record: ImageRecord) -> Annotations:
    image = decode(record.read())
    return record.annotate(image.width, image.height, image.orientation)


# ------------------------------------------------------------------------------------------- real samples


@pytest.fixture(params=["", "VOC2012", "VOCdevkit/VOC2012"])
def real(request: Any, tmp_path: Path) -> Path:
    """VOC 2012 as far as there is a sample, in a place where people keep it, with the real lists."""
    shutil.copytree(samples.folder("VOCdevkit") / "VOC2012", tmp_path / request.param, dirs_exist_ok=True)
    shutil.copytree(samples.folder("pascal-5i") / "splits", tmp_path / "splits")
    return tmp_path


@pytest.mark.parametrize(
    ("split", "images", "place", "code", "category"),
    [("fold0", 345, 2, 2, "bicycle"), ("fold2", 587, 0, 15, "person")],
)
@pytest.mark.parametrize("kind", ["SegmentationClass", "SegmentationClassAug"])
def test_a_real_image_has_the_class_under_which_the_real_list_names_it(
    real: Path, kind: str, split: str, images: int, place: int, code: int, category: str
) -> None:
    other = {"SegmentationClass": "SegmentationClassAug"}.get(kind, "SegmentationClass")
    (voc,) = {path.parent for path in real.rglob("JPEGImages")}
    shutil.rmtree(voc / other)
    dataset = datasets.load("pascal5i", real, split)
    assert len(dataset.images) == images  # distinct names; some have two lines
    record = dataset.images[place]
    assert record.name == (voc / "JPEGImages/2007_000129.jpg").relative_to(real).as_posix()
    found = told(record)
    assert [thing.category for thing in found.objects] == [category]
    codes = np.asarray(Image.open(voc / kind / "2007_000129.png"))
    np.testing.assert_array_equal(pixels(found.objects[0].mask), codes == code)
    np.testing.assert_array_equal(pixels(found.void), codes == 255)
    assert found.objects[0].area == {2: 34183, 15: 61143}[code]  # counted in the file with numpy


def test_an_image_that_is_not_there_is_missing_and_the_rest_is_not(real: Path) -> None:
    first, *_ = datasets.load("pascal5i", real, "fold0").images
    assert first.name.endswith("2007_000033.jpg")
    with pytest.raises(ImageError) as caught:
        first.read()
    assert caught.value.reason == "missing"


# ---------------------------------------------------------------------------------------------- made by hand


CODES = np.zeros((4, 6), np.uint8)
CODES[0, :3] = 1
CODES[2:, 1:] = 7
CODES[1, 5] = 255


def make(
    root: Path, lines: str = "a__01\na__07\n", codes: Array = CODES, size: tuple[int, int] = (6, 4)
) -> Path:
    """One image of 6 x 4 pixels with an aeroplane of 3, a car of 10 and one pixel void."""
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(root / "JPEGImages" / "a.png")
    Image.fromarray(codes).save(root / "SegmentationClass" / "a.png")
    (root / "fold0.txt").write_text(lines)
    return root


def test_objects_are_those_listed_and_their_ids_are_unique(tmp_path: Path) -> None:
    (record,) = datasets.load("pascal5i", make(tmp_path)).images
    assert record.name == "JPEGImages/a.png"  # whatever its ending
    aeroplane, car = told(record).objects
    assert (aeroplane.category, aeroplane.box, aeroplane.area) == ("aeroplane", (0, 0, 3, 1), 3)
    assert (car.category, car.box, car.area) == ("car", (1, 2, 6, 4), 10)
    assert aeroplane.object_id != car.object_id
    make(tmp_path, "b__07\na__07\n")
    _, again = datasets.load("pascal5i", tmp_path).images
    (only,) = told(again).objects
    assert only.category == "car"
    assert only.object_id not in (aeroplane.object_id, car.object_id)  # of another place


def test_other_names_of_classes_beside_the_lists(tmp_path: Path) -> None:
    make(tmp_path, "a__07\n")
    whole = datasets.fingerprint(datasets.load("pascal5i", tmp_path))
    (tmp_path / "classes.txt").write_text("".join(f"kind {n}\n" for n in range(1, 8)))
    dataset = datasets.load("pascal5i", tmp_path)
    assert [thing.category for thing in told(dataset.images[0]).objects] == ["kind 7"]
    assert datasets.fingerprint(dataset) != whole


@pytest.mark.parametrize("line", ["a__21", "a__0", "a", "__01", "a__x", "a__-1"])
def test_a_line_that_names_no_class_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(DatasetError, match=rf"fold0\.txt: '{line}' .*from 1 to 20"):
        datasets.load("pascal5i", make(tmp_path, f"a__01\n{line}\n"))


def test_what_is_missing_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"JPEGImages.*VOCtrainval_11-May-2012\.tar"):
        datasets.load("pascal5i", tmp_path)
    make(tmp_path)
    with pytest.raises(DatasetError, match=r"splits/val/fold3\.txt.*hsnet"):
        datasets.load("pascal5i", tmp_path, "fold3")
    shutil.rmtree(tmp_path / "SegmentationClass")
    with pytest.raises(DatasetError, match="no SegmentationClassAug nor SegmentationClass"):
        datasets.load("pascal5i", tmp_path)


@pytest.mark.parametrize(
    ("codes", "size", "reason", "said"),
    [
        (CODES, (7, 4), "changed", r"'a\.png': annotated at 6 x 4 pixels, but the file has 7 x 4"),
        (np.dstack([CODES] * 3), (6, 4), "unreadable", r"'a\.png' has mode RGB"),
        (CODES + 100, (6, 4), "unreadable", r"'a\.png' holds 99"),  # 255 + 100 - 256
    ],
)
def test_a_mask_that_fits_no_image_of_voc_spoils_its_own_image(
    tmp_path: Path, codes: Array, size: tuple[int, int], reason: str, said: str
) -> None:
    (record,) = datasets.load("pascal5i", make(tmp_path, codes=codes, size=size)).images
    with pytest.raises(ImageError, match=said) as caught:
        told(record)
    assert caught.value.reason == reason


def test_a_missing_and_a_broken_mask_are_told(tmp_path: Path) -> None:
    (record,) = datasets.load("pascal5i", make(tmp_path)).images
    mask = tmp_path / "SegmentationClass" / "a.png"
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"mask 'a\.png'"):
        told(record)
    mask.unlink()
    with pytest.raises(ImageError, match=r"no file 'a\.png'"):
        told(record)


# ------------------------------------------------------------------------------------------ exports read back


def truth(dataset: Dataset) -> list[dict[str, Array]]:
    """Per image: category -> the union of its objects, as the data set's own recipe gives them."""
    found = []
    for record in dataset.images:
        classes: dict[str, Array] = {}
        for thing in told(record).objects:
            classes[thing.category] = classes.get(thing.category, False) | pixels(thing.mask)
        found.append(classes)
    return found


def test_all_folds_together_read_back_what_was_drawn(tmp_path: Path) -> None:
    drawn = export("shapes", "pascal5i", tmp_path / "p", limit=24)
    read: dict[str, dict[str, Array]] = {}
    classes: list[set[str]] = []
    for split in ("fold0", "fold1", "fold2", "fold3"):
        fold = datasets.load("pascal5i", tmp_path / "p", split)
        found = truth(fold)
        classes.append(set().union(*found))
        for record, things in zip(fold.images, found, strict=True):
            assert told(record).void is None
            assert not read.setdefault(record.name, {}).keys() & things.keys()
            read[record.name] |= things
    assert [len(found) for found in classes] == [2, 2, 2, 2]  # eight kinds of things
    expected = truth(drawn)
    assert sum(map(len, expected)) > 24
    assert sorted(read) == [f"JPEGImages/{number:06d}.png" for number in range(1, 25)]
    for (name, found), things, record in zip(sorted(read.items()), expected, drawn.images, strict=True):
        assert (tmp_path / "p" / name).read_bytes() == record.read()
        assert found.keys() == things.keys()
        for category, mask in things.items():
            np.testing.assert_array_equal(found[category], mask)


def written(things: list[Object], void: Array | None, folder: Path) -> Path:
    """A 6 x 4 image with some objects, exported."""
    folder.mkdir()
    Image.new("RGB", (6, 4)).save(folder.parent / "a.png")
    said = Annotations(tuple(things), void=None if void is None else masks.from_array(void))
    record = ImageRecord("a.png", (folder.parent / "a.png").read_bytes, lambda *upright: said)
    recipes.load("ingest/exports", "pascal5i").write(Dataset("made", "", [record]), folder)
    return folder


def thing(category: str, rows: slice, crowd: bool = False) -> Object:
    mask = np.zeros((4, 6), bool)
    mask[rows] = True
    return Object(0, category, (0, 0, 6, 4), 1, crowd, masks.from_array(mask))


def test_the_later_object_is_seen_and_void_and_crowds_are_void(tmp_path: Path) -> None:
    void = np.zeros((4, 6), bool)
    void[:, 0] = True
    things = [thing("cat", slice(0, 2)), thing("dog", slice(1, 3)), thing("dog", slice(3, 4), crowd=True)]
    root = written([*things, Object(0, "box", (0, 0, 1, 1), 1)], void, tmp_path / "p")
    expected = np.array([[255, 1, 1, 1, 1, 1], [255, 2, 2, 2, 2, 2], [255, 2, 2, 2, 2, 2], [255] * 6])
    np.testing.assert_array_equal(np.asarray(Image.open(root / "SegmentationClassAug/000001.png")), expected)
    (record,) = datasets.load("pascal5i", root, "fold1").images
    found = told(record)
    assert [thing.category for thing in found.objects] == ["dog"]
    np.testing.assert_array_equal(pixels(found.void), expected == 255)


def test_what_a_class_map_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no masks of objects"):
        written([Object(0, "box", (0, 0, 1, 1), 1)], None, tmp_path / "boxes")
    things = [thing(f"c{number}", slice(0, 1)) for number in range(255)]
    with pytest.raises(DatasetError, match="over 254 categories"):
        written(things, None, tmp_path / "many")


# ------------------------------------------------------------------------------------ nothing without a word


def told_of(dataset: Dataset) -> set[tuple[str, int, bool]]:
    return {(note.place, note.count, note.lost) for note in dataset.notes}


def test_a_file_beside_an_image_neither_hides_it_nor_is_taken_for_it(tmp_path: Path) -> None:
    make(tmp_path)
    for ending in ("json", "txt", "xml", "tsv"):
        (tmp_path / "JPEGImages" / f"a.{ending}").write_text("x")
    (record,) = datasets.load("pascal5i", tmp_path).images
    assert record.name == "JPEGImages/a.png"
    (tmp_path / "JPEGImages" / "a.bmp").write_bytes(b"")
    dataset = datasets.load("pascal5i", tmp_path)
    assert [record.name for record in dataset.images] == ["JPEGImages/a.bmp"]
    assert told_of(dataset) == {("JPEGImages/a.png", 1, True)}


def test_a_list_with_a_byte_order_mark_and_an_entry_twice(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "fold0.txt").write_bytes(b"\xef\xbb\xbfa__01\r\na__07\r\na__01\r\n\r\na__01\r\n")
    dataset = datasets.load("pascal5i", tmp_path)
    assert [[thing.category for thing in told(record).objects] for record in dataset.images] == [
        ["aeroplane", "car"]
    ]
    assert told_of(dataset) == {("fold0.txt, a__01", 2, False)}


def test_a_class_that_the_list_names_and_the_mask_lacks_is_lost(tmp_path: Path) -> None:
    (record,) = datasets.load("pascal5i", make(tmp_path, "a__07\na__08\na__09\n")).images
    found = told(record)
    assert [thing.category for thing in found.objects] == ["car"]
    assert [(note.place, note.count, note.lost) for note in found.notes] == [("a.png", 2, True)]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("cat\n\ndog\n", "line 2 is blank"),  # else the dog would be class 2
        ("cat\ndog\ncat\n", "names 'cat' twice"),
        ("", "has 0 classes"),
        ("".join(f"c{n}\n" for n in range(255)), "has 255 classes"),
    ],
)
def test_class_names_of_which_none_can_be_told_are_refused(tmp_path: Path, classes: str, said: str) -> None:
    make(tmp_path)
    (tmp_path / "classes.txt").write_text(classes)
    with pytest.raises(DatasetError, match=said):
        datasets.load("pascal5i", tmp_path)


@pytest.mark.parametrize("line", ["", "a__" + "9" * 5000, "x" * 100_000, "a__1e400", "a__²"])
def test_a_list_of_nonsense_is_told_shortly(tmp_path: Path, line: str) -> None:
    with pytest.raises(DatasetError, match=r"fold0\.txt") as caught:
        datasets.load("pascal5i", make(tmp_path, f"{line}\n"))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_name_that_leaves_the_folder_is_not_read(tmp_path: Path) -> None:
    dataset = datasets.load("pascal5i", make(tmp_path, "/etc/a__01\n../a__01\n"))
    for record in dataset.images:
        with pytest.raises(ImageError) as caught:
            record.read()
        assert caught.value.reason == "unsafe-path"


def test_images_that_are_no_folder_are_told(tmp_path: Path) -> None:
    shutil.rmtree(make(tmp_path) / "JPEGImages")
    (tmp_path / "JPEGImages").write_text("x")
    with pytest.raises(DatasetError, match=r"cannot list .*JPEGImages: Not a directory"):
        datasets.load("pascal5i", tmp_path)
