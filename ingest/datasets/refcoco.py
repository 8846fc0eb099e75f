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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kvstore import plain_pickle
from kvstore.contracts import Annotations, Dataset, Expression, ImageRecord
from kvstore.datasets import Lazy, read_file, sound, storable
from kvstore.errors import DatasetError
from kvstore.notes import Notes

from ._coco_json import Index, Row, listed, numbers_of, read_json  # noqa: TID252
from ._coco_objects import object_of, turned  # noqa: TID252
from ._coco_values import Id, Ids, identity  # noqa: TID252

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
    said = _said(refs, part, index, parts)
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


def _said(path: Path, part: str, index: Index, known: Sequence[str]) -> dict[Id, list[Expression]]:
    """The expressions of one part by image id; `DatasetError` where the files do not fit each other.

    known   the parts that the data set has
    """
    content = plain_pickle.read(path) if path.suffix == ".p" else read_json(path)
    if not isinstance(content, list):
        raise DatasetError(f"{path} holds no list of refs but a {type(content).__name__}; get it again")
    said: dict[Id, list[Expression]] = defaultdict(list)
    images = Ids({image: image for image in index.objects})
    objects = {
        image: Ids({item["id"]: item["id"] for item in items}) for image, items in index.objects.items()
    }
    met: set[tuple[Any, ...]] = set()
    for place, ref in enumerate(listed(path, "", content, "ann_id", "image_id", "split", "sentences")):
        where = f"{path.name}, [{place}]"
        if ref["split"] not in known:
            index.notes.add("refs of no split that the data set has", where)
        if ref["split"] != part:
            continue
        image, other = images.find(ref["image_id"])
        thing, also = objects[image].find(ref["ann_id"]) if image is not None else (None, False)
        if image is None or not isinstance(thing, int):
            wrong = f"{str(ref['ann_id'])[:40]} of image {str(ref['image_id'])[:40]}"
            raise DatasetError(
                f"{path}: [{place}] refers to object {wrong}, which "
                "instances.json beside it does not have; take both from one archive"
            )
        if other or also:
            index.notes.add("refs whose ids are written as text", where, lost=False)
        texts = _texts(path, place, ref, index.notes)
        key = (thing, identity(ref.get("ref_id")), *texts)
        if texts and key in met:
            index.notes.add("refs listed twice, taken once", where, lost=False)
            continue
        met.add(key)
        said[image] += [Expression(thing, text) for _, text in texts]
    if not said:
        raise DatasetError(f"{path} has no refs of the split {part!r}; get it again")
    return said


def _texts(path: Path, place: int, ref: Row, notes: Notes) -> list[tuple[Id | None, str]]:
    """The ids and texts of a ref's sentences; what says nothing is left out."""
    sentences = ref["sentences"]
    if not isinstance(sentences, list):
        raise DatasetError(f"{path}: [{place}] has no list 'sentences'")
    if not sentences:
        notes.add("refs without a sentence", f"{path.name}, [{place}]")
    found = []
    for number, sentence in enumerate(listed(path, f"[{place}].sentences", sentences, "sent")):
        text, where = sentence["sent"], f"{path.name}, [{place}].sentences[{number}]"
        if not isinstance(text, str):
            notes.add("expressions that are no text", where)
        elif not text.strip():
            notes.add("expressions without a word", where)
        elif (said := (identity(sentence.get("sent_id")), sound(text))) in found and said[0] is not None:
            notes.add("sentences listed twice, taken once", where, lost=False)
        else:
            found.append(said)
    return found


# --------------------------------------------------------------------------------------- records, as asked


def _record(
    folder: Path, index: Index, images: list[Row], said: dict[Id, list[Expression]], place: int
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
    there = {found.object_id for found in objects}
    kept = tuple(e for e in said if e.object_id in there)
    if len(kept) < len(said):
        kind = "expressions for objects that have no place"
        notes.add(kind, storable(image["file_name"]), count=len(said) - len(kept))
    return Annotations(objects, expressions=kept, notes=tuple(notes))
