"""Any folder of images, hostile file names included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvstore import datasets
from kvstore.errors import DatasetError


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
