"""What lies in folders, what is passed over there and told, and text lists as Windows writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.contracts import Note
from kvstore.datasets import numbered_lines, text_lines
from kvstore.errors import DatasetError
from kvstore.folders import by_stem, contents, holds_images, only_folders, only_images, without_image
from kvstore.notes import Notes


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffone \r\n\r\n tw\u2028o\r\n\r\n".encode())
    assert text_lines(path) == ["one", "tw\u2028o"]  # U+2028 ends a line for str.splitlines alone
    with pytest.raises(DatasetError, match=r"list\.txt: line 2 is blank"):
        numbered_lines(path)
    path.write_bytes(b"one\ntwo\n\n\n")
    assert numbered_lines(path) == ["one", "two"]


def test_what_is_no_utf_8_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("one", encoding="utf-16")
    with pytest.raises(DatasetError, match=r"list\.txt is no UTF-8 text \(byte 0\)"):
        text_lines(path)
    with pytest.raises(DatasetError, match=r"cannot read .*directory"):
        text_lines(tmp_path)


def test_what_is_passed_over_is_counted_by_kind_with_the_first_place(tmp_path: Path) -> None:
    write(tmp_path / "in", "b.JPG", "a.heic", "a.json", "c.json", "Thumbs.db", "README", "x.0001", "x.0002")
    write(tmp_path / "in", ".hidden.png", ".thumbs/a.png", "inner/a.png")
    notes = Notes()
    assert contents(tmp_path / "in", tmp_path, notes) == (["a.heic", "b.JPG"], ["inner"])
    assert set(notes) == {
        Note("files ending in .json, passed over", "in/a.json", 2, lost=False),
        Note("files ending in .db, passed over", "in/Thumbs.db", 1, lost=False),
        Note("files with no ending of an image, passed over", "in/README", 3, lost=False),
        Note("hidden files and folders, passed over", "in/.hidden.png", 2, lost=False),
    }


def test_images_in_other_places_are_lost(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "with/deep/a.png", "without/a.txt")
    notes = Notes()
    assert only_images(tmp_path, tmp_path, notes) == ["a.png"]
    assert [(note.place, note.lost) for note in notes] == [("with", True), ("without", False)]
    notes = Notes()
    assert only_folders(tmp_path, tmp_path, notes) == ["with", "without"]
    assert [(note.place, note.lost) for note in notes] == [("a.png", True)]


def test_one_name_with_two_endings_is_one_image_and_the_other_is_told(tmp_path: Path) -> None:
    notes = Notes()
    assert by_stem(["a.jpg", "a.png", "b.png"], tmp_path / "in", tmp_path, notes) == {
        "a": "a.jpg",
        "b": "b.png",
    }
    assert [(note.place, note.count, note.lost) for note in notes] == [("in/a.png", 1, True)]


def test_a_mask_without_an_image_is_lost(tmp_path: Path) -> None:
    notes = Notes()
    masks = ["a_GT.png", "b_GT.png", "a.png"]
    without_image(masks, {"a": "a.jpg"}, tmp_path / "in", tmp_path, notes, "_GT")
    assert [(note.place, note.count, note.lost) for note in notes] == [("in/b_GT.png", 2, True)]


def test_a_folder_too_large_to_look_through_is_taken_to_hold_images(tmp_path: Path) -> None:
    write(tmp_path, *(f"{n}.txt" for n in range(30)), ".git/a.png")
    assert not holds_images(tmp_path)
    assert holds_images(tmp_path, most=29)


def test_a_folder_that_cannot_be_listed_is_told_in_a_line(tmp_path: Path) -> None:
    write(tmp_path, "file")
    for name in ("file", "none", "x" * 5000, "a\0b"):
        with pytest.raises(DatasetError, match="cannot list") as caught:
            contents(tmp_path / name, tmp_path, Notes())
        assert len(str(caught.value)) < 300


def test_a_link_to_itself_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert contents(tmp_path, tmp_path, Notes()) == (["loop.png"], [])
