"""ImageNet-S: semantic segmentation of 50, 300 or 919 ImageNet classes (Gao et al. 2022; lusseg.github.io).

Under --root lie ``ImageNetS50/validation/<wnid>/`` with images, ``validation-segmentation/<wnid>/`` beside it
with masks, and ``ImageNetS_categories_im50.txt`` (also in ``data/categories/``), whose i-th line is class i;
the same for 300 and 919. The default is the smallest, 752 images; test images have no public masks. Classes
are named as in ImageNet's ``synset_words.txt`` or ``LOC_synset_mapping.txt`` where --root has one (a word met
twice, as crane, gets the wnid behind it), else by their wnids, which tell a language model nothing. A quirk:
a mask's class is R + 256 G, and 1000 is void.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kvstore.contracts import Annotations, Dataset, ImageRecord
from kvstore.datasets import Lazy, numbered_lines, read_file, storable, text_lines
from kvstore.errors import DatasetError, ImageError
from kvstore.folders import by_stem, only_folders, only_images, without_image
from kvstore.notes import Notes

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
    notes = Notes()
    names = dict(enumerate(_names(_wnids(ids), words, notes), 1))
    files = list(_files(root / photos, masks, root, notes))
    if not files:
        raise DatasetError(f"imagenet_s: no image in {root / photos}/<wnid>/. Get them {_SCRIPTS} {prepare}")

    def record(place: int) -> ImageRecord:
        mask = PurePosixPath(files[place]).relative_to(photos).with_suffix(".png").as_posix()
        annotate = partial(_annotate, masks, mask, place, names)
        return ImageRecord(storable(files[place]), read_file(root, files[place]), annotate)

    records, sources = Lazy(len(files), record), (ids, *words)
    return Dataset(
        "imagenet_s", f"{size}-validation", records, root, sources, categories=names, notes=tuple(notes)
    )


def _wnids(path: Path) -> list[str]:
    """The classes from 1, each met once."""
    found = numbered_lines(path)
    if len(found) >= _VOID:
        raise DatasetError(f"{path} lists {len(found)} classes; {_VOID} is void; get {_RAW}/{path.name}")
    if twice := [wnid for place, wnid in enumerate(found) if wnid in found[:place]]:
        raise DatasetError(f"{path} lists {twice[0][:80]!r} twice; get {_RAW}/{path.name}")
    return found


def _files(photos: Path, masks: Path, root: Path, notes: Notes) -> Iterator[str]:
    """The images, class by class; masks that have none are noted."""
    kept: dict[str, dict[str, str]] = {}
    for wnid in only_folders(photos, root, notes):
        folder = photos / wnid
        kept[wnid] = by_stem(only_images(folder, root, notes), folder, root, notes)
        yield from ((folder / name).relative_to(root).as_posix() for name in kept[wnid].values())
    for wnid in only_folders(masks, root, notes):
        folder = masks / wnid
        without_image(only_images(folder, root, notes), kept.get(wnid, ()), folder, root, notes)


def _names(wnids: Sequence[str], files: Sequence[Path], notes: Notes) -> list[str]:
    """A name for each wnid, each its own: the first of its words (goldfish, Carassius auratus)."""
    words: dict[str, str] = {}
    for file in files:
        for wnid, *text in (line.split(maxsplit=1) for line in text_lines(file)):
            name = "".join(text).partition(",")[0].strip()
            if words.setdefault(wnid, name) != name:
                notes.add(
                    "classes named twice, of which the first name counts", f"{file.name}, {wnid}", lost=False
                )
    names: list[str] = []
    for wnid in wnids:
        name = words.get(wnid) or wnid
        if files and name == wnid:
            notes.add("classes without a name, named by their wnids", f"{files[0].name}, {wnid}", lost=False)
        names.append(f"{name} ({wnid})" if name in names else name)
    return names


def _annotate(
    folder: Path, file: str, place: int, names: dict[int, str], width: int, height: int, orientation: int
) -> Annotations:
    """One object per class of an image's mask."""
    image = _class_maps.opened(folder, file)
    if image.mode not in ("RGB", "RGBA", "P"):  # grey of small codes would be black, that is no class at all
        raise ImageError("unreadable", f"mask {file!r} is {image.mode}; a class is red + 256 x green of RGB")
    pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    codes, upright = pixels[..., 0] + 256 * pixels[..., 1], (width, height, orientation)
    return _class_maps.told(codes, names, _VOID, file=file, place=place, upright=upright)
