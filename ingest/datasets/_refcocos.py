"""RefCOCOs: referring expressions for objects of COCO's validation images, known by their boxes.

Expressions that fit no object, as the file says itself (``empty_case``), are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvstore.contracts import Expression
from kvstore.errors import DatasetError
from kvstore.segmentations import coordinates

from ._coco_json import Index, Row, read_json  # noqa: TID252
from ._coco_values import Id, box_of, flag, text  # noqa: TID252

_OF_A_SPLIT = re.compile(r"[a-z]+20\d\d/")  # val2017/000000000139.jpg; other splits' are passed over
_NEAR = 0.01  # an object's box is given by its corners, with the last digits rounded


def read(path: Path, split: str, index: Index) -> dict[Id, list[Expression]]:
    """Expressions by image id; `DatasetError` for one whose box no object has."""
    found: dict[Id, list[Expression]] = {}
    ids: dict[object, Id] = {f"{split}/{image['file_name']}": image["id"] for image in index.images}
    for place, record in _records(path, index):
        where, image, said = (
            f"{path.name}, [{place}]",
            text(record.get("image")),
            text(record.get("normal_caption")),
        )
        if image is None or said is None:
            index.notes.add("expressions that are no text, or of no image", where)
        elif image in ids:
            meant = _meant(record, index.objects.get(ids[image], ()))
            if meant is None:
                raise DatasetError(
                    f"{path}: [{place}] means the box {str(record.get('solution'))[:60]} of {image[:60]}, "
                    "which no object there has; it is not of these instances: move the file away"
                )
            found.setdefault(ids[image], []).append(Expression(meant, said))
        elif image.startswith(f"{split}/"):
            index.notes.add("expressions of images that are not listed", where)
        elif not _OF_A_SPLIT.match(image):
            index.notes.add("expressions of images of no split", where)
    return found


def _records(path: Path, index: Index) -> Iterator[tuple[int, Row]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise DatasetError(f"{path} holds no RefCOCOs records: its top level is no list")
    met: set[str] = set()
    for place, record in enumerate(content):
        if not isinstance(record, dict):
            index.notes.add("expressions that are no objects", f"{path.name}, [{place}]")
            continue
        kinds, where = record.get("categories"), f"{path.name}, [{place}]"
        empty, _ = flag(kinds.get("empty_case") if isinstance(kinds, dict) else None)
        if empty is None:
            index.notes.add("expressions whose 'empty_case' is neither true nor false", where)
        elif empty:
            kind = "expressions that fit no object, as the file says, passed over"
            index.notes.add(kind, where, lost=False)
        elif (whole := json.dumps(record, sort_keys=True)) in met:
            index.notes.add("expressions listed twice, taken once", where, lost=False)
        else:
            met.add(whole)
            yield place, record


def _meant(record: Row, objects: Iterable[Row]) -> int | None:
    """The id of the object that has the record's box, its corners."""
    corners = coordinates(record.get("solution"), {})
    for item in objects:
        box, _ = box_of(item.get("bbox"))
        ends = zip(box, corners, strict=True) if box and corners and len(corners) == 4 else None
        if ends and max(abs(a - b) for a, b in ends) <= _NEAR:
            return int(item["id"])
    return None
