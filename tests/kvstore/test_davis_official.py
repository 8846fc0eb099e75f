"""J and F of clips with void pixels against the official evaluation of DAVIS 2017, written down in numpy.

From davis2017-evaluation (Pont-Tuset et al. 2017): how it finds and reads a data set's files and results,
and its measures `db_eval_iou` and `f_measure`. The void pixels are a ring around each object, in each frame.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore.export import export
from kvstore.probes import Request, find
from kvstore.store import Store
from kvstore.submission import Chosen, write
from tests.ingesting import ingest, query

Array = np.ndarray[Any, Any]
VOID = 255
RUN = "davis2017-val-tiny-onevision"


def spread(pixels: Array, radius: int) -> Array:
    """Pixels within `radius` of some pixel that is true: dilation by a disk."""
    high, wide = pixels.shape
    padded = np.pad(pixels, radius)
    found = np.zeros_like(pixels)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if x * x + y * y <= radius * radius:
                found |= padded[radius + y : radius + y + high, radius + x : radius + x + wide]
    return found


def edges(mask: Array) -> Array:
    """`_seg2bmap`: unlike the right, the lower or the lower right pixel, the border none."""
    east, south, both = mask.copy(), mask.copy(), mask.copy()
    east[:, :-1], south[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    found = mask ^ east | mask ^ south | mask ^ both
    found[-1] = mask[-1] ^ east[-1]
    found[:, -1] = mask[:, -1] ^ south[:, -1]
    found[-1, -1] = False
    return found


def j_of(truth: Array, result: Array, void: Array) -> float:
    either = ((truth | result) & ~void).sum()
    return float((truth & result & ~void).sum() / either) if either else 1.0


def f_of(truth: Array, result: Array, void: Array) -> float:
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    a, b = edges(result & ~void), edges(truth & ~void)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    precision, recall = (a & spread(b, radius)).sum() / a.sum(), (b & spread(a, radius)).sum() / b.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def official(root: Path, results: Path, *, void_is_background: bool) -> tuple[float, float]:
    """J mean and F mean over the objects of the clips in val.txt; first and last frames are left out."""
    js, fs = [], []
    for clip in (root / "ImageSets" / "2017" / "val.txt").read_text().split():
        images = sorted((root / "JPEGImages" / "480p" / clip).glob("*.jpg"))
        paths = sorted((root / "Annotations" / "480p" / clip).glob("*.png"))
        assert [path.stem for path in images] == [path.stem for path in paths]
        read = np.stack([np.array(Image.open(path)) for path in paths])
        void = (read == VOID) & (not void_is_background)
        truths = np.where(read == VOID, 0, read)
        painted = np.stack([np.array(Image.open(results / clip / path.name)) for path in paths])
        for number in range(1, int(truths[0].max()) + 1):
            frames = [
                (truths[at] == number, painted[at] == number, void[at]) for at in range(1, len(paths) - 1)
            ]
            js.append(np.mean([j_of(*frame) for frame in frames]))
            fs.append(np.mean([f_of(*frame) for frame in frames]))
    return float(np.mean(js)), float(np.mean(fs))


@pytest.fixture(scope="module")
def ringed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """Drawn clips in DAVIS's layout, with rings of void 7 pixels wide on their outlines; a run of them."""
    folder = tmp_path_factory.mktemp("davis")
    export("shapes", "davis2017", folder / "davis", split="clips", limit=20)
    for path in folder.glob("davis/Annotations/480p/*/*.png"):
        image = Image.open(path)
        codes = np.array(image)
        ring = np.zeros(codes.shape, bool)
        for number in range(1, codes.max() + 1):
            ring |= spread(codes == number, 3) & spread(codes != number, 3)
        codes[ring] = VOID
        made = Image.fromarray(codes, "P")
        made.putpalette(image.getpalette() or [])
        made.save(path)
    store, _ = ingest(
        folder / "s", folder / "davis", dataset="davis2017", layers="1", sites=("value",), run=RUN
    )
    return folder / "davis", store


@pytest.mark.parametrize("probe", ["tracking", "tracking-void-out"])
def test_figures_are_those_of_the_official_evaluation(
    ringed: tuple[Path, Store], tmp_path: Path, probe: str
) -> None:
    root, store = ringed
    assert query(store, "select count(*) from void")[0][0] == 20
    find(probe).predict(store, Request(RUN))
    write(store, Chosen(RUN, probe, "value", 1, 0), tmp_path / "results")
    j, f = official(root, tmp_path / "results", void_is_background=probe == "tracking")
    told = query(
        store,
        "select metric, value from score where site = 'value' and layer = 1 and head = 0"
        f" and probe = '{probe}' order by metric",
    )
    assert told == [
        ("f", pytest.approx(f, abs=1e-12)),
        ("j", pytest.approx(j, abs=1e-12)),
        ("jf", pytest.approx((j + f) / 2, abs=1e-12)),
    ]
    other = official(root, tmp_path / "results", void_is_background=probe != "tracking")
    assert abs(other[0] - j) > 0.02  # so that the test can tell the two apart


def test_both_protocols_stand_beside_each_other(ringed: tuple[Path, Store]) -> None:
    _, store = ringed
    for probe in ("tracking", "tracking-void-out"):
        find(probe).predict(store, Request(RUN))
    counts = query(
        store,
        "select probe, count(*), count(distinct mask::varchar) from mask where site = 'value' group by all"
        " order by all",
    )
    assert [row[0] for row in counts] == ["tracking", "tracking-void-out"]
    assert counts[0][1:] == counts[1][1:]
    higher = query(
        store,
        "select count(*), count(*) filter (v.value > t.value) from score t join score v using (metric, site,"
        " layer, head) where t.probe = 'tracking' and v.probe = 'tracking-void-out' and metric = 'j'"
        " and site = 'value'",
    )
    assert higher[0][0] == higher[0][1] == 2
