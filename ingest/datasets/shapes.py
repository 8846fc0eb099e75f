"""Drawn scenes: eight kinds of things with exact masks, keypoints, pairs, expressions, questions, and clips.

No file is needed: every image is drawn when it is read, the same bytes each time; --root is not used. A
quirk: masks and boxes are of what is to be seen; a keypoint that another object hides is kept, marked so.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kvstore.contracts import Annotations, Clip, Dataset, ImageRecord
from kvstore.datasets import Lazy

from . import _blocks, _clips, _language, _scenes, _things  # noqa: TID252 - the recipes' package has no fixed name

SPLITS = ("test", "train", "val", "clips")
MODEL = "tiny-onevision"  # nothing is downloaded to try it
IMAGES = {"test": 200, "train": 2000, "val": 200}


def load(root: Path | None, split: str | None) -> Dataset:
    """The scenes of `split`, or the frames of the clips."""
    split = split or SPLITS[0]
    identity = {"seed": _scenes.SEED, "version": _scenes.VERSION, "side": _scenes.SIDE}
    if split == "clips":
        return _video(identity | {"clips": _clips.VERSION})
    count = IMAGES[split]
    return Dataset(
        "shapes",
        split,
        Lazy(count, partial(_record, split)),
        identity=identity | {"language": _language.VERSION},
        pairs=_blocks.Found(partial(_blocks.pairs, split, count)),
        questions=_blocks.Found(partial(_blocks.questions, split, count)),
        categories=dict(enumerate(_things.KINDS, 1)),
    )


def _record(split: str, number: int) -> ImageRecord:
    name = _blocks.name(split, number)
    return ImageRecord(name, partial(_read, split, number), partial(_annotate, split, number))


def _read(split: str, number: int) -> bytes:
    return _scenes.png(_scenes.paint(_scenes.compose(split, number)))


def _annotate(split: str, number: int, width: int, height: int, orientation: int) -> Annotations:
    return _blocks.told(split, number).annotations


# ----------------------------------------------------------------------------------------------------- clips


def _video(identity: dict[str, int]) -> Dataset:
    clips = tuple(
        Clip(_clips.name(clip), tuple(_frame_name(clip, frame) for frame in range(_clips.FRAMES)))
        for clip in range(_clips.CLIPS)
    )
    frames = Lazy(_clips.CLIPS * _clips.FRAMES, _frame)
    return Dataset("shapes", "clips", frames, identity=identity, clips=clips)


def _frame_name(clip: int, frame: int) -> str:
    return f"clips/{_clips.name(clip)}/{frame:05d}.png"


def _frame(number: int) -> ImageRecord:
    clip, frame = divmod(number, _clips.FRAMES)
    return ImageRecord(
        _frame_name(clip, frame), partial(_read_frame, clip, frame), partial(_annotate_frame, clip, frame)
    )


def _read_frame(clip: int, frame: int) -> bytes:
    return _scenes.png(_scenes.paint(_clips.compose(clip, frame)))


def _annotate_frame(clip: int, frame: int, width: int, height: int, orientation: int) -> Annotations:
    return _scenes.annotate(_clips.compose(clip, frame))
