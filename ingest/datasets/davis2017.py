"""DAVIS 2017: video clips with a mask of each object in each frame, 480p (davischallenge.org).

Under --root lie ``ImageSets/2017/val.txt``, which lists the clips, ``JPEGImages/480p/CLIP/`` with the frames
and ``Annotations/480p/CLIP/`` with a mask of each; the same for train, and for test-dev, whose frames but the
first have no mask. A quirk: masks are palette images with an object's number per pixel, and 255 is void, but
in a grey mask of 0 and 255 alone (DAVIS 2016) 255 is the object, unless its clip's first mask is another.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kvstore.contracts import Annotations, Clip, Dataset, ImageRecord, Note
from kvstore.datasets import Lazy, read_file, text_lines
from kvstore.errors import DatasetError, ImageError
from kvstore.folders import by_stem, only_images, without_image
from kvstore.notes import Notes

from ._class_maps import Pixels, first, opened, told  # noqa: TID252 - the package has no fixed name

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
    notes = Notes()
    clips = tuple(_clip(root, name, remedy, notes) for name in _listed(listed, notes))
    frames = [(place, name) for place, clip in enumerate(clips) for name in clip.frames]

    def record(number: int) -> ImageRecord:
        place, name = frames[number]
        opening = clips[place].frames[0]
        bare = split == "test-dev" and name != opening
        return ImageRecord(
            name, read_file(root, name), partial(_annotations, root, place, name, opening, bare)
        )

    records = Lazy(len(frames), record)
    return Dataset("davis2017", split, records, root, (listed,), clips=clips, notes=tuple(notes))


def _listed(path: Path, notes: Notes) -> list[str]:
    """The names of the clips, each once."""
    names: dict[str, None] = {}
    for name in text_lines(path):
        if "/" in name or name.startswith("."):
            raise DatasetError(
                f"{path}: {name[:80]!r} is no clip's name; list one of DAVIS 2017 in each line"
            )
        if name in names:
            notes.add("clips listed twice, taken once", f"{path.name}, {name}", lost=False)
        names[name] = None
    if not names:
        raise DatasetError(f"{path} lists no clip; write the name of a folder of {_FRAMES} in each line")
    return list(names)


def _clip(root: Path, name: str, remedy: str, notes: Notes) -> Clip:
    """A clip that is listed, its frames in order of their names."""
    folder, masks = (first("davis2017", root, [f"{kind}/{name}"], remedy) for kind in (_FRAMES, _MASKS))
    frames = by_stem(only_images(folder, root, notes), folder, root, notes)
    if not frames:
        raise DatasetError(f"davis2017: no frame in {folder}. Get it: {remedy}")
    without_image(only_images(masks, root, notes), frames, masks, root, notes)
    return Clip(name, tuple(f"{_FRAMES}/{name}/{file}" for file in frames.values()))


def _annotations(
    root: Path, place: int, name: str, opening: str, bare: bool, width: int, height: int, orientation: int
) -> Annotations:
    """The objects of one frame and its void pixels; of a `bare` one that has no mask, nothing.

    An object has one number in all frames of its clip: the clip's place in the list times 1000, and its own.
    `opening` is the clip's first frame.
    """
    file = _mask_of(name)
    if bare and not (root / file).exists():
        return Annotations()
    grey, codes = _mask(root, file)
    if grey and _is_binary(codes) and _opens_binary(root, _mask_of(opening)):
        codes = np.where(codes == _VOID, 1, codes)
    found = told(codes, _NAMES, _VOID, file=file, place=place, upright=(width, height, orientation))
    if found.void and not found.objects:
        return replace(found, notes=(Note("masks of void and no object", file, lost=False),))
    return found


def _mask(root: Path, file: str) -> tuple[bool, Pixels]:
    """Whether a mask is grey, and its values [height, width]."""
    image = opened(root, file)
    if image.mode not in ("P", "L"):
        raise ImageError("unreadable", f"mask {file!r} has the mode {image.mode}; P and L are known")
    return image.mode == "L", np.asarray(image)


def _is_binary(values: Pixels) -> bool:
    return set(np.unique(values).tolist()) <= {0, _VOID}


def _opens_binary(root: Path, file: str) -> bool:
    """Whether a clip's first mask, or none, leaves it open that its masks are those of DAVIS 2016."""
    try:
        grey, values = _mask(root, file)
    except ImageError:
        return True
    return grey and _is_binary(values)


def _mask_of(frame: str) -> str:
    path = PurePosixPath(frame)
    return f"{_MASKS}/{path.parent.name}/{path.stem}.png"
