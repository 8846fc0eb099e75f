"""Exports read back: by their recipe, by pycocotools, and through a whole ingest; all equal the data set."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, masks, recipes
from kvstore.contracts import Annotations, Dataset, ImageRecord, Keypoint, Object
from kvstore.errors import DatasetError
from kvstore.export import export
from kvstore.images import decode
from tests import samples
from tests.ingesting import array, assert_clean, ingest, query, rows

LIMIT = 12


def truth(dataset: Dataset) -> list[tuple[bytes, Annotations]]:
    """Bytes and annotations of each image, as the data set's own recipe gives them."""
    found = []
    for record in dataset.images:
        image = decode(record.read())
        annotations = record.annotate(image.width, image.height, image.orientation)
        found.append((record.read(), annotations))
    return found


def pixels(mask: str | None) -> np.ndarray[Any, Any]:
    from pycocotools import mask as coco

    assert mask
    return coco.decode(json.loads(mask)).astype(bool)


# ----------------------------------------------------------------------------------- shapes as COCO, and back


@pytest.fixture(scope="module", params=["test", "train", "val"])
def exported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Dataset]:
    """Where a split of drawn scenes was written as COCO, the split's name there, and what was written."""
    root = tmp_path_factory.mktemp("exports") / "coco"
    dataset = export("shapes", "coco", root, split=request.param, limit=LIMIT)
    return root, "train2017" if request.param == "train" else "val2017", dataset


def test_the_recipe_reads_back_what_was_drawn(exported: tuple[Path, str, Dataset]) -> None:
    root, split, dataset = exported
    drawn, read = truth(dataset), truth(datasets.load("coco", root, split))
    assert len(drawn) == len(read) == LIMIT
    assert sum(len(annotations.objects) for _, annotations in drawn) > LIMIT
    for (data, ours), (same, theirs) in zip(drawn, read, strict=True):
        assert data == same
        assert theirs.captions == ours.captions
        assert len(theirs.objects) == len(ours.objects)
        for one, other in zip(ours.objects, theirs.objects, strict=True):
            assert (other.category, other.box, other.area, other.crowd) == (
                one.category,
                one.box,
                one.area,
                one.crowd,
            )
            np.testing.assert_array_equal(pixels(other.mask), pixels(one.mask))
            assert points(other) == points(one)


def points(thing: Object) -> dict[str, Any]:
    assert thing.keypoints
    return {
        point.name: (pytest.approx(point.x, abs=1e-9), pytest.approx(point.y, abs=1e-9), point.visible)
        for point in thing.keypoints
    }


def test_pycocotools_reads_what_was_drawn(exported: tuple[Path, str, Dataset]) -> None:
    from pycocotools.coco import COCO

    root, split, dataset = exported
    official = COCO(str(root / "annotations" / f"person_keypoints_{split}.json"))
    instances = COCO(str(root / "annotations" / f"instances_{split}.json"))
    assert min(instances.anns) == 1  # cocoeval takes id 0 for no match
    drawn = truth(dataset)
    for number, (data, ours) in zip(instances.getImgIds(), drawn, strict=True):
        (image,) = instances.loadImgs(number)
        assert (root / split / image["file_name"]).read_bytes() == data
        assert Path(image["file_name"]).stem == f"{number:012d}"
        assert (image["width"], image["height"]) == Image.open(io.BytesIO(data)).size
        found = instances.loadAnns(instances.getAnnIds(number))
        for thing, annotation in zip(ours.objects, found, strict=True):
            assert instances.cats[annotation["category_id"]]["name"] == thing.category
            mask = instances.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(mask, pixels(thing.mask))
            ys, xs = np.nonzero(mask)
            x, y = xs.min(), ys.min()
            assert annotation["bbox"] == [x, y, xs.max() + 1 - x, ys.max() + 1 - y]
            assert annotation["area"] == mask.sum()
            posed = official.anns[annotation["id"]]
            names = official.cats[posed["category_id"]]["keypoints"]
            flat = np.reshape(posed["keypoints"], (-1, 3))
            assert len(flat) == len(names) == len(set(names))
            assert posed["num_keypoints"] == len(thing.keypoints) == (flat[:, 2] > 0).sum()
            seen = {point.name: (point.x - 0.5, point.y - 0.5, point.visible) for point in thing.keypoints}
            for name, point in zip(names, flat, strict=True):
                np.testing.assert_allclose(point, seen.get(name, (0, 0, 0)), atol=1e-9)


def test_captions_are_a_file_of_their_own_and_only_where_there_are_any(
    exported: tuple[Path, str, Dataset],
) -> None:
    root, split, dataset = exported
    expected = [text for _, annotations in truth(dataset) for text in annotations.captions]
    path = root / "annotations" / f"captions_{split}.json"
    assert path.exists() == bool(expected)
    if expected:
        found = json.loads(path.read_text())["annotations"]
        assert [row["caption"] for row in found] == expected
        assert len({row["id"] for row in found}) == len(found)


@pytest.mark.parametrize("format_", ["coco", "folder"])
def test_an_ingest_of_the_export_has_the_vectors_of_an_ingest_of_shapes(tmp_path: Path, format_: str) -> None:
    export("shapes", format_, tmp_path / "data", limit=3)
    store, drawn = ingest(tmp_path / "store", tmp_path, dataset="shapes", limit=3)
    _, read = ingest(tmp_path / "store", tmp_path / "data", dataset=format_)
    assert (drawn.images, read.images, read.quarantined) == (3, 3, 0)
    for kind in ("patch_kv", "pooled_kv", "patch_input"):
        ours, theirs = rows(store, drawn.run_id, kind), rows(store, read.run_id, kind)
        assert ours.num_rows > 0
        assert ours.equals(theirs)
    assert array(rows(store, read.run_id, "patch_kv"), "value").any()
    if format_ == "coco":
        told: dict[str, set[Any]] = {}
        columns = "dataset_id, image_id, category, x0, y0, x1, y1, area, mask"
        for dataset, *row in query(store, f"select {columns} from object"):
            told.setdefault(dataset, set()).add(str(row))
        ours, theirs = told.values()
        assert ours == theirs
    assert_clean(store)


# ----------------------------------------------------------------------------- what other data sets may hold


def picture(size: tuple[int, int], orientation: int = 1, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 40, orientation)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def made(*images: tuple[str, bytes, Sequence[Object]], split: str = "") -> Dataset:
    records = [
        ImageRecord(name, lambda data=data: data, lambda w, h, o, things=things: Annotations(tuple(things)))
        for name, data, things in images
    ]
    return Dataset("made", split, records)


def written(format_: str, dataset: Dataset, folder: Path) -> Path:
    folder.mkdir()
    recipes.load("ingest/exports", format_).write(dataset, folder)
    return folder


def test_real_coco_comes_back_but_for_its_numbers(tmp_path: Path) -> None:
    root = samples.folder("coco")
    export("coco", "coco", tmp_path / "coco", root=root)
    real, read = (truth(datasets.load("coco", folder)) for folder in (root, tmp_path / "coco"))
    assert [data for data, _ in real] == [data for data, _ in read]
    for (_, ours), (_, theirs) in zip(real, read, strict=True):
        assert ours.captions == theirs.captions
        for one, other in zip(ours.objects, theirs.objects, strict=True):
            assert other.box == pytest.approx(one.box, abs=1e-9)
            assert (other.category, other.area, other.crowd) == (one.category, one.area, one.crowd)
            assert other.mask == one.mask
            assert sorted(other.keypoints, key=str) == sorted(one.keypoints, key=str)


def test_points_keep_their_order_though_objects_lack_some(tmp_path: Path) -> None:
    labelled = (("ear", "tail"), ("nose", "ear", "eye"), ("nose", "eye", "tail"))
    things = [
        Object(number, "cat", (0, 0, 4, 4), 16, keypoints=tuple(Keypoint(name, 1, 2) for name in names))
        for number, names in enumerate(labelled)
    ]
    root = written("coco", made(("a.jpg", picture((4, 4)), things)), tmp_path / "coco")
    content = json.loads((root / "annotations" / "person_keypoints_val2017.json").read_text())
    assert content["categories"][0]["keypoints"] == ["nose", "ear", "eye", "tail"]
    assert content["annotations"][0]["keypoints"] == [0, 0, 0, 0.5, 1.5, 2, 0, 0, 0, 0.5, 1.5, 2]
    assert [row["num_keypoints"] for row in content["annotations"]] == [2, 3, 3]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(12, 8), (8, 8)])
def test_annotations_of_a_turned_image_are_read_back_upright(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    data = picture(size, orientation)
    upright = decode(data)
    mask = np.zeros((upright.height, upright.width), bool)
    mask[1:4, 2:7] = True
    mask[1, 2] = False
    thing = Object(
        7, "cat", (2, 1, 7, 4), 14, mask=masks.from_array(mask), keypoints=(Keypoint("ear", 2.25, 3.5, 1),)
    )
    root = written("coco", made(("a.jpg", data, [thing])), tmp_path / "coco")
    (record,) = datasets.load("coco", root).images
    assert record.read() == data
    (found,) = record.annotate(upright.width, upright.height, orientation).objects
    assert found.box == thing.box
    np.testing.assert_array_equal(pixels(found.mask), mask)
    assert found.keypoints == thing.keypoints


def test_crowds_bare_boxes_and_images_without_objects(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    mask = np.zeros((8, 12), bool)
    mask[2:5, 3] = True
    things = [
        Object(0, "cat", (3, 2, 4, 5), 99, crowd=True, mask=masks.from_array(mask)),
        Object(0, "dog", (0.5, 1, 4.25, 5), 7.5),
    ]
    data = picture((12, 8), kind="WEBP")
    dataset = made(("x/a", picture((4, 4), kind="PNG"), []), ("b", data, things), split="training")
    root = written("coco", dataset, tmp_path / "coco")
    assert sorted(path.name for path in (root / "annotations").iterdir()) == ["instances_train2017.json"]
    first, second = datasets.load("coco", root, "train2017").images
    assert (first.name, second.name) == ("train2017/000000000001.png", "train2017/000000000002.webp")
    assert first.annotate(4, 4, 1) == Annotations()
    crowd, bare = second.annotate(12, 8, 1).objects
    assert (crowd.crowd, crowd.area, bare.crowd, bare.mask) == (True, 99, False, None)
    assert (bare.box, bare.area, bare.object_id) == (
        (0.5, 1, 4.25, 5),
        7.5,
        2,
    )  # ids met twice are told apart
    official = COCO(str(root / "annotations" / "instances_train2017.json"))
    # 3 columns of 8 and 2 rows lie before; 3 are inside; the rest of 96 pixels after
    assert official.anns[1]["segmentation"] == {"size": [8, 12], "counts": [26, 3, 67]}
    np.testing.assert_array_equal(official.annToMask(official.anns[1]).astype(bool), mask)


def test_a_folder_keeps_bytes_and_names(tmp_path: Path) -> None:
    data = {
        name: picture((4, 4), kind=kind)
        for name, kind in (("a/é.jpg", "JPEG"), ("b/é.jpg", "PNG"), ("c", "PNG"))
    }
    root = written("folder", made(*((name, content, ()) for name, content in data.items())), tmp_path / "f")
    read = {record.name: record.read() for record in datasets.load("folder", root).images}
    assert read == {"a/é.jpg": data["a/é.jpg"], "b/é.jpg": data["b/é.jpg"], "c.png": data["c"]}


@pytest.mark.parametrize(
    "names",
    [
        ["../x.jpg"],
        ["/tmp/x.jpg"],
        ["a/../../x.jpg"],
        [".x.jpg"],
        ["a//x.jpg"],
        ["a.jpg", "a.jpg"],
        ["a.jpg", "a.jpg/b.jpg"],
    ],
)
def test_a_name_that_the_folder_cannot_hold_is_refused(tmp_path: Path, names: list[str]) -> None:
    dataset = made(*((name, picture((4, 4)), ()) for name in names))
    with pytest.raises(DatasetError, match=r"x\.jpg|a\.jpg"):
        written("folder", dataset, tmp_path / "f")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_data_set_without_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda *args, **options: made())
    with pytest.raises(DatasetError, match="no images to export"):
        export("shapes", "coco", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
