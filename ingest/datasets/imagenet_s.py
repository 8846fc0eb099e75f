"""ImageNet-S: semantic segmentation of 50, 300 or 919 ImageNet classes (Gao et al. 2022; lusseg.github.io).

Under --root lie ``ImageNetS50/validation/<wnid>/`` with images, ``validation-segmentation/<wnid>/`` beside it
with masks, and ``ImageNetS_categories_im50.txt`` (also in ``data/categories/``), whose i-th line is class i;
the same for 300 and 919. The default is the smallest, 752 images; test images have no public masks. Classes
are named as in ImageNet's ``synset_words.txt`` or ``LOC_synset_mapping.txt`` where --root has one (a word met
twice, as crane, gets the wnid behind it), else by their wnids, which tell a language model nothing. A quirk:
a mask's class is R + 256 G, and 1000 is void.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kvstore.contracts import Annotations, Dataset, ImageRecord
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError

from . import _class_maps  # noqa: TID252 - the recipes' package has no fixed name

SPLITS = ("50-validation", "300-validation", "919-validation")

_VOID = 1000
_WORDS = ("synset_words.txt", "LOC_synset_mapping.txt")
_SCRIPTS = "in datapreparation/ of github.com/LUSSeg/ImageNet-S:"
_RAW = "https://raw.githubusercontent.com/LUSSeg/ImageNet-S/main/data/categories"


def load(root: Path | None, split: str | None) -> Dataset:
    """The validation images of one size of ImageNet-S; `DatasetError` says what is missing."""
    root, size = root or Path("data/imagenet_s"), (split or SPLITS[0]).partition("-")[0]
    listed = f"ImageNetS_categories_im{size}.txt"
    photos = f"ImageNetS{size}/validation"
    prepare = f"python datapreparation_val.py --imagenet-dir IMAGENET --save-dir {root} --mode {size}"
    _class_maps.first("imagenet_s", root, [photos], f"{_SCRIPTS} {prepare}")
    masks = _class_maps.first(
        "imagenet_s",
        root,
        [f"{photos}-segmentation"],
        f"{_SCRIPTS} bash datapreparation_anno.sh {root} {size}",
    )
    ids = _class_maps.first(
        "imagenet_s", root, [f"data/categories/{listed}", listed], f"curl -o {root}/{listed} {_RAW}/{listed}"
    )
    words = [root / name for name in _WORDS if (root / name).is_file()][:1]
    names = dict(enumerate(_names(_class_maps.lines(ids), words), 1))
    files = _class_maps.pictures(root, f"{photos}/*/*")
    if not files:
        raise DatasetError(f"imagenet_s: no image in {root / photos}/<wnid>/. Get them {_SCRIPTS} {prepare}")

    def record(place: int) -> ImageRecord:
        mask = PurePosixPath(files[place]).relative_to(photos).with_suffix(".png").as_posix()
        annotate = partial(_annotate, masks, mask, place, names)
        return ImageRecord(storable(files[place]), read_file(root, files[place]), annotate)

    return Dataset(
        "imagenet_s", f"{size}-validation", Lazy(len(files), record), root, (ids, *words), categories=names
    )


def _names(wnids: Sequence[str], files: Sequence[Path]) -> list[str]:
    """A name for each wnid, each its own: the first of its words (goldfish, Carassius auratus)."""
    rows = (line.partition(" ") for file in files for line in _class_maps.lines(file))
    words = {wnid: text.partition(",")[0].strip() for wnid, _, text in rows}
    names: list[str] = []
    for wnid in wnids:
        name = words.get(wnid) or wnid
        names.append(f"{name} ({wnid})" if name in names else name)
    return names


def _annotate(
    folder: Path, file: str, place: int, names: dict[int, str], width: int, height: int, orientation: int
) -> Annotations:
    """One object per class of an image's mask."""
    pixels = np.asarray(_class_maps.opened(folder, file).convert("RGB")).astype(np.int64)
    codes, upright = pixels[..., 0] + 256 * pixels[..., 1], (width, height, orientation)
    return _class_maps.told(codes, names, _VOID, file=file, place=place, upright=upright)
