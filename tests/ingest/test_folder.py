"""Any folder of images, hostile file names included."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from kvstore import datasets
from kvstore.errors import DatasetError, ImageError
from kvstore.report.blocks import Thumbnail
from kvstore.report.pictures import Pictures
from tests.ingesting import assert_clean, ingest, pictures, query


def names(root: Path) -> list[str]:
    return [record.name for record in datasets.load("folder", root).images]


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode("utf-8", "surrogateescape"))


def test_images_are_found_by_extension_at_any_depth_in_order(tmp_path: Path) -> None:
    write(tmp_path, "b.PNG", "a/z.jpeg", "a/b/c.Tiff", "a.webp", "Z.jpg", "é.gif", "x.bmp", "y.tif")
    write(tmp_path, "notes.txt", ".hidden.png", ".git/c.png", "png", "a/.thumbs/t.jpg")
    assert names(tmp_path) == [
        "Z.jpg",
        "a.webp",
        "a/b/c.Tiff",
        "a/z.jpeg",
        "b.PNG",
        "x.bmp",
        "y.tif",
        "é.gif",
    ]


def test_hostile_names_are_storable_and_read(tmp_path: Path) -> None:
    hostile = [
        "new\nline.png",
        "quo'te\".png",
        "bird \U0001f426.png",
        os.fsdecode(b"latin\xe9.png"),
        "back\\slash.png",
    ]
    write(tmp_path, *hostile)
    records = {record.name: record for record in datasets.load("folder", tmp_path).images}
    assert set(records) == {*hostile[:3], r"latin\xe9.png", r"back\\slash.png"}
    assert records[r"latin\xe9.png"].read() == b"latin\xe9.png"
    assert records[hostile[0]].read() == b"new\nline.png"


def test_a_folder_without_images_is_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, "notes.txt")
    with pytest.raises(DatasetError, match="no image in"):
        datasets.load("folder", tmp_path)
    with pytest.raises(DatasetError, match="no folder"):
        datasets.load("folder", tmp_path / "none")
    with pytest.raises(DatasetError, match="no folder"):
        datasets.load("folder", tmp_path / "notes.txt")


def test_a_file_that_vanishes_is_an_image_error_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    first, second = datasets.load("folder", tmp_path).images
    (tmp_path / "a.png").unlink()
    with pytest.raises(Exception, match=r"no file 'a\.png'"):
        first.read()
    assert second.read() == b"b.png"


def notes(root: Path, **how: bool) -> set[tuple[str, str, int, bool]]:
    found = datasets.load("folder", root, **how).notes
    return {(note.kind.partition(",")[0], note.place, note.count, note.lost) for note in found}


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a.jfif", "b.HEIC", "c.avif", "d.ppm", "e.pgm", "a.json", "in/b.json", "in/.x.png")
    assert names(tmp_path) == ["a.jfif", "b.HEIC", "c.avif", "d.ppm", "e.pgm"]
    assert notes(tmp_path) == {
        ("files ending in .json", "a.json", 2, False),
        ("hidden files and folders", "in/.x.png", 1, False),
    }


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with a linked file, a linked folder, one without images, and links back into it."""
    write(tmp_path / "elsewhere", "b.png", "c.png", "deep/d.png")
    write(tmp_path / "texts", "a.txt")
    write(tmp_path / "root", "a.png", "in/e.png")
    for name, target in (
        ("c.png", "elsewhere/c.png"),
        ("more", "elsewhere"),
        ("again", "elsewhere"),
        ("texts", "texts"),
        ("in/loop", "root"),
        ("in_again", "root/in"),
    ):
        (tmp_path / "root" / name).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    return tmp_path / "root"


def test_linked_folders_are_lost_and_said_so_where_links_are_not_followed(linked: Path) -> None:
    assert names(linked) == ["a.png", "c.png", "in/e.png"]
    assert notes(linked) == {
        ("linked folders with images (see --follow-links)", "again", 2, True),
        ("linked folders without images", "texts", 1, False),
        ("links to folders that are read already", "in_again", 2, False),
    }
    with pytest.raises(ImageError, match=r"is a link out of .*--follow-links reads it") as caught:
        datasets.load("folder", linked).images[1].read()
    assert caught.value.reason == "unsafe-path"


def test_links_are_followed_each_folder_once(linked: Path) -> None:
    dataset = datasets.load("folder", linked, follow_links=True)
    assert [(record.name, record.read()) for record in dataset.images] == [
        ("a.png", b"a.png"),
        ("again/b.png", b"b.png"),
        ("again/c.png", b"c.png"),
        ("again/deep/d.png", b"deep/d.png"),
        ("c.png", b"c.png"),
        ("in/e.png", b"in/e.png"),
    ]
    assert notes(linked, follow_links=True) == {
        ("links to folders that are read already", "in_again", 4, False),  # in/loop, more, again/back
        ("files ending in .txt", "texts/a.txt", 1, False),
    }


def test_a_name_leaves_the_root_by_links_alone(linked: Path) -> None:
    root = datasets.Linked(linked)
    for name in ("../elsewhere/b.png", str(linked.parent / "elsewhere" / "b.png")):
        with pytest.raises(ImageError, match="leaves the folder"):
            datasets.read_file(root, name)()
    assert datasets.read_file(root / "more", "b.png")() == b"b.png"
    assert pickle.loads(pickle.dumps(datasets.read_file(root, "more/b.png")))() == b"b.png"  # noqa: S301


def test_a_hub_snapshot_is_read_where_links_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "blobs", "0123")
    (tmp_path / "snapshots" / "main").mkdir(parents=True)
    (tmp_path / "snapshots" / "main" / "a.png").symlink_to("../../blobs/0123")
    (record,) = datasets.load("folder", tmp_path / "snapshots" / "main", follow_links=True).images
    assert record.read() == b"0123"


def test_a_folder_of_links_alone_is_told_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "b.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"no image in .*see --follow-links\): more"):
        datasets.load("folder", tmp_path / "root")


def test_what_is_left_out_and_followed_reaches_the_store(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", [(64, 48)] * 2)
    root = pictures(tmp_path / "root", [(64, 48)], first=7)
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "c.png").symlink_to(tmp_path / "elsewhere" / "00.png")
    store, outcome = ingest(tmp_path / "store", root, sites=("value",))
    assert (outcome.images, outcome.quarantined) == (1, 1)
    assert [(note.place, note.lost) for note in outcome.load.notes] == [("more", True)]
    assert query(store, "select follow_links from dataset") == [(False,)]
    store, outcome = ingest(tmp_path / "store", root, sites=("value",), follow_links=True)
    assert (outcome.images, outcome.quarantined, list(outcome.load.notes)) == (3, 0, [])
    names_ = (
        "select i.name from dataset_image i join dataset using (dataset_id) where follow_links order by 1"
    )
    assert query(store, names_) == [("07.png",), ("c.png",), ("more/00.png",), ("more/01.png",)]
    with store.connect() as con:
        found = con.execute("select sha256 from image").fetchall()
        assert {type(Pictures(con).thumbnail(digest)) for (digest,) in found} == {Thumbnail}
    assert_clean(store)
