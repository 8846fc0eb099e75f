"""Drawn scenes: the same everywhere, and annotated as they are painted."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, recipes
from kvstore.images import decode

FEW = 24


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    """The module that draws; tests paint the same scene with and without an object."""
    return vars(recipes.load("ingest/datasets", "shapes"))["_scenes"]


def pixels(mask: str) -> np.ndarray:
    from pycocotools import mask as coco

    return coco.decode(json.loads(mask)).astype(bool)


def test_splits_and_sizes() -> None:
    counts = {split: len(datasets.load("shapes", split=split).images) for split in ("test", "train", "val")}
    assert counts == {"test": 200, "train": 2000, "val": 200}
    default = datasets.load("shapes")
    assert (default.split, default.root, default.images[12].name) == ("test", None, "test/000012.png")


def test_the_same_bytes_twice_and_in_another_process() -> None:
    images = datasets.load("shapes", limit=4).images
    here = [hashlib.sha256(record.read()).hexdigest() for record in images]
    assert here == [hashlib.sha256(record.read()).hexdigest() for record in images]
    script = (
        "import hashlib; from kvstore import datasets\n"
        "for record in datasets.load('shapes', limit=4).images:\n"
        "    print(hashlib.sha256(record.read()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert there.stdout.split() == here


def test_no_image_comes_twice() -> None:
    seen = [
        hashlib.sha256(record.read()).hexdigest()
        for split in ("test", "train", "val")
        for record in datasets.load("shapes", split=split, limit=FEW).images
    ]
    assert len(set(seen)) == 3 * FEW


def test_the_png_is_a_png_to_others() -> None:
    data = datasets.load("shapes").images[0].read()
    Image.open(io.BytesIO(data)).verify()
    image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(decode(data).image))
    assert image.mode == "RGB"


def test_several_aspect_ratios() -> None:
    sizes = [decode(record.read()).image.size for record in datasets.load("shapes", limit=60).images]
    assert {(384, 384), (512, 384), (320, 448)} <= set(sizes)
    assert max(set(sizes), key=sizes.count) == (384, 384)


def test_a_mask_is_the_pixels_that_the_object_paints(scenes: ModuleType) -> None:
    """Leave one object out: exactly what it shows changes, up to the blended edge."""
    for number in range(8):
        scene = scenes.compose("test", number)
        objects = scenes.annotate(scene).objects
        whole = np.asarray(scenes.paint(scene)).astype(int)
        for place, found in enumerate(objects):
            rest = scene.objects[:place] + scene.objects[place + 1 :]
            without = np.asarray(scenes.paint(replace(scene, objects=rest))).astype(int)
            changed = np.abs(whole - without).max(axis=2) > 0
            mask = pixels(found.mask)
            assert mask.sum() > 200
            assert (mask & ~changed).sum() <= 0.02 * mask.sum()  # colours that happen to be equal
            y, x = np.nonzero(changed & ~mask)
            padded = np.pad(mask, 1)
            near = [padded[j : j + 3, i : i + 3].any() for j, i in zip(y, x, strict=True)]
            assert np.mean(near) > 0.97 if near else True  # only pixels at the mask's edge


def test_masks_do_not_overlap_and_boxes_are_tight() -> None:
    for record in datasets.load("shapes", limit=FEW).images:
        width, height = decode(record.read()).image.size
        objects = record.annotate(width, height, 1).objects
        masks = [pixels(found.mask) for found in objects]
        assert np.sum(masks, axis=0).max() == 1
        for found, mask in zip(objects, masks, strict=True):
            assert mask.shape == (height, width)
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert found.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert found.area == mask.sum()


def test_keypoints_lie_on_their_object() -> None:
    hidden = 0
    for record in datasets.load("shapes", limit=60).images:
        objects = record.annotate(0, 0, 1).objects
        masks = [pixels(found.mask) for found in objects]
        for found, mask in zip(objects, masks, strict=True):
            assert len(found.keypoints) >= 4
            for point in found.keypoints:
                own = mask[int(point.y), int(point.x)]
                if point.visible == 2:
                    x0, y0, x1, y1 = found.box
                    assert x0 <= point.x < x1
                    assert y0 <= point.y < y1
                    assert own, (record.name, found.category, point)
                else:
                    hidden += 1
                    around = [
                        m[int(point.y) - 1 : int(point.y) + 2, int(point.x) - 1 : int(point.x) + 2]
                        for m in masks
                    ]
                    others = [m.any() for other, m in zip(objects, around, strict=True) if other is not found]
                    assert any(others), (record.name, found.category, point)
    assert hidden > 5


def test_categories_their_keypoints_and_ids() -> None:
    names: dict[str, set[tuple[str, ...]]] = {}
    ids: list[int] = []
    for record in datasets.load("shapes", limit=60).images:
        annotations = record.annotate(0, 0, 1)
        kinds = [found.category for found in annotations.objects]
        assert len(set(kinds)) == len(kinds)  # so that a pair's keypoint has one counterpart only
        assert all(kind in annotations.captions[0] for kind in kinds)
        ids += [found.object_id for found in annotations.objects]
        for found in annotations.objects:
            names.setdefault(found.category, set()).add(tuple(point.name for point in found.keypoints))
    assert set(names) == {"fish", "bird", "car", "house", "tree", "person", "cup", "boat"}
    assert all(len(variants) == 1 for variants in names.values())
    assert len(set(ids)) == len(ids)


def test_pairs_name_real_images_and_their_own_keypoints() -> None:
    dataset = datasets.load("shapes", split="val")
    records = {record.name: record for record in dataset.images}
    assert len(dataset.pairs) > 0.9 * len(records)
    assert len({pair.pair_id for pair in dataset.pairs}) == len(dataset.pairs)
    for pair in dataset.pairs[:40]:
        assert pair.source != pair.target
        sides = {}
        for side, name, box in (
            ("source", pair.source, pair.source_box),
            ("target", pair.target, pair.target_box),
        ):
            (found,) = (o for o in records[name].annotate(0, 0, 1).objects if o.category == pair.category)
            assert found.box == box
            sides[side] = {point.name: (point.x, point.y) for point in found.keypoints if point.visible == 2}
        assert len(pair.keypoints) >= 3
        assert {point.name for point in pair.keypoints} == sides["source"].keys() & sides["target"].keys()
        for point in pair.keypoints:
            assert (point.source, point.target) == (sides["source"][point.name], sides["target"][point.name])


@pytest.mark.parametrize(("limit", "least"), [(20, 15), (40, 30)])
def test_the_first_images_have_pairs_among_themselves(limit: int, least: int) -> None:
    dataset = datasets.load("shapes", limit=limit)
    names = {record.name for record in dataset.images}
    assert sum(pair.source in names and pair.target in names for pair in dataset.pairs) >= least


def test_a_record_can_go_to_another_process() -> None:
    record = datasets.load("shapes").images[3]
    again = pickle.loads(pickle.dumps(record))  # noqa: S301 - our own bytes
    assert again.read() == record.read()
    assert again.annotate(0, 0, 1) == record.annotate(0, 0, 1)
