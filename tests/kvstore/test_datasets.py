"""Finding, limiting and identifying data sets; reading files without leaving their root."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path

import pytest
from PIL import Image

from kvstore import datasets
from kvstore.contracts import Dataset, ImageRecord
from kvstore.errors import DatasetError, ImageError, UnknownNameError, UsageError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / f"{number}.png")
    return root


def test_an_unknown_data_set_or_split_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'coco'"):
        datasets.load("cocoo")
    with pytest.raises(UnknownNameError, match="did you mean 'test'"):
        datasets.load("shapes", split="tets")
    with pytest.raises(UnknownNameError, match="split of folder"):
        datasets.load("folder", split="train")


def test_a_file_that_begins_with_an_underscore_is_no_recipe() -> None:
    with pytest.raises(UnknownNameError):
        datasets.load("_scenes")


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_a_mistake(limit: int, pictures: Path) -> None:
    with pytest.raises(UsageError, match=str(limit)):
        datasets.load("folder", pictures, limit=limit)


def test_a_limit_takes_the_first_and_leaves_the_fingerprint(pictures: Path) -> None:
    whole, some, many = (datasets.load("folder", pictures, limit=limit) for limit in (None, 2, 99))
    assert [record.name for record in some.images] == ["0.png", "1.png"]
    assert [record.name for record in some.images[1:]] == ["1.png"]
    assert (len(many.images), len(datasets.all_images(some))) == (5, 5)
    assert datasets.fingerprint(whole) == datasets.fingerprint(some) == datasets.fingerprint(many)


def test_the_fingerprint_tells_data_sets_apart(tmp_path: Path) -> None:
    source = tmp_path / "a.json"
    source.write_text("1")

    def named(*names: str) -> list[ImageRecord]:
        return [ImageRecord(name, bytes) for name in names]

    first = Dataset("d", "s", named("a", "b"), sources=(source,), identity={"seed": 1})
    variants = [
        first,
        dataclasses.replace(first, name="ds", split=""),
        dataclasses.replace(first, images=named("b", "a")),
        dataclasses.replace(first, images=named("ab")),
        dataclasses.replace(first, identity={"seed": 2}),
        dataclasses.replace(first, sources=()),
    ]
    prints = [datasets.fingerprint(variant) for variant in variants]
    source.write_text("2")
    assert len({*prints, datasets.fingerprint(first)}) == len(variants) + 1
    source.write_text("1")
    assert datasets.fingerprint(dataclasses.replace(first, root=tmp_path)) == prints[0]  # not where it lies
    source.unlink()
    with pytest.raises(DatasetError, match=r"a\.json"):
        datasets.fingerprint(first)


def test_where_a_data_set_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVSTORE_DATA", raising=False)
    assert datasets.default_root("folder") == Path("data/folder")
    monkeypatch.setenv("KVSTORE_DATA", str(tmp_path / "shared"))
    assert datasets.default_root("folder") == tmp_path / "shared" / "folder"  # named, though neither is there
    (tmp_path / "data").mkdir()
    pictures.rename(tmp_path / "data" / "folder")
    assert len(datasets.load("folder").images) == 5
    (tmp_path / "shared" / "folder").mkdir(parents=True)
    assert datasets.default_root("folder") == tmp_path / "shared" / "folder"


def reason(root: Path, name: str) -> str:
    read = datasets.read_file(root, name)  # never fails here
    with pytest.raises(ImageError) as caught:
        read()
    return caught.value.reason


def test_reading_never_leaves_the_root(tmp_path: Path, pictures: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (pictures / "link.png").symlink_to(secret)
    (pictures / "inner.png").symlink_to(pictures / "1.png")
    (pictures / "loop.png").symlink_to(pictures / "loop.png")
    assert reason(pictures, str(secret)) == "unsafe-path"
    assert reason(pictures, "../secret.png") == "unsafe-path"
    assert reason(pictures, "../pictures/1.png") == "unsafe-path"
    assert reason(pictures, "link.png") == "unsafe-path"
    assert reason(pictures, "loop.png") == "unreadable"
    assert datasets.read_file(pictures, "inner.png")() == (pictures / "1.png").read_bytes()


def test_the_root_itself_may_be_a_link(tmp_path: Path, pictures: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(pictures)
    assert datasets.read_file(link, "1.png")() == (pictures / "1.png").read_bytes()


def test_what_cannot_be_read_has_its_reason(pictures: Path) -> None:
    os.mkfifo(pictures / "pipe.png")
    (pictures / "folder.png").mkdir()
    assert reason(pictures, "none.png") == "missing"
    assert reason(pictures, "pipe.png") == "unreadable"
    assert reason(pictures, "folder.png") == "unreadable"
    assert reason(pictures, "x" * 5000) == "unreadable"
    assert reason(pictures, "a\0b.png") == "unreadable"
    assert reason(pictures, "\ud800.png") == "unreadable"
    with (pictures / "huge.png").open("wb") as file:
        file.truncate(datasets.MAX_BYTES + 1)
    assert reason(pictures, "huge.png") == "too-large"


def test_a_reader_can_go_to_another_process(pictures: Path) -> None:
    read = pickle.loads(pickle.dumps(datasets.read_file(pictures, "1.png")))  # noqa: S301 - our own bytes
    assert read() == (pictures / "1.png").read_bytes()


def test_names_are_storable_and_stay_different() -> None:
    names = [
        "a.jpg",
        os.fsdecode(b"\xff.jpg"),
        "\\xff.jpg",
        "\ud800.jpg",
        "a\0.jpg",
        "new\nline '\" \U0001f426.jpg",
    ]
    stored = [datasets.storable(name) for name in names]
    assert stored[:3] == ["a.jpg", r"\xff.jpg", r"\\xff.jpg"]
    assert stored[5] == names[5]
    assert len({name.encode() for name in stored}) == len(names)
