"""Masks written for official evaluations, read back from the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore.errors import UsageError
from kvstore.masks import from_array, to_array
from kvstore.submission import Chosen, best, check, write
from tests.stores import Made, make_store

HEIGHT, WIDTH = 30, 40


def block(x0: int, y0: int, x1: int, y1: int) -> np.ndarray[Any, Any]:
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def predicted(
    made: Made,
    probe: str,
    label: str,
    pixels: np.ndarray[Any, Any],
    *,
    image: int = 1,
    number: int = 0,
    head: int = 0,
    shared: int = 10,
) -> None:
    """One row of table mask, of values at layer 1; 20 true pixels of the whole image."""
    with made.store.publish() as con:
        con.execute(
            "insert into mask (run_id, probe, image_id, label, object_id, number, site, layer, head, mask,"
            " x0, y0, x1, y1, predicted, truth, shared, valid)"
            " values ('run', $probe, $image, $label, 7, $number, 'value', 1, $head, $mask, 5, 6, 25, 16,"
            " $predicted, 20, $shared, 1200)",
            {
                "probe": probe,
                "image": image,
                "label": label,
                "number": number,
                "head": head,
                "mask": from_array(pixels),
                "predicted": int(pixels.sum()),
                "shared": shared,
            },
        )


def named(made: Made, image: int, name: str) -> None:
    with made.store.publish() as con:
        con.execute("update dataset_image set name = ? where image_id = ?", [name, image])


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_store(tmp_path / "s")


def chosen(probe: str) -> Chosen:
    return Chosen("run", probe, "value", 1, 0)


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))


def test_classes_are_two_bytes_in_imagenet_s(made: Made, tmp_path: Path) -> None:
    named(made, 1, "ImageNetS300/validation/n01443537/a.JPEG")
    with made.store.publish() as con:
        con.execute("insert into category values ('set', 299, 'heron'), ('set', 3, 'goldfish')")
    predicted(made, "semantic-segmentation", "heron", block(0, 0, 10, 10))
    predicted(made, "semantic-segmentation", "goldfish", block(20, 0, 40, 30))
    predicted(made, "semantic-segmentation", "other", block(10, 0, 20, 10))
    write(made.store, chosen("semantic-segmentation"), tmp_path / "out")
    codes = pixels_of(tmp_path / "out" / "n01443537" / "a.png")
    assert codes[5, 5].tolist() == [43, 1, 0]  # 43 + 256
    assert codes[5, 30].tolist() == [3, 0, 0]
    assert codes[5, 15].tolist() == codes[20, 5].tolist() == [0, 0, 0]
    assert (tmp_path / "out" / "classes.txt").read_text() == "3 goldfish\n299 heron\n"


def test_groups_are_laid_out_as_msrc(made: Made, tmp_path: Path) -> None:
    named(made, 1, "x/../../one.png")
    predicted(made, "cosegmentation", "cow", block(0, 0, 10, 10))
    predicted(made, "cosegmentation", "cow", block(0, 0, 1, 1), head=1)  # another image value's
    assert write(made.store, chosen("cosegmentation"), tmp_path / "out") == 1
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == ["cow/GroundTruth/one.png"]
    assert (pixels_of(files[0]) == 255 * block(0, 0, 10, 10)).all()


def test_expressions_have_their_mask_and_box(made: Made, tmp_path: Path) -> None:
    predicted(made, "referring", "the red fish", block(5, 6, 25, 16), number=2)
    write(made.store, chosen("referring"), tmp_path / "out")
    (one,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (one["image"], one["object_id"], one["number"], one["sent"]) == ("1.png", 7, 2, "the red fish")
    assert one["box"] == [5, 6, 20, 10]
    assert (to_array(json.dumps(one["segmentation"])) == block(5, 6, 25, 16)).all()


def test_episodes_are_told_with_their_images(made: Made, tmp_path: Path) -> None:
    predicted(made, "fewshot-segmentation", "cup", block(0, 0, 3, 3), image=2, number=12)
    write(made.store, chosen("fewshot-segmentation"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "queries.json").read_text()) == {"cup/0012.png": "2.png"}
    assert pixels_of(tmp_path / "out" / "cup" / "0012.png").sum() == 9 * 255


def test_the_best_image_value_is_chosen_by_the_first_figure(made: Made) -> None:
    for number in range(20):  # head 1 has the higher IoU on every item
        predicted(made, "referring", "a", block(0, 0, 5, 4), number=number, head=0, shared=5)
        predicted(made, "referring", "a", block(0, 0, 5, 4), number=number, head=1, shared=15)
    assert best(made.store, "run", "referring") == Chosen("run", "referring", "value", 1, 1)
    with pytest.raises(UsageError, match="no predictions of site key"):
        best(made.store, "run", "referring", "key")


def test_a_probe_without_masks_and_a_full_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'correspondence' has no masks to export"):
        check("correspondence", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        check("referring", tmp_path / "full")
