"""Files in COCO's format as annotation tools write them: their images are found, their objects are whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kvstore import cli, datasets
from kvstore.contracts import Annotations, Dataset, Note
from kvstore.errors import DatasetError, ImageError, UsageError
from kvstore.images import decode
from kvstore.report.blocks import Thumbnail
from kvstore.report.pictures import Pictures
from kvstore.store import Store
from tests.ingesting import query
from tests.tiny import noise

RING = [4, 2, 14, 2, 14, 8, 4, 8]


def export(root: Path, at: str, files: list[str], **content: Any) -> Path:
    """A tool's file `at`, and pictures of 40 x 24 pixels; each has its own content."""
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise((40, 24), number).save(root / name)
    path = root / at
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def image(number: int = 1, name: Any = "a.png", **more: Any) -> dict[str, Any]:
    return {"id": number, "width": 40, "height": 24, "file_name": name} | more


def thing(number: int = 1, image: int = 1, kind: int = 1, **more: Any) -> dict[str, Any]:
    box = {"bbox": [4, 2, 10, 6], "area": 60, "segmentation": [RING]}
    return {"id": number, "image_id": image, "category_id": kind} | box | more


CAT = [{"id": 1, "name": "cat"}]


def read(dataset: Dataset, place: int = 0) -> tuple[bytes, Annotations]:
    record = dataset.images[place]
    data = record.read()
    made = decode(data)
    return data, record.annotate(made.width, made.height, made.orientation)


def assert_read(dataset: Dataset, folder: Path, expected: dict[str, tuple[str, list[str]]]) -> None:
    """Name of each image -> its file, and the categories of its objects; nothing is lost."""
    found = {}
    for place, record in enumerate(dataset.images):
        data, made = read(dataset, place)
        (file,) = (p for p in folder.rglob("*") if p.is_file() and p.read_bytes() == data)
        found[record.name] = (file.relative_to(folder).as_posix(), [thing.category for thing in made.objects])
        assert not any(note.lost for note in made.notes)
    assert found == expected
    assert not any(note.lost for note in dataset.notes)


# ------------------------------------------------------------------------------------- each tool's true form


def test_lvis_has_a_url_alone(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org"
    kinds = [{"id": 3, "name": "aerosol_can", "synset": "aerosol.n.02", "frequency": "c", "def": "a can"}]
    images = [
        {"id": 397133, "coco_url": f"{url}/val2017/000000397133.png", "width": 40, "height": 24},
        {"id": 9, "coco_url": f"{url}/train2017/000000000009.png", "width": 40, "height": 24},
    ]
    images = [
        row | {"neg_category_ids": [], "not_exhaustive_category_ids": [], "license": 1} for row in images
    ]
    files = ["val2017/000000397133.png", "train2017/000000000009.png"]
    path = export(
        tmp_path, "lvis_v1_val.json", files, images=images, categories=kinds, annotations=[thing(1, 9, 3)]
    )
    expected = {
        "val2017/000000397133.png": ("val2017/000000397133.png", []),
        "train2017/000000000009.png": ("train2017/000000000009.png", ["aerosol_can"]),
    }
    assert_read(datasets.load("coco", annotations=path), tmp_path, expected)
    folder = tmp_path / "val2017"  # of one split alone: the name alone
    shutil.copy(tmp_path / files[1], folder)
    dataset = datasets.load("coco", annotations=path, images=folder)
    assert dataset.images[1].name == "train2017/000000000009.png"
    assert read(dataset, 1)[0] == (tmp_path / files[1]).read_bytes()
    note = Note("images found by the end of their file names", "train2017/000000000009.png", lost=False)
    assert read(dataset, 1)[1].notes == (note,)


def test_roboflow_has_its_file_among_the_images_and_a_root_category_0(tmp_path: Path) -> None:
    name = "a_png.rf.0a1b2c3d4e5f.png"
    kinds = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    path = export(
        tmp_path,
        "train/_annotations.coco.json",
        [f"train/{name}"],
        info={"year": "2024", "version": "3", "description": "Exported from roboflow.com"},
        licenses=[{"id": 1, "url": "", "name": "Private"}],
        categories=kinds,
        images=[
            image(0, name, license=1, date_captured="2024-01-01T00:00:00+00:00", extra={"name": "a.png"})
        ],
        annotations=[thing(0, 0, 2, segmentation=[], iscrowd=0), thing(1, 0, 1, iscrowd=0)],
    )
    dataset = datasets.load("coco", annotations=path)
    assert_read(dataset, path.parent, {name: (name, ["dog", "cat"])})
    assert dataset.categories == {0: "pets", 1: "cat", 2: "dog"}
    assert (dataset.name, dataset.split) == ("coco", "_annotations.coco")


def test_cvat_has_folders_in_its_names_and_masks_as_run_lengths(tmp_path: Path) -> None:
    runs = {"size": [24, 40], "counts": [4 * 24 + 2, 6, *[18, 6] * 9, 16 + 26 * 24]}
    row = image(1, "front/a.png", license=0, flickr_url="", coco_url="", date_captured=0)
    said = {"attributes": {"occluded": False, "rotation": 0.0}}
    path = export(
        tmp_path,
        "annotations/instances_default.json",
        ["images/front/a.png", "images/back/a.png"],
        licenses=[{"name": "", "id": 0, "url": ""}],
        categories=[{"id": 1, "name": "cat", "supercategory": ""}],
        images=[row, row | {"id": 2, "file_name": "back/a.png"}],
        annotations=[
            thing(1, 1, iscrowd=0, segmentation=[], **said),
            thing(2, 2, iscrowd=1, segmentation=runs, **said),
        ],
    )
    dataset = datasets.load("coco", annotations=path, images=tmp_path / "images")
    expected = {name: (name, ["cat"]) for name in ("front/a.png", "back/a.png")}
    assert_read(dataset, tmp_path / "images", expected)
    (found,) = read(dataset, 1)[1].objects
    assert found.crowd
    assert found.mask


@pytest.mark.parametrize(
    "name",
    [
        "images/5f0f/3d9a-a.png",
        r"images\5f0f\3d9a-a.png",
        r"C:\label-studio\media\images\5f0f\3d9a-a.png",
        "/label-studio/data/media/images/5f0f/3d9a-a.png",
        "../../label-studio/data/media/images/5f0f/3d9a-a.png",
        "/data/local-files/?d=pets/images/5f0f/3d9a-a.png",
        "/data/local-files/?d=pets%2Fimages%2F5f0f%2F3d9a-a.png",
        "http://localhost:8080/data/local-files/?d=images/5f0f/3d9a-a.png",
        "s3://bucket/images/5f0f/3d9a-a.png",
    ],
)
def test_label_studio_writes_paths_and_urls_of_its_own_machine(tmp_path: Path, name: str) -> None:
    path = export(
        tmp_path,
        "result.json",
        ["images/5f0f/3d9a-a.png", "images/3d9a-a.png"],
        images=[image(0, name)],
        categories=[{"id": 0, "name": "cat"}],
        annotations=[thing(0, 0, 0, iscrowd=0, ignore=0)],
        info={"contributor": "Label Studio"},
    )
    dataset = datasets.load("coco", annotations=path)
    data, made = read(dataset)
    assert data == (tmp_path / "images/5f0f/3d9a-a.png").read_bytes()
    assert read(datasets.load("coco", annotations=path, images=tmp_path / "images" / "5f0f"))[0] == data
    assert [found.category for found in made.objects] == ["cat"]
    assert ".." not in dataset.images[0].name
    assert "\\" not in dataset.images[0].name


def test_label_studio_writes_the_url_of_an_upload_whose_picture_lies_flat_in_images(tmp_path: Path) -> None:
    url = "http://localhost:8080/data/upload/1/3d9a-a.png?token=1"
    content = {"images": [image(0, url)], "categories": CAT, "annotations": [thing(0, 0)]}
    path = export(tmp_path, "result.json", ["images/3d9a-a.png"], **content)
    data, made = read(datasets.load("coco", annotations=path, images=tmp_path / "images"))
    assert data == (tmp_path / "images/3d9a-a.png").read_bytes()
    assert len(made.objects) == 1


def test_datumaro_names_its_images_below_a_subset(tmp_path: Path) -> None:
    path = export(
        tmp_path,
        "annotations/instances_train.json",
        ["images/train/x/a.png"],
        images=[image(1, "x/a.png", license=0, flickr_url="", coco_url="", date_captured=0)],
        categories=[{"id": 1, "name": "cat", "supercategory": ""}, {"id": 5, "name": "dog"}],
        annotations=[thing(1, 1, 5, iscrowd=0, attributes={"is_crowd": False})],
    )
    folder = tmp_path / "images" / "train"
    assert_read(
        datasets.load("coco", annotations=path, images=folder), folder, {"x/a.png": ("x/a.png", ["dog"])}
    )


@pytest.mark.parametrize("absolute", [False, True])
def test_fiftyone_names_files_or_their_whole_paths(tmp_path: Path, absolute: bool) -> None:
    name = str(tmp_path / "data" / "a.png") if absolute else "a.png"
    path = export(
        tmp_path,
        "labels.json",
        ["data/a.png"],
        info={"description": "Exported from FiftyOne"},
        licenses=[],
        categories=[{"id": 0, "name": "cat", "supercategory": None}],
        images=[image(1, name, license=None, coco_url=None)],
        annotations=[thing(1, 1, 0, iscrowd=0)],
    )
    dataset = datasets.load("coco", annotations=path, images=tmp_path / "data")
    data, made = read(dataset)
    assert data == (tmp_path / "data" / "a.png").read_bytes()
    assert [found.category for found in made.objects] == ["cat"]
    assert bool(made.notes) == absolute


def test_an_archive_of_windows_may_leave_backslashes_in_names_of_files(tmp_path: Path) -> None:
    content = {"images": [image(name=r"images\a.png")], "categories": CAT, "annotations": [thing()]}
    path = export(tmp_path, "result.json", ["images\\a.png"], **content)
    assert read(datasets.load("coco", annotations=path))[0] == (tmp_path / "images\\a.png").read_bytes()


# ---------------------------------------------------------------------------------------- what is not guessed


def test_an_end_that_two_names_share_is_no_file_of_either(tmp_path: Path) -> None:
    images = [image(1, "front/a.png"), image(2, "back/a.png"), image(3, "b.png")]
    path = export(
        tmp_path,
        "x.json",
        ["a.png", "back/a.png", "b.png"],
        images=images,
        categories=CAT,
        annotations=[thing()],
    )
    front, back, plain = datasets.load("coco", annotations=path).images
    with pytest.raises(ImageError, match=r"no file 'front/a\.png' in .*, nor one of its last parts alone"):
        front.read()
    assert back.read() == (tmp_path / "back/a.png").read_bytes()
    assert plain.read() == (tmp_path / "b.png").read_bytes()


def test_the_same_file_is_the_same_data_set_whatever_lies_on_the_disk(tmp_path: Path) -> None:
    content = {"images": [image(name="x/a.png")], "categories": CAT, "annotations": [thing()]}
    path = export(tmp_path, "x.json", [], **content)
    before = datasets.fingerprint(datasets.load("coco", annotations=path))
    export(tmp_path, "x.json", ["a.png"], **content)
    assert datasets.fingerprint(datasets.load("coco", annotations=path)) == before
    export(tmp_path, "x.json", ["a.png"], **content | {"annotations": []})
    assert datasets.fingerprint(datasets.load("coco", annotations=path)) != before


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    noise((40, 24)).save(tmp_path / "secret.png")
    path = export(tmp_path / "in", "x.json", [], images=[image()], categories=CAT, annotations=[thing()])
    (path.parent / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ImageError) as caught:
        datasets.load("coco", annotations=path).images[0].read()
    assert caught.value.reason == "unsafe-path"


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../secret.png", "a\0.png", "x" * 5000 + ".png", "\ud83d.png", "http://[x", "/"]
)
def test_a_name_that_is_no_path_spoils_only_its_own_image(tmp_path: Path, name: str) -> None:
    noise((40, 24)).save(tmp_path / "secret.png")
    content = {"images": [image(1, name), image(2, "b.png")], "categories": CAT, "annotations": [thing()]}
    dataset = datasets.load("coco", annotations=export(tmp_path / "in", "x.json", ["b.png"], **content))
    assert dataset.images[-1].read() == (tmp_path / "in" / "b.png").read_bytes()
    if len(dataset.images) == 2:
        with pytest.raises(ImageError):
            dataset.images[0].read()
    else:
        assert dataset.notes[0].kind == "images without a usable id or file name"


# ------------------------------------------------------------------------------------------- as it is asked


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        ({"name": "folder"}, UsageError, "folder takes no --annotations"),
        ({"annotations": None}, UsageError, "--images goes with --annotations"),
        ({"split": "val2017"}, UsageError, "--split do not go with"),
        ({"root": Path("x")}, UsageError, "--split do not go with"),
        ({"images": Path("none")}, DatasetError, "no folder none of images; name it with --images"),
        ({"annotations": Path("none.json")}, DatasetError, r"cannot read none\.json: No such file"),
        ({"annotations": Path("https://x.org/a.json")}, UsageError, "is a URL"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    tmp_path: Path, asked: dict[str, Any], error: type[Exception], told: str
) -> None:
    path = export(tmp_path, "x.json", ["a.png"], images=[image()], categories=CAT, annotations=[thing()])
    given = {"name": "coco", "annotations": path, "images": tmp_path} | asked
    with pytest.raises(error, match=told):
        datasets.load(**given)


def test_ingest_and_export_take_an_export(tmp_path: Path, capsys: Any) -> None:
    rows = [thing(), thing(2, 7)]
    path = export(tmp_path, "in/x.json", ["in/a.png"], images=[image()], categories=CAT, annotations=rows)
    typed = ["--annotations", str(path), "--images", str(path.parent)]
    model = ["--model", "tiny-onevision", "--layers", "0", "--sites", "value"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["ingest", "coco", *typed, *model, "--store", str(tmp_path / "s")])
    assert caught.value.code == 1
    assert "left out   1 annotations of images that are not listed (first: x.json, annotation 2)" in (
        capsys.readouterr().err
    )
    store = Store.open(tmp_path / "s")
    assert query(store, "select dataset_id, category from object") == [("coco/x", "cat")]
    with store.connect() as con:  # a gallery finds the image again
        (digest,) = con.execute("select sha256 from image").fetchall()[0]
        assert type(Pictures(con).thumbnail(digest)) is Thumbnail
    with pytest.raises(SystemExit):
        cli.main(["coco", "export", "coco", str(tmp_path / "out"), *typed])
    assert len(datasets.load("coco", tmp_path / "out").images) == 1
