"""COCO's annotation files: read, and grouped by image.

What of a file is left out, or read though it is not as COCO writes it, is noted in `Index.notes`; what lies
in one annotation is looked at when its object is asked for (`_coco_objects`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvstore.errors import DatasetError
from kvstore.notes import Notes
from kvstore.outside import reason

from ._coco_values import Id, Ids, identity, packed, side, text, whole  # noqa: TID252

_KEPT = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "caption"}
_KEPT |= {"segments_info", "file_name"}  # of a panoptic file

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Index:
    """The annotation files, grouped by image. Masks stay as the file gives them until they are asked for."""

    file: str  # name of the file of objects
    images: list[Row]  # each with its own id and file name
    objects: dict[Id, list[Row]]  # image id -> annotations
    captions: dict[Id, list[str]]  # image id -> texts
    points: dict[int, tuple[list[str], Any]]  # annotation id -> names of its keypoints, and what is given
    categories: dict[Id, str]
    notes: Notes = field(default_factory=Notes)

    @classmethod
    def read(
        cls,
        instances: Path,
        captions: Path | None,
        people: Path | None,
        name_of: Callable[[Row], str | None] = lambda row: text(row.get("file_name")),
    ) -> Index:
        """Read the files; `DatasetError` with the file and what is wrong in it.

        name_of   what an image is called, None where its row does not say; two of one name are one image
        """
        notes = Notes()
        file = File(instances, notes)
        categories, kinds = categories_of(file)
        images, ids = distinct(file, name_of)
        objects = _grouped(file, ids, kinds)
        texts = _texts(File(captions, notes), ids) if captions else {}
        posed = File(people, notes) if people else file
        names = _point_names(posed)
        rows = [item for items in objects.values() for item in items]
        if people:
            points = _posed(posed, names, Ids({item["id"]: item["id"] for item in rows}))
        else:
            given = (item for item in rows if item.get("keypoints"))
            points = {item["id"]: (names.get(item["category_id"], []), item["keypoints"]) for item in given}
        return cls(instances.name, images, objects, texts, points, categories, notes)


class File:
    """One annotation file; what it lacks is told with its path."""

    def __init__(self, path: Path, notes: Notes) -> None:
        self.path, self.notes = path, notes
        self._told: set[str] = set()  # lists whose entries were judged
        self.content = read_json(path, _packed)
        if not isinstance(self.content, dict):
            raise DatasetError(f"{path} holds no COCO annotations: its top level is no object")

    def rows(self, key: str) -> Iterator[tuple[int, Row]]:
        """The objects of the list `key`, numbered; `DatasetError` where there is no such list."""
        items = self.content.get(key)
        if not isinstance(items, list):
            raise DatasetError(f"{self.path} has no list '{key}'")
        for place, item in enumerate(items):
            if isinstance(item, dict):
                yield place, item
            elif key not in self._told:
                self.lost(f"entries of '{key}' that are no objects", f"{key}[{place}]")
        self._told.add(key)

    def lost(self, kind: str, place: str) -> None:
        """Note something that is left out."""
        self.notes.add(kind, f"{self.path.name}, {place}")

    def mended(self, kind: str, place: str) -> None:
        """Note something that is read in the one way in which it can be meant."""
        self.notes.add(kind, f"{self.path.name}, {place}", lost=False)


def read_json(path: Path, made: Callable[[Row], Any] | None = None) -> Any:
    """What a JSON file holds, each of its objects as `made` gives it back; `DatasetError` if it is none."""
    try:
        with path.open(encoding="utf-8-sig") as file:  # as text: from bytes, json holds it twice
            return json.load(file, object_hook=made)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON ({reason(error, 120)}); unpack it again") from error


def listed(path: Path, key: str, items: list[Any], *needed: str) -> list[Row]:
    """The items of `path`, each an object that has the `needed` keys, its ids of a usable kind."""
    for place, item in enumerate(items):
        lacks = [k for k in needed if k not in item] if isinstance(item, dict) else list(needed)
        lacks += [k for k in needed if k.endswith("id") and k not in lacks and identity(item[k]) is None]
        if lacks:
            raise DatasetError(f"{path}: {key}[{place}] has no usable '{lacks[0]}'")
    return items


def _packed(item: Row) -> Row:
    """An object of the file, as it is read: its numbers packed, what nobody asks for left out."""
    if "image_id" not in item:
        return item
    item = {key: value for key, value in item.items() if key in _KEPT}
    parts = item.get("segmentation")
    if isinstance(parts, list):
        item["segmentation"] = [packed(part) for part in parts]
    for key in item.keys() & {"bbox", "keypoints"}:
        item[key] = packed(item[key])
    return item


# ------------------------------------------------------------------------------------------- lists of a file


def categories_of(file: File) -> tuple[dict[Id, str], Ids]:
    """Names of the categories by id, and their ids. Of two with one id the last counts, as in pycocotools."""
    names: dict[Id, str] = {}
    for place, row in file.rows("categories"):
        known, name = identity(row.get("id")), text(row.get("name"))
        if known is None or not name:
            file.lost("categories without a usable id or name", f"categories[{place}]")
            continue
        if names.get(known, name) != name:
            file.lost("categories whose id a later one has", f"categories[{place}]")
        if not isinstance(row["name"], str):
            file.mended("names of categories that are numbers", f"categories[{place}]")
        if name in names.values() and known not in names:
            file.mended("categories with the name of another, taken as one", f"categories[{place}]")
        names[known] = name
    if len(numbers_of(names)) < len(names):
        file.mended("ids of categories that are no numbers; objects have the names", "categories")
    return names, Ids({known: known for known in names})


def numbers_of(categories: dict[Id, str]) -> dict[int, str]:
    """`Dataset.categories`: those whose id is a number that the catalog's integers hold."""
    found = ((whole(known), name) for known, name in categories.items())
    return {n: name for n, name in found if n is not None and abs(n) < 2**31}


def distinct(file: File, name_of: Callable[[Row], str | None]) -> tuple[list[Row], Ids]:
    """The images, one for each file name, and their ids: all entries of one file stand for the first."""
    by_name: dict[str, Row] = {}
    named: dict[Id, str] = {}
    canonical: dict[Id, Id] = {}
    fault = ""
    for place, row in file.rows("images"):
        known, name = identity(row.get("id")), name_of(row)
        if known is None or not name:
            fault = fault or f"images[{place}] has no usable '{'file_name' if known is not None else 'id'}'"
            file.lost("images without a usable id or file name", f"images[{place}]")
            continue
        if named.setdefault(known, name) != name:
            file.lost("images whose id an earlier one has", f"images[{place}]")
            continue
        image = {"id": known, "file_name": name, "width": row.get("width"), "height": row.get("height")}
        first = by_name.setdefault(name, image)
        if first is image or not _other_size(file, place, first, image):
            canonical[known] = first["id"]
            _declared(file, place, image)
    if fault and not by_name:
        raise DatasetError(f"{file.path}: {fault}, and no other image has; export it again")
    return list(by_name.values()), Ids(canonical)


def _other_size(file: File, place: int, first: Row, image: Row) -> bool:
    """Two entries of one file are one image, unless their annotations speak of other pixels."""
    sizes = [[side(entry[edge]) for edge in ("width", "height")] for entry in (first, image)]
    if all(map(all, sizes)) and sizes[0] != sizes[1]:
        file.lost("images listed again with another size", f"images[{place}]")
        return True
    file.mended("images listed more than once, put together", f"images[{place}]")
    return False


def _declared(file: File, place: int, image: Row) -> None:
    """Note a size that says nothing, or says it as text; none at all is fine."""
    given = [image["width"], image["height"]]
    if given != [None, None] and not all(map(side, given)):
        file.mended("sizes that no image has, taken from its file", f"images[{place}]")
    elif any(isinstance(edge, str) for edge in given):
        file.mended("sizes written as text", f"images[{place}]")


def _grouped(file: File, images: Ids, categories: Ids) -> dict[Id, list[Row]]:
    """Annotations by image id, each with a number of its own; none of an image that is not listed."""
    groups: dict[Id, list[Row]] = defaultdict(list)
    rows = list(file.rows("annotations"))
    fresh = max((n for _, item in rows if (n := _numbered(item)) is not None), default=0)
    seen: set[int] = set()
    for place, item in rows:
        where = f"annotations[{place}]" if identity(item.get("id")) is None else f"annotation {item['id']}"
        (image, other), (kind, other_kind) = (
            ids.find(item.get(key)) for ids, key in ((images, "image_id"), (categories, "category_id"))
        )
        if image is None:
            file.lost("annotations of images that are not listed", where)
            continue
        if kind is None:
            file.lost("annotations of categories that are not listed", where)
            continue
        if other or other_kind:
            file.mended("ids that are text in one place and numbers in another", where)
        own = _numbered(item)
        if own is None or own in seen:
            file.mended(f"annotation ids that {'are no numbers' if own is None else 'are met twice'}", where)
            own = fresh = fresh + 1
        seen.add(own)
        item["id"], item["category_id"] = own, kind
        groups[image].append(item)
    return groups


def _numbered(item: Row) -> int | None:
    """An annotation's id as `object.object_id` holds it; None where it is no such number."""
    known = identity(item.get("id"))
    found = None if known is None else whole(known)
    return found if found is not None and abs(found) < 2**62 else None


def _texts(file: File, images: Ids) -> dict[Id, list[str]]:
    """Captions by image id; two of one number that say the same are one."""
    found: dict[Id, list[str]] = defaultdict(list)
    met: set[tuple[Id, Id, str]] = set()
    for place, item in file.rows("annotations"):
        (image, other), said, where = (
            images.find(item.get("image_id")),
            item.get("caption"),
            f"annotations[{place}]",
        )
        words = text(said)
        if image is None or words is None:
            kind = "captions that are no text" if words is None else "captions of images that are not listed"
            file.lost(kind, where)
            continue
        if other or not isinstance(said, str):
            kind = (
                "ids that are text in one place and numbers in another"
                if other
                else "captions that are numbers"
            )
            file.mended(kind, where)
        own = identity(item.get("id"))
        if own is not None and (own, image, words) in met:
            file.mended("captions listed twice, taken once", where)
            continue
        if own is not None:
            met.add((own, image, words))
        found[image].append(words)
    return found


def _posed(file: File, names: dict[Id, list[str]], ids: Ids) -> dict[int, tuple[list[str], Any]]:
    """What the file of keypoints gives to the objects of these ids; noted what is of no object."""
    kinds = Ids({known: known for known in names})
    points: dict[int, tuple[list[str], Any]] = {}
    for place, item in file.rows("annotations"):
        (known, _), (kind, _) = ids.find(item.get("id")), kinds.find(item.get("category_id"))
        if known is None or known in points:
            wrong = "met twice" if known in points else "of annotations that are not listed"
            file.lost(f"keypoints {wrong}", f"annotations[{place}]")
        elif item.get("keypoints"):
            points[int(known)] = ([] if kind is None else names[kind], item["keypoints"])
    return points


def _point_names(file: File) -> dict[Id, list[str]]:
    """Names of the keypoints of each category that has any."""
    names: dict[Id, list[str]] = {}
    for place, kind in file.rows("categories"):
        known, given = identity(kind.get("id")), kind.get("keypoints")
        if known is None or given is None:
            continue
        texts = [text(name) for name in given] if isinstance(given, list) else [None]
        if None in texts:
            file.lost("names of keypoints that cannot be read", f"categories[{place}]")
        elif texts:
            names[known] = [name for name in texts if name is not None]
    return names
