"""SPair-71k's annotation files: one of a pair, one of an image, each value checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstore.contracts import Box, Keypoint, Pair, PairKeypoint
from kvstore.datasets import sound
from kvstore.errors import DatasetError
from kvstore.lines import one_line
from kvstore.notes import Notes

ARCHIVE = "SPair-71k.tar.gz"


@dataclass(frozen=True, slots=True)
class About:
    """What is said of one image: its size (width, height), its object's box, the keypoints seen."""

    size: tuple[int, int]
    box: Box
    keypoints: tuple[Keypoint, ...]


def pair(path: Path, notes: Notes) -> Pair:
    """A pair, whose two images are named as the recipe names them; `DatasetError` where the file is none."""
    with _told(path) as told:
        category = _name(told["category"])
        source, target = (f"JPEGImages/{category}/{_name(told[end])}" for end in ("src_imname", "trg_imname"))
        boxes = _box(told["src_bndbox"]), _box(told["trg_bndbox"])
        points = tuple(_shared(told, path.name, notes))
        return Pair(_whole(told["pair_id"]), source, target, category, *boxes, points)


def _shared(told: dict[str, Any], file: str, notes: Notes) -> Iterator[PairKeypoint]:
    """The keypoints of a pair: those that have a place in both images, each once."""
    met = set[str]()
    for key, source, target in zip(told["kps_ids"], told["src_kps"], told["trg_kps"], strict=True):
        name = _keypoint(told, key)
        if source is None or target is None:
            notes.add("keypoints of pairs with no place in one of the images", f"{file}, {name}")
        elif name in met:
            notes.add("keypoints that a pair names twice, the first taken", f"{file}, {name}")
        else:
            yield PairKeypoint(name, _point(source), _point(target))
        met.add(name)


def image(path: Path) -> About:
    """What is said of an image; `DatasetError` where the file says no such thing."""
    with _told(path) as told:
        size = _whole(told["image_width"]), _whole(told["image_height"])
        seen = {_keypoint(told, key): _point(at) for key, at in told["kps"].items() if at is not None}
        return About(size, _box(told["bndbox"]), tuple(Keypoint(key, *at) for key, at in seen.items()))


def there(path: Path) -> bool:
    """Whether there is such a file; not where its name is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long; NUL
        return False


@contextmanager
def _told(path: Path) -> Iterator[dict[str, Any]]:
    """What an annotation file says; `DatasetError` where it cannot be read, or lacks what it is asked for."""
    where = one_line(path, 200)
    try:
        yield json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read {where}: {error.strerror}; unpack {ARCHIVE} again") from error
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        fault = one_line(repr(error), 80)
        raise DatasetError(f"{where} is no annotation of SPair-71k ({fault}); unpack it again") from error


# ------------------------------------------------- single values; what is wrong with one is a ValueError


def _keypoint(told: dict[str, Any], key: Any) -> str:
    """A keypoint's number as text; its name where kvstore wrote the file, and added ``kps_names``."""
    number = key if isinstance(key, str) else str(_whole(key))
    return _text(told.get("kps_names", {}).get(number, number))


def _name(value: Any) -> str:
    """The name of a file or a folder."""
    name = _text(value)
    if "/" in name or name in (".", "..") or "\0" in name:
        raise ValueError(f"{name[:40]!r} is no file's name")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{str(value)[:40]!r} where a text is wanted")
    return sound(value)


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) >= 2**31:
        raise ValueError(f"{str(value)[:40]!r} where a whole number is wanted")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} where a number is wanted")
    return float(value)


def _point(at: Any) -> tuple[float, float]:
    x, y = map(_number, at)
    return x, y


def _box(edges: Any) -> Box:
    x0, y0, x1, y1 = map(_number, edges)
    if not (x0 <= x1 and y0 <= y1 and (x0, y0) != (x1, y1)):
        raise ValueError(f"a box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})")
    return x0, y0, x1, y1
