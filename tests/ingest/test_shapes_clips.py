"""Drawn clips: objects that move, cross, hide and deform, with masks of what each frame shows."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from types import ModuleType

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from kvstore import datasets, recipes
from kvstore.contracts import Object

CLIPS, FRAMES = 12, 16


@dataclass(frozen=True)
class Frame:
    """What a frame's annotations say, by object."""

    objects: dict[int, Object]
    masks: dict[int, np.ndarray]


@cache
def clips() -> list[list[Frame]]:
    """All frames of all clips."""
    images = datasets.load("shapes", split="clips").images
    return [
        [frame(clip * FRAMES + number) for number in range(FRAMES)] for clip in range(len(images) // FRAMES)
    ]


@cache
def frame(number: int) -> Frame:
    objects = datasets.load("shapes", split="clips").images[number].annotate(0, 0, 1).objects
    found = {thing.object_id: coco.decode(json.loads(thing.mask)).astype(bool) for thing in objects}
    return Frame({thing.object_id: thing for thing in objects}, found)


def modules() -> tuple[ModuleType, ModuleType]:
    """The module that composes clips and the one that paints."""
    shapes = vars(recipes.load("ingest/datasets", "shapes"))
    return shapes["_clips"], shapes["_scenes"]


def test_clips_name_the_images_in_order() -> None:
    dataset = datasets.load("shapes", split="clips")
    assert [len(clip.frames) for clip in dataset.clips] == [FRAMES] * CLIPS
    assert len({clip.name for clip in dataset.clips}) == CLIPS
    assert [n for clip in dataset.clips for n in clip.frames] == [record.name for record in dataset.images]
    assert dataset.clips[3].frames[7] == "clips/03/00007.png"


def test_an_object_keeps_its_id_and_no_two_clips_share_one() -> None:
    seen: set[int] = set()
    for frames in clips():
        kinds: dict[int, set[str]] = {}
        for each in frames:
            for object_id, thing in each.objects.items():
                kinds.setdefault(object_id, set()).add(thing.category)
        assert all(len(categories) == 1 for categories in kinds.values())
        assert 2 <= len(kinds) <= 5
        assert not seen & kinds.keys()
        seen |= kinds.keys()
        assert frames[0].objects.keys() == frames[-1].objects.keys() == kinds.keys()


def test_no_mask_is_empty_and_none_overlap() -> None:
    for frames in clips():
        for each in frames:
            assert all(mask.any() for mask in each.masks.values())
            assert np.sum(list(each.masks.values()), axis=0).max() == 1


def test_a_mask_is_what_the_frame_shows_of_the_object() -> None:
    """Leave one object out and paint again: its mask changes, and for an unlisted object nothing does."""
    composing, scenes = modules()
    hidden = 0
    for clip, number in ((0, 0), (0, 6), (3, 7), (5, 8), (7, 9)):
        scene = replace(composing.compose(clip, number), style="flat")
        whole = np.asarray(scenes.paint(scene)).astype(int)
        masks = frame(clip * FRAMES + number).masks
        assert sum(object_id // 10 == clip for object_id in masks) == len(masks)
        for place in range(len(scene.objects)):
            rest = scene.objects[:place] + scene.objects[place + 1 :]
            without = np.asarray(scenes.paint(replace(scene, objects=rest))).astype(int)
            changed = np.abs(whole - without).max(axis=2) > 0
            mask = masks.get(clip * 10 + place)
            if mask is None:
                hidden += 1
                assert changed.sum() < 20  # a blended edge at most
                continue
            assert (mask & ~changed).sum() <= 0.02 * mask.sum() + 2
            edge = changed & ~mask
            padded = np.pad(mask, 1)
            y, x = np.nonzero(edge)
            near = [padded[j : j + 3, i : i + 3].any() for j, i in zip(y, x, strict=True)]
            assert np.mean(near) > 0.97
    assert hidden >= 2


def test_in_each_clip_objects_cross_and_in_some_one_is_lost_from_sight() -> None:
    lost = 0
    for clip, frames in enumerate(clips()):
        areas = np.array([each.masks[clip * 10].sum() if clip * 10 in each.masks else 0 for each in frames])
        least = int(areas.argmin())
        assert 0 < least < FRAMES - 1
        assert areas[least] < 0.5 * min(areas[0], areas[-1])
        lost += areas[least] == 0
        around = frames[least].masks
        x, y = centre(frames[least - 1 if areas[least - 1] else 0], clip * 10)
        assert around  # something stands before it
        assert 0 <= x < 512
        assert 0 <= y < 384
        sides = [
            np.sign(np.subtract(centre(f, clip * 10), centre(f, clip * 10 + 1)))
            for f in (frames[0], frames[-1])
        ]
        assert (sides[0] != sides[1]).any()  # the two have passed each other
    assert lost >= 3


def centre(each: Frame, object_id: int) -> tuple[float, float]:
    y, x = np.nonzero(each.masks[object_id])
    return float(x.mean()), float(y.mean())


def test_objects_move_in_small_steps() -> None:
    for frames in clips():
        for before, after in pairwise(frames):
            for object_id in before.objects.keys() & after.objects.keys():
                points = [
                    {k.name: (k.x, k.y) for k in f.objects[object_id].keypoints} for f in (before, after)
                ]
                shared = points[0].keys() & points[1].keys()
                steps = [np.hypot(*np.subtract(points[0][name], points[1][name])) for name in shared]
                assert max(steps, default=1) < 70
                assert np.mean(steps or [1]) > 0.5


def test_objects_deform_beyond_a_change_of_place_size_and_tilt() -> None:
    """An affine map of the keypoints from one frame to another leaves something over."""
    left = []
    for frames in clips():
        for object_id, thing in frames[0].objects.items():
            later = frames[FRAMES // 4].objects.get(object_id)
            if later is None:
                continue
            ends = {k.name: (k.x, k.y) for k in later.keypoints}
            pairs = [((k.x, k.y, 1.0), ends[k.name]) for k in thing.keypoints if k.name in ends]
            if len(pairs) >= 5:
                source, target = (np.array(side) for side in zip(*pairs, strict=True))
                fitted = source @ np.linalg.lstsq(source, target, rcond=None)[0]
                left.append(np.abs(fitted - target).max())
    assert np.median(left) > 1.0


def test_the_background_stays() -> None:
    images = datasets.load("shapes", split="clips").images
    for clip in (1, 4, 8):  # outline, watercolour, flat
        shown = [np.asarray(Image.open(io.BytesIO(images[clip * FRAMES + n].read()))) for n in (0, 8)]
        covered = np.any([m for n in (0, 8) for m in clips()[clip][n].masks.values()], axis=0)
        rows, columns = np.nonzero(covered)
        away = np.ones_like(covered)
        for row, column in zip(rows[::7], columns[::7], strict=True):
            away[max(row - 20, 0) : row + 21, max(column - 20, 0) : column + 21] = False
        assert away.mean() > 0.1
        assert (shown[0] == shown[1])[away].all()
