"""Drawn scenes: the same everywhere, and annotated as they are painted."""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, recipes
from kvstore.images import decode

FEW = 24
#: Degrees around the colour circle.
HUES = {
    "red": 0, "orange": 27, "yellow": 56, "green": 122, "teal": 176, "blue": 223, "purple": 275, "pink": 324,
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes() -> ModuleType:
    """The module that draws; tests paint the same scene with and without an object."""
    return vars(vars(recipes.load("ingest/datasets", "shapes"))["_blocks"])["_scenes"]


def pixels(mask: str) -> np.ndarray:
    from pycocotools import mask as coco

    return coco.decode(json.loads(mask)).astype(bool)


def grown(mask: np.ndarray, by: int) -> np.ndarray:
    """A mask and what is within `by` pixels of it, along either side."""
    for axis in (0, 1):
        around = np.pad(mask, [(by, by) if axis == n else (0, 0) for n in (0, 1)])
        mask = np.lib.stride_tricks.sliding_window_view(around, 2 * by + 1, axis).any(-1)
    return mask


def test_splits_and_sizes() -> None:
    splits = ("test", "train", "val", "clips")
    counts = {split: len(datasets.load("shapes", split=split).images) for split in splits}
    assert counts == {"test": 200, "train": 2000, "val": 200, "clips": 192}
    default = datasets.load("shapes")
    assert (default.split, default.root, default.images[12].name) == ("test", None, "test/000012.png")


SAID = """
import hashlib
from kvstore import datasets
said = []
for split, numbers in (("test", (0, 1, 3, 4, 6)), ("clips", (23, 40, 79))):
    dataset = datasets.load("shapes", split=split)
    records = [dataset.images[number] for number in numbers]
    said += (record.read() + repr(record.annotate(0, 0, 1)).encode() for record in records)
    said += (repr(list(each[:90])).encode() for each in (dataset.pairs, dataset.questions, dataset.clips))
print(*(hashlib.sha256(each).hexdigest() for each in said))
"""


def test_the_same_images_and_words_in_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    exec(SAID, {})  # in this process, whose strings hash at random
    here = capsys.readouterr().out
    there = subprocess.run(
        [sys.executable, "-c", SAID],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    assert there.stdout == here
    assert len(set(here.split())) == 8 + 4  # of no pairs and no questions in clips the same is said


def test_no_image_comes_twice() -> None:
    seen = [
        hashlib.sha256(record.read()).hexdigest()
        for split in ("test", "train", "val", "clips")
        for record in datasets.load("shapes", split=split, limit=12).images
    ]
    assert len(set(seen)) == 4 * 12


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


def leave_one_out(scenes: ModuleType, scene: object, place: int) -> np.ndarray:
    """Which pixels change when one object of a scene is not painted; bool [height, width]."""
    rest = scene.objects[:place] + scene.objects[place + 1 :]
    with_it, without = (
        np.asarray(scenes.paint(each)).astype(int) for each in (scene, replace(scene, objects=rest))
    )
    return np.abs(with_it - without).max(axis=2) > 0


def assert_painted(mask: np.ndarray, changed: np.ndarray) -> None:
    """The mask is what changed, up to the blended edge."""
    assert (mask & ~changed).sum() <= 0.02 * mask.sum() + 2  # colours that happen to be equal
    assert (changed & ~grown(mask, 1)).sum() <= 0.03 * (changed & ~mask).sum()


def test_a_mask_is_the_pixels_that_the_object_paints(scenes: ModuleType) -> None:
    for number in range(8):
        scene = replace(scenes.compose("test", number), style="flat")
        for place, found in enumerate(scenes.annotate(scene).objects):
            mask = pixels(found.mask)
            assert mask.sum() > 200
            assert_painted(mask, leave_one_out(scenes, scene, place))


@pytest.mark.parametrize("style", ["outline", "hatched", "pixelated", "watercolour"])
def test_a_style_paints_the_object_where_its_mask_is(scenes: ModuleType, style: str) -> None:
    """Pixelated squares are 10 pixels wide, and watercolour runs by some pixels."""
    reach = {"pixelated": 10, "watercolour": 14}.get(style, 1)
    for number in (3, 6, 9):
        scene = replace(scenes.compose("test", number), style=style)
        for place, found in enumerate(scenes.annotate(scene).objects):
            mask, changed = pixels(found.mask), leave_one_out(scenes, scene, place)
            assert (mask & changed).sum() > 0.9 * mask.sum()
            assert (changed & ~grown(mask, reach)).sum() < 0.02 * mask.sum()


def test_a_hue_is_named_as_it_is_painted(scenes: ModuleType) -> None:
    """A fish's mouth and a boat's bow are of the main colour."""
    checked: Counter[str] = Counter()
    for number in range(160):
        scene = replace(scenes.compose("test", number), style="flat")
        found = [(p, k) for p in scene.objects for k in ("mouth", "bow") if k in p.keypoints]
        if not found:
            continue
        image = np.asarray(scenes.paint(scene))
        for place, placed in enumerate(scene.objects):
            points = {k.name: k for k in scenes.keypoints(scene, place) if k.visible == 2}
            for point in (points[name] for name in ("mouth", "bow") if name in points):
                red, green, blue = image[int(point.y), int(point.x)] / 255
                turn = colorsys.rgb_to_hsv(red, green, blue)[0] * 360
                near = min(HUES, key=lambda name: min((turn - HUES[name]) % 360, (HUES[name] - turn) % 360))
                assert near == placed.hue, (number, placed.category.name)
                checked[near] += 1
    assert checked.keys() == HUES.keys()


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
            assert len(found.keypoints) >= 3
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
    names: dict[str, Counter[str]] = {}
    ids: list[int] = []
    alike = 0
    for record in datasets.load("shapes", limit=60).images:
        objects = record.annotate(0, 0, 1).objects
        assert 1 <= len(objects) <= 5
        alike += len({found.category for found in objects}) < len(objects)
        ids += [found.object_id for found in objects]
        for found in objects:
            points = [point.name for point in found.keypoints]
            assert len(set(points)) == len(points)
            names.setdefault(found.category, Counter()).update(points)
    assert set(names) == {"fish", "bird", "car", "house", "tree", "person", "cup", "boat"}
    assert all(5 <= len(points) <= 8 for points in names.values())  # the same few in every instance
    assert len(set(ids)) == len(ids)
    assert 10 < alike < 50  # two of a category in one image, and images without


def test_objects_hide_each_other_and_are_cut_off(scenes: ModuleType) -> None:
    hidden = cut = 0
    for number in range(40):
        scene = scenes.compose("test", number)
        for place, found in enumerate(scenes.annotate(scene).objects):
            (alone,) = scenes.annotate(replace(scene, objects=(scene.objects[place],))).objects
            assert found.area >= 0.5 * alone.area
            hidden += found.area < 0.97 * alone.area
            x0, y0, x1, y1 = found.box
            cut += x0 == 0 or y0 == 0 or x1 == scene.width or y1 == scene.height
    assert hidden > 10
    assert cut > 5


def test_pairs_name_one_object_in_each_image_and_its_own_keypoints() -> None:
    dataset = datasets.load("shapes", split="val")
    records = {record.name: record for record in dataset.images}
    assert len(dataset.pairs) > 0.9 * len(records)
    assert len({pair.pair_id for pair in dataset.pairs}) == len(dataset.pairs)
    growth = []
    for pair in dataset.pairs:
        assert pair.source != pair.target
        sides = {}
        for side, name, box in (
            ("source", pair.source, pair.source_box),
            ("target", pair.target, pair.target_box),
        ):
            alike = [o for o in records[name].annotate(0, 0, 1).objects if o.category == pair.category]
            (found,) = (o for o in alike if o.box == box)
            sides[side] = {point.name: (point.x, point.y) for point in found.keypoints if point.visible == 2}
            if side == "target":
                assert len(alike) == 1  # so that a keypoint has one counterpart only
        growth.append(np.subtract(pair.target_box, pair.target_box[:2] * 2).max())
        growth[-1] /= np.subtract(pair.source_box, pair.source_box[:2] * 2).max()
        assert len(pair.keypoints) >= 3
        assert {point.name for point in pair.keypoints} == sides["source"].keys() & sides["target"].keys()
        for point in pair.keypoints:
            assert (point.source, point.target) == (sides["source"][point.name], sides["target"][point.name])
    assert min(growth) < 0.6
    assert max(growth) > 1.6


def turned(points: np.ndarray) -> float:
    """Twice the signed area of a triangle [3, 2]: its sign changes when it is mirrored."""
    (ax, ay), (bx, by) = points[1] - points[0], points[2] - points[0]
    return ax * by - ay * bx


def test_pairs_are_often_mirrored() -> None:
    mirrored = []
    for pair in datasets.load("shapes").pairs:
        ends = np.array([(point.source, point.target) for point in pair.keypoints[:3]])
        mirrored.append(turned(ends[:, 0]) * turned(ends[:, 1]) < 0)
    assert 0.35 < np.mean(mirrored) < 0.65


@pytest.mark.parametrize(("limit", "least"), [(20, 15), (40, 30)])
def test_the_first_images_have_pairs_and_style_questions_among_themselves(limit: int, least: int) -> None:
    dataset = datasets.load("shapes", limit=limit)
    names = {record.name for record in dataset.images}
    assert sum(pair.source in names and pair.target in names for pair in dataset.pairs) >= least
    styles = [asked for asked in dataset.questions if asked.kind == "style"]
    assert sum(names.issuperset(asked.images) for asked in styles) >= least


def test_a_record_can_go_to_another_process() -> None:
    for split in ("test", "clips"):
        record = datasets.load("shapes", split=split).images[3]
        again = pickle.loads(pickle.dumps(record))  # noqa: S301 - our own bytes
        assert again.read() == record.read()
        assert again.annotate(0, 0, 1) == record.annotate(0, 0, 1)
