"""RefCOCO, RefCOCO+, RefCOCOg: expressions for objects in COCO's photographs (github.com/lichengunc/refer).

Under --root lie ``refcoco/`` with ``refs(unc).p`` and ``instances.json``, so ``refcoco+/`` (unc) and
``refcocog/`` (umd), and the photographs in ``train2014/`` or ``images/train2014/``. A split names the set and
its part; ``refcoco-google-val`` and ``refcocog-google-val`` take the older partitions ``refs(google).p``. The
pickles are read without running them; where one is missing, ``refs(unc).json`` with the same list of records
is read. Objects are those referred to; an expression is a sentence's ``sent``, as the data set's own code and
evaluations have it, not its ``raw``. Images are in the order of instances.json, expressions in that of the
refs. A quirk: a ref's `file_name` ends in the object's number and names no file; instances.json names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path

from kvstore import plain_pickle
from kvstore.contracts import Annotations, Dataset, Expression, ImageRecord
from kvstore.datasets import Lazy, read_file, storable
from kvstore.errors import DatasetError
from kvstore.notes import Notes

from ._coco_json import Index, Row, listed, numbers_of, read_json  # noqa: TID252
from ._coco_objects import object_of, turned  # noqa: TID252

_UNC = ("val", "testA", "testB", "train")
_PARTS = {
    "refcoco": ("refcoco", "unc", _UNC),
    "refcoco+": ("refcoco+", "unc", _UNC),
    "refcocog": ("refcocog", "umd", ("val", "test", "train")),
    "refcoco-google": ("refcoco", "google", ("val", "test", "train")),
    "refcocog-google": ("refcocog", "google", ("val", "train")),
}
SPLITS = tuple(f"{name}-{part}" for name, (_, _, parts) in _PARTS.items() for part in parts)

#: The data set's own server is gone; this is what was there.
_ARCHIVE = "https://web.archive.org/web/20220413/https://bvisionweb1.cs.unc.edu/licheng/referit/data"


def load(root: Path | None, split: str | None) -> Dataset:
    """One split under `root`; `DatasetError` says what is missing or malformed."""
    root, split = root or Path("data/refcoco"), split or SPLITS[0]
    name, _, part = split.rpartition("-")
    folder, by, parts = _PARTS[name]
    refs, instances = _refs_file(root, folder, by), root / folder / "instances.json"
    if not instances.is_file():
        raise DatasetError(_where_to_get(instances, root, folder))
    photographs = _photographs(root)
    index = Index.read(instances, None, None)
    said = _said(refs, part, parts, index)
    images = [image for image in index.images if image["id"] in said]
    record = partial(_record, photographs, index, images, said)
    records, categories = Lazy(len(images), record), numbers_of(index.categories)
    sources, notes = (refs, instances), tuple(index.notes)
    return Dataset("refcoco", split, records, root, sources, categories=categories, notes=notes)


def _refs_file(root: Path, folder: str, by: str) -> Path:
    path = root / folder / f"refs({by}).p"
    known = [found for found in (path, path.with_suffix(".json")) if found.is_file()]
    if not known:
        raise DatasetError(_where_to_get(path, root, folder))
    return known[0]


def _where_to_get(missing: Path, root: Path, folder: str) -> str:
    return (
        f"refcoco: no {missing} (looked for it under --root {root}). "
        f"Get it: curl -LO {_ARCHIVE}/{folder}.zip && unzip {folder}.zip -d {root}"
    )


def _photographs(root: Path) -> Path:
    for folder in (root / "train2014", root / "images" / "train2014"):
        if folder.is_dir():
            return folder
    raise DatasetError(
        f"refcoco: neither {root / 'train2014'} nor {root / 'images' / 'train2014'} is there, the photos. "
        f"Get them: curl -O http://images.cocodataset.org/zips/train2014.zip && unzip train2014.zip -d {root}"
    )


# ---------------------------------------------------------------------------------------------- expressions


def _said(path: Path, part: str, parts: Sequence[str], index: Index) -> dict[Hashable, list[Expression]]:
    """The expressions of one part by image id; `DatasetError` where the files do not fit each other."""
    content = plain_pickle.read(path) if path.suffix == ".p" else read_json(path)
    if not isinstance(content, list):
        raise DatasetError(f"{path} holds no list of refs but a {type(content).__name__}; get it again")
    said: dict[Hashable, list[Expression]] = defaultdict(list)
    objects = {image: {item["id"] for item in items} for image, items in index.objects.items()}
    refs = listed(path, "", content, "ann_id", "image_id", "split", "sentences")
    for place, ref in enumerate(refs):
        if ref["split"] == part:
            if ref["ann_id"] not in objects.get(ref["image_id"], ()):
                raise DatasetError(
                    f"{path}: [{place}] refers to object {ref['ann_id']} of image {ref['image_id']}, which "
                    "instances.json beside it does not have; take both from one archive"
                )
            said[ref["image_id"]] += [Expression(ref["ann_id"], text) for text in _texts(path, place, ref)]
        elif ref["split"] not in parts:
            index.notes.add("refs of a split that is none of the set's", f"{path.name}, [{place}]")
    if not said:
        raise DatasetError(f"{path} has no refs of the split {part!r}; get it again")
    return said


def _texts(path: Path, place: int, ref: Row) -> list[str]:
    sentences = ref["sentences"]
    if not isinstance(sentences, list):
        raise DatasetError(f"{path}: [{place}] has no list 'sentences'")
    return [str(sentence["sent"]) for sentence in listed(path, f"[{place}].sentences", sentences, "sent")]


# --------------------------------------------------------------------------------------- records, as asked


def _record(
    folder: Path, index: Index, images: list[Row], said: dict[Hashable, list[Expression]], place: int
) -> ImageRecord:
    image = images[place]
    name = image["file_name"]
    annotate = partial(_annotations, index, image, tuple(said[image["id"]]))
    return ImageRecord(storable(f"{folder.name}/{name}"), read_file(folder, name), annotate)


def _annotations(
    index: Index, image: Row, said: tuple[Expression, ...], width: int, height: int, orientation: int
) -> Annotations:
    """The objects referred to and their expressions, in upright pixels."""
    size, turn = turned(image, width, height, orientation)
    meant = {expression.object_id for expression in said}
    items = (item for item in index.objects[image["id"]] if item["id"] in meant)
    notes = Notes()
    objects = tuple(found for item in items if (found := object_of(index, item, size, turn, notes)))
    return Annotations(objects, expressions=said, notes=tuple(notes))
