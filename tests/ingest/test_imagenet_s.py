"""ImageNet-S with the real list of classes, made wrong by hand, and as an export read back."""

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


# ---------------------------------------------------------------------------------------------- made by hand


CODES = np.zeros((4, 6), np.int64)
CODES[0, :3] = 1
CODES[2:, 1:] = 3
CODES[1, 5] = 1000
WNIDS = ["n01443537", "n02012849", "n03126707"]


def coded(codes: Array) -> Image.Image:
    """The official coding: the class is R + 256 G."""
    return Image.fromarray(np.dstack([codes % 256, codes // 256, codes * 0]).astype(np.uint8))


def place(root: Path, size: int, name: str, codes: Array, pixels: tuple[int, int] = (6, 4)) -> None:
    """An image and its mask."""
    base = root / f"ImageNetS{size}"
    for folder, ending, image in (
        ("validation", "JPEG", Image.new("RGB", pixels)),
        ("validation-segmentation", "png", coded(codes)),
    ):
        (base / folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(base / folder / f"{name}.{ending}")


def make(root: Path, codes: Array = CODES, size: int = 50, pixels: tuple[int, int] = (6, 4)) -> Path:
    """One image of 6 x 4 pixels: 3 of the first class, 10 of the third, one void."""
    place(root, size, "n01443537/ILSVRC2012_val_00000001", codes, pixels)
    (root / f"ImageNetS_categories_im{size}.txt").write_text("\n".join(WNIDS))
    return root


def test_a_class_is_an_object_and_1000_is_void(tmp_path: Path) -> None:
    (record,) = datasets.load("imagenet_s", make(tmp_path)).images
    assert record.name == "ImageNetS50/validation/n01443537/ILSVRC2012_val_00000001.JPEG"
    found = told(record)
    assert [(thing.category, thing.box, thing.area) for thing in found.objects] == [
        ("n01443537", (0, 0, 3, 1), 3),
        ("n03126707", (1, 2, 6, 4), 10),
    ]
    np.testing.assert_array_equal(pixels(found.void), CODES == 1000)


@pytest.mark.parametrize("file", ["synset_words.txt", "LOC_synset_mapping.txt"])
def test_classes_get_their_names_from_imagenets_own_files(tmp_path: Path, file: str) -> None:
    make(tmp_path)
    bare = datasets.fingerprint(datasets.load("imagenet_s", tmp_path))
    words = "n01443537 goldfish, Carassius auratus\nn02012849 crane\nn03126707 crane\nn99999999 other\n"
    (tmp_path / file).write_text(words)
    dataset = datasets.load("imagenet_s", tmp_path)
    names = [thing.category for thing in told(dataset.images[0]).objects]
    assert names == ["goldfish", "crane (n03126707)"]  # a bird and a machine are not one class
    assert datasets.fingerprint(dataset) != bare


def test_classes_beyond_255_use_the_second_byte(tmp_path: Path) -> None:
    codes = CODES.copy()
    codes[3, 0] = 300  # 44 + 256
    make(tmp_path, codes, 300)
    lines = "".join(f"n{number:08d}\n" for number in range(1, 301))
    (tmp_path / "ImageNetS_categories_im300.txt").write_text(lines)
    (record,) = datasets.load("imagenet_s", tmp_path, "300-validation").images
    found = {thing.category: thing.area for thing in told(record).objects}
    assert found == {"n00000001": 3, "n00000003": 10, "n00000300": 1}


def test_object_ids_are_unique_and_the_order_is_that_of_names(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("n03126707/b", "n02012849/z", "n03126707/a"):
        place(tmp_path, 50, name, CODES)
    dataset = datasets.load("imagenet_s", tmp_path)
    assert [Path(record.name).stem for record in dataset.images] == [
        "ILSVRC2012_val_00000001",
        "z",
        "a",
        "b",
    ]
    assert len({thing.object_id for record in dataset.images for thing in told(record).objects}) == 8


def test_the_real_list_and_its_real_first_images(tmp_path: Path) -> None:
    """Class i is line i: the lists here are real, image and mask stand in for those that are not."""
    shutil.copytree(samples.folder("ImageNetS") / "data", tmp_path / "data")
    listed = (tmp_path / "data/mapping/ImageNetS_im50_mapping_validation.txt").read_text().split()
    name = listed[0].removesuffix(".JPEG")
    assert name == "n01443537/ILSVRC2012_val_00004677"
    codes = np.array([[1, 0, 50, 50], [1000, 2, 2, 2]])
    place(tmp_path, 50, name, codes, (4, 2))
    (record,) = datasets.load("imagenet_s", tmp_path).images
    found = {thing.category: thing.area for thing in told(record).objects}
    assert found == {"n01443537": 1, "n01491361": 3, "n12998815": 2}  # lines 1, 2 and 50


def test_what_is_missing_is_told_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"no ImageNetS50/validation in .*datapreparation_val\.py .*--mode 50"
    ):
        datasets.load("imagenet_s", tmp_path)
    (tmp_path / "ImageNetS50/validation").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"validation-segmentation in .*datapreparation_anno\.sh"):
        datasets.load("imagenet_s", tmp_path)
    (tmp_path / "ImageNetS50/validation-segmentation").mkdir()
    with pytest.raises(DatasetError, match=r"ImageNetS_categories_im50\.txt in .*curl -o"):
        datasets.load("imagenet_s", tmp_path)
    (tmp_path / "ImageNetS_categories_im50.txt").write_text("n01443537\n")
    with pytest.raises(DatasetError, match="no image in"):
        datasets.load("imagenet_s", tmp_path)
    make(tmp_path)
    with pytest.raises(DatasetError, match="no ImageNetS919/validation"):
        datasets.load("imagenet_s", tmp_path, "919-validation")


@pytest.mark.parametrize(
    ("codes", "size", "reason", "said"),
    [
        (CODES, (6, 5), "changed", r"n01443537/ILSVRC2012_val_00000001\.png': annotated at 6 x 4 .* 6 x 5"),
        (CODES + 1, (6, 4), "unreadable", r"holds 4, which is none of 3 classes"),
    ],
)
def test_a_mask_that_does_not_fit_spoils_its_own_image(
    tmp_path: Path, codes: Array, size: tuple[int, int], reason: str, said: str
) -> None:
    (record,) = datasets.load("imagenet_s", make(tmp_path, codes, pixels=size)).images
    with pytest.raises(ImageError, match=said) as caught:
        told(record)
    assert caught.value.reason == reason


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_a_grey_mask_is_no_mask_without_classes(tmp_path: Path, mode: str) -> None:
    root = make(tmp_path)
    (file,) = (root / "ImageNetS50/validation-segmentation").rglob("*.png")
    red = np.asarray(Image.open(file))[..., 0]
    Image.fromarray(red if mode == "L" else red.astype(np.uint16)).save(file)
    (record,) = datasets.load("imagenet_s", root).images
    with pytest.raises(ImageError, match=rf"is {mode}; a class is red \+ 256 x green"):
        told(record)


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
    drawn = by_content(export("shapes", "imagenet_s", tmp_path / "i", limit=24))
    dataset = datasets.load("imagenet_s", tmp_path / "i")
    read = by_content(dataset)
    assert len(dataset.images) == 24
    assert read.keys() == drawn.keys()
    assert sum(map(len, drawn.values())) > 24
    for data, classes in drawn.items():
        assert read[data].keys() == classes.keys()
        for category, mask in classes.items():
            np.testing.assert_array_equal(read[data][category], mask)
    assert {told(record).void for record in dataset.images} == {None}


def written(folder: Path, *images: Annotations) -> Path:
    """Images of 6 x 4 pixels, exported."""
    folder.mkdir()
    Image.new("RGB", (6, 4)).save(folder.parent / "a.bmp")
    records = [
        ImageRecord(f"{n}", (folder.parent / "a.bmp").read_bytes, lambda *upright, said=said: said)
        for n, said in enumerate(images)
    ]
    recipes.load("ingest/exports", "imagenet_s").write(Dataset("made", "", records), folder)
    return folder


def thing(category: str, rows: slice, crowd: bool = False) -> Object:
    mask = np.zeros((4, 6), bool)
    mask[rows] = True
    return Object(0, category, (0, 0, 6, 4), 1, crowd, masks.from_array(mask))


def test_an_image_lies_with_its_largest_class_and_void_is_1000(tmp_path: Path) -> None:
    things = (
        thing("cat", slice(0, 1)),
        thing("traffic light", slice(1, 3)),
        thing("dog", slice(3, 4), crowd=True),
    )
    root = written(tmp_path / "i", Annotations(things), Annotations())
    mask = np.asarray(Image.open(root / "ImageNetS50/validation-segmentation/n00000002/00000001.png"))
    # 1000 = 232 + 3 * 256
    assert mask[:, 0].tolist() == [[1, 0, 0], [2, 0, 0], [2, 0, 0], [232, 3, 0]]
    none, some = datasets.load("imagenet_s", root).images
    assert none.name == "ImageNetS50/validation/n00000000/00000002.bmp"
    assert told(none) == Annotations()
    found = told(some)
    assert [(thing.category, thing.area) for thing in found.objects] == [("cat", 6), ("traffic light", 12)]
    assert pixels(found.void).sum() == 6


def test_the_size_is_the_smallest_that_holds_the_categories(tmp_path: Path) -> None:
    def many(count: int) -> Annotations:
        return Annotations(
            tuple(thing(f"c{number}", slice(number % 4, number % 4 + 1)) for number in range(count))
        )

    root = written(tmp_path / "i", many(51))
    assert sorted(path.name for path in root.iterdir()) == ["ImageNetS300", "data", "synset_words.txt"]
    (record,) = datasets.load("imagenet_s", root, "300-validation").images
    # the last on each row is seen: of 0 to 50, c48 on row 0, c49 on 1, c50 on 2, c47 on 3
    assert {found.category for found in told(record).objects} == {"c47", "c48", "c49", "c50"}
    with pytest.raises(DatasetError, match="over 919 categories"):
        written(tmp_path / "j", many(920))


# ------------------------------------------------------------------------------------ nothing without a word


def test_a_byte_order_mark_is_no_part_of_a_class(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "ImageNetS_categories_im50.txt").write_bytes("\ufeff".encode() + "\r\n".join(WNIDS).encode())
    words = "\ufeffn01443537 goldfish, Carassius auratus\r\nn02012849\tcrane\r\nn03126707 crane\r\n"
    (tmp_path / "LOC_synset_mapping.txt").write_text(words)
    dataset = datasets.load("imagenet_s", tmp_path)
    assert dataset.categories == {1: "goldfish", 2: "crane", 3: "crane (n03126707)"}
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("n01443537\n\nn03126707\n", "line 2 is blank"),  # else the crane would be class 2
        ("n01443537\nn03126707\nn01443537\n", "lists 'n01443537' twice"),
        ("".join(f"n{number:08d}\n" for number in range(1000)), "lists 1000 classes"),
    ],
)
def test_a_list_of_which_classes_cannot_be_told_is_refused(tmp_path: Path, listed: str, said: str) -> None:
    (make(tmp_path) / "ImageNetS_categories_im50.txt").write_text(listed)
    with pytest.raises(DatasetError, match=said):
        datasets.load("imagenet_s", tmp_path)


def test_what_is_not_taken_is_told(tmp_path: Path) -> None:
    base = make(tmp_path) / "ImageNetS50"
    place(tmp_path, 50, "n02012849/b", CODES)
    (base / "validation/n02012849/b.JPEG").unlink()
    for path in ("validation/n01443537/ILSVRC2012_val_00000001.png", "validation/c.JPEG"):
        (base / path).write_bytes(b"")
    (base / "validation/n01443537/a.xml").write_text("x")
    words = "n01443537 goldfish\nn01443537 carp\nn03126707 crane\n"
    (tmp_path / "synset_words.txt").write_text(words)
    dataset = datasets.load("imagenet_s", tmp_path)
    assert len(dataset.images) == 1
    assert {(note.place, note.count, note.lost) for note in dataset.notes} == {
        ("ImageNetS50/validation/c.JPEG", 1, True),
        ("ImageNetS50/validation/n01443537/ILSVRC2012_val_00000001.png", 1, True),
        ("ImageNetS50/validation-segmentation/n02012849/b.png", 1, True),
        ("ImageNetS50/validation/n01443537/a.xml", 1, False),
        ("synset_words.txt, n01443537", 1, False),
        ("synset_words.txt, n02012849", 1, False),
    }
    assert dataset.categories == {1: "goldfish", 2: "n02012849", 3: "crane"}
