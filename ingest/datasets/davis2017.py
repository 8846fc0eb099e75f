"""DAVIS 2017: video clips with a mask of each object in each frame, 480p (davischallenge.org).

Under --root lie ``ImageSets/2017/val.txt``, which lists the clips, ``JPEGImages/480p/CLIP/`` with the frames
and ``Annotations/480p/CLIP/`` with a mask of each; the same for train, and for test-dev, whose frames but the
first have no mask. A quirk: masks are palette images with an object's number per pixel, and 255 is void, but
in the grey ones of DAVIS 2016 255 is the object.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kvstore.contracts import Annotations, Clip, Dataset, ImageRecord
from kvstore.datasets import Lazy, read_file
from kvstore.errors import ImageError

from ._class_maps import first, lines, opened, pictures, told  # noqa: TID252 - the package has no fixed name

SPLITS = ("val", "train", "test-dev")

_FRAMES, _MASKS = "JPEGImages/480p", "Annotations/480p"
_VOID = 255
#: DAVIS does not say of what category its objects are.
_NAMES = dict.fromkeys(range(1, _VOID), "object")


def load(root: Path | None, split: str | None) -> Dataset:
    """DAVIS 2017's `split` under `root`; `DatasetError` says what is missing."""
    root, split = root or Path("data/davis2017"), split or SPLITS[0]
    archive = f"DAVIS-2017-{'test-dev' if split == 'test-dev' else 'trainval'}-480p.zip"
    address = f"https://data.vision.ee.ethz.ch/csergi/share/davis/{archive}"
    remedy = f"curl -O {address} && unzip {archive}, then --root DAVIS; for some clips only, list only those"
    listed = first("davis2017", root, [f"ImageSets/2017/{split}.txt"], remedy)
    clips = tuple(_clip(root, name, remedy) for name in lines(listed))
    frames = [(place, name) for place, clip in enumerate(clips) for name in clip.frames]

    def record(number: int) -> ImageRecord:
        place, name = frames[number]
        return ImageRecord(name, read_file(root, name), partial(_annotations, root, split, place, name))

    return Dataset("davis2017", split, Lazy(len(frames), record), root, (listed,), clips=clips)


def _clip(root: Path, name: str, remedy: str) -> Clip:
    """A clip that is listed, its frames in order of their names."""
    for folder in (_FRAMES, _MASKS):
        first("davis2017", root, [f"{folder}/{name}"], remedy)
    return Clip(name, tuple(pictures(root, f"{_FRAMES}/{name}/*")))


def _annotations(
    root: Path, split: str, place: int, name: str, width: int, height: int, orientation: int
) -> Annotations:
    """The objects of one frame and its void pixels.

    An object has one number in all frames of its clip: the clip's place in the list times 1000, and its own.
    """
    frame = PurePosixPath(name)
    file = f"{_MASKS}/{frame.parent.name}/{frame.stem}.png"
    if split == "test-dev" and not (root / file).exists():
        return Annotations()
    image = opened(root, file)
    if image.mode not in ("P", "L"):
        raise ImageError("unreadable", f"mask {file!r} has the mode {image.mode}; P and L are known")
    values = np.asarray(image)
    codes = values if image.mode == "P" else np.where(values == _VOID, 1, values)
    return told(codes, _NAMES, _VOID, file=file, place=place, upright=(width, height, orientation))
