"""SPair-71k: pairs of photographs with keypoints seen in both (cvlab.postech.ac.kr/research/SPair-71k).

Under --root lie ``Layout/large/test.txt``, which lists the pairs in the data set's order,
``PairAnnotation/test/``, ``ImageAnnotation/``, ``JPEGImages/`` and where wanted ``Segmentation/``; the same
for val and trn. The images are those of the split's pairs, as these first name them. A quirk: coordinates are
whole pixels and stay as they are, without half a pixel more, since the official evaluation takes them so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kvstore import masks
from kvstore.contracts import Annotations, Box, Dataset, ImageRecord, Keypoint, Object, Pair, PairKeypoint
from kvstore.datasets import Lazy, read_file
from kvstore.errors import DatasetError
from kvstore.upright import turn_of

from ._class_maps import first, lines, opened  # noqa: TID252 - the recipes' package has no fixed name

SPLITS = ("test", "val", "trn")

_ARCHIVE = "SPair-71k.tar.gz"
_ADDRESS = f"http://cvlab.postech.ac.kr/research/SPair-71k/data/{_ARCHIVE}"


def load(root: Path | None, split: str | None) -> Dataset:
    """SPair-71k's `split` under `root`; `DatasetError` says what is missing or malformed."""
    root, split = root or Path("data/spair71k"), split or SPLITS[0]
    remedy = f"curl -O {_ADDRESS} && mkdir -p {root} && tar xzf {_ARCHIVE} -C {root} --strip-components 1"
    layout, annotated = f"Layout/large/{split}.txt", f"PairAnnotation/{split}"
    for place in (layout, annotated, "ImageAnnotation", "JPEGImages"):
        first("spair71k", root, [place], remedy)
    pairs = [_pair(root / annotated / f"{name}.json") for name in lines(root / layout)]
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.source, pair.target)))
    images = Lazy(len(names), partial(_record, root, names))
    return Dataset("spair71k", split, images, root, (root / layout,), pairs=pairs)


@contextmanager
def _told(path: Path) -> Iterator[dict[str, Any]]:
    """What an annotation file says; `DatasetError` where it cannot be read, or lacks what it is asked for."""
    try:
        yield json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}; unpack {_ARCHIVE} again") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is no annotation of SPair-71k ({error!r}); unpack it again") from error


def _pair(path: Path) -> Pair:
    with _told(path) as told:
        category = str(told["category"])
        source, target = (f"JPEGImages/{category}/{told[end]}" for end in ("src_imname", "trg_imname"))
        boxes = _box(told["src_bndbox"]), _box(told["trg_bndbox"])
        rows = zip(told["kps_ids"], told["src_kps"], told["trg_kps"], strict=True)
        points = tuple(PairKeypoint(_name(told, key), _point(a), _point(b)) for key, a, b in rows)
        return Pair(int(told["pair_id"]), source, target, category, *boxes, points)


def _name(told: dict[str, Any], key: str) -> str:
    """A keypoint's number as text; its name where kvstore wrote the file, and added ``kps_names``."""
    return str(told.get("kps_names", {}).get(key, key))


def _point(at: Sequence[Any]) -> tuple[float, float]:
    x, y = map(float, at)
    return x, y


def _box(edges: Sequence[Any]) -> Box:
    x0, y0, x1, y1 = map(float, edges)
    return x0, y0, x1, y1


# ------------------------------------------------------------------------------------------- images, as asked


def _record(root: Path, names: Sequence[str], place: int) -> ImageRecord:
    name = names[place]
    return ImageRecord(name, read_file(root, name), partial(_annotations, root, name, place + 1))


def _annotations(
    root: Path, name: str, number: int, width: int, height: int, orientation: int
) -> Annotations:
    """The one object that is annotated in an image; its id is the image's place among all, from 1."""
    _, category, file = name.split("/")
    with _told(root / "ImageAnnotation" / category / f"{Path(file).stem}.json") as told:
        turn_of((told["image_width"], told["image_height"]), width, height, 1)  # raises: was it resized?
        seen = {_name(told, key): _point(at) for key, at in told["kps"].items() if at}
        points = tuple(Keypoint(key, *at) for key, at in seen.items())
        box = _box(told["bndbox"])
    mask = _mask(root, f"Segmentation/{category}/{Path(file).stem}.png", box, points, (width, height))
    area = masks.area(mask) if mask else (box[2] - box[0]) * (box[3] - box[1])
    return Annotations((Object(number, category, box, float(area), mask=mask, keypoints=points),))


def _mask(root: Path, name: str, box: Box, points: Sequence[Keypoint], size: tuple[int, int]) -> str | None:
    """The pixels in an object's box of the value that most of its keypoints lie on, 0 and 255 left aside.

    The map tells classes apart, not objects, so that another of the category may reach into the box. None
    where there is no map, or no keypoint lies on a value.
    """
    image = opened(root, name) if (root / name).exists() else None
    if image is None or image.mode not in ("P", "L"):
        return None
    turn_of(image.size, *size, 1)
    values = np.asarray(image)  # [height, width]
    under = [int(values[min(int(p.y), size[1] - 1), min(int(p.x), size[0] - 1)]) for p in points]
    own = [value for value in under if 0 < value < 255]
    if not own:
        return None
    inside = np.zeros(values.shape, bool)
    x0, y0 = (max(int(edge) - 1, 0) for edge in box[:2])  # boxes are VOC's, whose first pixel is 1
    inside[y0 : int(box[3]), x0 : int(box[2])] = True
    return masks.from_array(inside & (values == max(own, key=own.count)))
