"""COCO's three forms of a mask, against pycocotools and pixels counted by hand; hostile ones give None."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from kvstore import masks, segmentations

PIXELS = np.random.RandomState(0).randint(0, 2, (13, 9)).astype(np.uint8)


def test_pixels_go_in_and_out() -> None:
    text = masks.from_array(PIXELS)
    np.testing.assert_array_equal(masks.to_array(text), PIXELS.astype(bool))
    np.testing.assert_array_equal(coco.decode(json.loads(text)), PIXELS)
    assert masks.area(text) == PIXELS.sum()
    one = np.zeros((13, 9))
    one[4:7, 2:8] = 1
    assert masks.box(masks.from_array(one)) == (2, 4, 8, 7)


def test_a_union_has_the_pixels_of_any() -> None:
    other = np.random.RandomState(1).randint(0, 2, (13, 9))
    text = masks.union([masks.from_array(PIXELS), masks.from_array(other)])
    np.testing.assert_array_equal(masks.to_array(text), (PIXELS | other).astype(bool))


def test_a_rectangle_as_a_polygon() -> None:
    text = segmentations.read([[2, 3, 6, 3, 6, 5, 2, 5]], 9, 13)[0]
    assert text
    assert masks.area(text) == 4 * 2
    assert masks.box(text) == (2, 3, 6, 5)


def test_run_lengths_packed_or_not_give_the_same() -> None:
    flat = PIXELS.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    packed = coco.encode(np.asfortranarray(PIXELS))["counts"].decode()
    for counts in (runs, packed):
        text = segmentations.read({"size": [13, 9], "counts": counts}, 9, 13)[0]
        assert text
        np.testing.assert_array_equal(masks.to_array(text), PIXELS)


def test_long_runs_are_unpacked_as_pycocotools_packs_them() -> None:
    pixels = np.zeros((500, 700), np.uint8)
    pixels[3:499, 100:101] = 1
    pixels[7, 120:690] = 1
    packed = coco.encode(np.asfortranarray(pixels))["counts"].decode()
    text = segmentations.read({"size": [500, 700], "counts": packed}, 700, 500)[0]
    assert text
    np.testing.assert_array_equal(masks.to_array(text), pixels)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[]],
        [[1, 1, 5, 5]],  # two points, which pycocotools would take for a box
        [[1, 1, 5, float("nan"), 3, 3]],
        ["abcdef"],
        "text",
        {"size": [13, 9], "counts": [13 * 9 + 1]},
        {"size": [13, 9], "counts": [-1, 13 * 9 + 1]},
        {"size": [13, 9], "counts": [1.5, 115.5]},
        {"size": [9, 13], "counts": [13 * 9]},
        {"size": [13, 9], "counts": "\x01\x02"},
        {"size": [13, 9], "counts": "ooooooooooooooooo"},
        {"size": [13, 9], "counts": ""},
        {"size": [13, 9]},
        {"counts": [117]},
    ],
)
def test_what_describes_no_mask_gives_none(segmentation: object) -> None:
    assert segmentations.read(segmentation, 9, 13)[0] is None


def test_a_polygon_far_outside_costs_no_memory_and_covers_the_image() -> None:
    text = segmentations.read([[-1e12, -1e12, 1e12, -1e12, 1e12, 1e12, -1e12, 1e12]], 9, 13)[0]
    assert text
    assert masks.area(text) == 9 * 13
