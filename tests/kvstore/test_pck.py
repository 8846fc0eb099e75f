"""PCK from annotation files to table score, against plain numpy on the files and the stored vectors.

SPair-71k's definition (Min et al. 2019): a keypoint is right within alpha x the longer side of the target's
box; per point over all keypoints of all pairs, per image as the mean over pairs.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvstore.export import export
from kvstore.probes import Request, find
from kvstore.store import Store
from kvstore.vectors import read_site
from tests import samples
from tests.ingesting import ingest, query
from tests.tiny import noise

RUN, ALPHAS = "spair71k-test-tiny-onevision", (0.05, 0.10, 0.15)


def genuine(root: Path) -> Path:
    """Real annotations; noise stands for the photographs, which are not among the samples."""
    shutil.copytree(samples.folder("SPair-71k"), root)
    (root / "Layout" / "large").mkdir()
    pairs = sorted(path.stem for path in (root / "PairAnnotation" / "test").iterdir())
    (root / "Layout" / "large" / "test.txt").write_text("\n".join(pairs))
    for number, path in enumerate(sorted(root.glob("ImageAnnotation/*/*.json"))):
        told = json.loads(path.read_text())
        picture = root / "JPEGImages" / path.parent.name / told["filename"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        noise((told["image_width"], told["image_height"]), number).save(picture)
    return root


def drawn(root: Path) -> Path:
    """Scenes of shapes in SPair-71k's layout."""
    export("shapes", "spair71k", root, limit=20)
    return root


@pytest.mark.parametrize("made", [drawn, genuine])
def test_pck_is_that_of_the_files_and_the_vectors(made: Any, tmp_path: Path) -> None:
    root = made(tmp_path / "spair")
    store, _ = ingest(tmp_path / "s", root, dataset="spair71k", layers="1", run=RUN)
    for probe, errors_of in (("correspondence", relative_errors), ("correspondence-bilinear", dift_errors)):
        find(probe).predict(store, Request(RUN, sites=("value",)))
        told = {
            (metric, head): (value, n)
            for metric, head, value, n in query(
                store,
                f"select metric, head, value, n from score where site = 'value' and probe = '{probe}'",
            )
        }
        compare(store, root, told, errors_of)


def compare(store: Store, root: Path, told: dict[Any, Any], errors_of: Any) -> None:
    """Each figure against the errors that a way of matching makes on the files."""
    pairs = [json.loads(path.read_text()) for path in sorted(root.glob("PairAnnotation/test/*.json"))]
    for head in range(2):
        errors = [errors_of(store, pair, head) for pair in pairs]
        for alpha in ALPHAS:
            expected = np.mean(np.concatenate(errors) <= alpha)
            assert told[f"pck@{alpha:.2f}", head] == (pytest.approx(expected), len(pairs))
            per_image = np.mean([np.mean(of_pair <= alpha) for of_pair in errors])
            assert told[f"pck_image@{alpha:.2f}", head] == (pytest.approx(per_image), len(pairs))


def relative_errors(store: Store, pair: dict[str, Any], head: int) -> Any:
    """Of each keypoint the distance of the nearest patch's centre to the truth, in sides of the box."""
    (source, source_size), (target, target_size) = (stored(store, pair, side) for side in ("src", "trg"))
    a, b = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (
            read_site(store.lance, RUN, "value", 1, image)[head].astype(np.float64)
            for image in (source, target)
        )
    )
    points, truths = (np.array(pair[f"{name}_kps"], float) for name in ("src", "trg"))
    # The image is resized to 114 x 114 pixels, and 14 x 14 patches of 8 lie in their upper left 112.
    cells = np.floor(points / source_size * 114 / 8).astype(int).clip(0, 13)
    best = (a[cells[:, 1] * 14 + cells[:, 0]] @ b.T).argmax(1)
    centres = (np.stack([best % 14, best // 14], 1) + 0.5) * 8 / 114 * target_size
    x0, y0, x1, y1 = pair["trg_bndbox"]
    return np.linalg.norm(centres - truths, axis=1) / max(x1 - x0, y1 - y0)


def dift_errors(store: Store, pair: dict[str, Any], head: int) -> Any:
    """DIFT's evaluation (Tang et al. 2023, eval_spair.py) by numpy: the whole maps, pixel by pixel."""
    found = [stored(store, pair, side) for side in ("src", "trg")]
    source, target = (upsampled(store, image, tuple(size), head) for image, size in found)
    truths, places = np.array(pair["trg_kps"], float), []
    for x, y in np.floor(pair["src_kps"]).astype(int):
        cosines = target @ source[y, x]
        best = np.unravel_index((cosines >= cosines.max() - 1e-6).argmax(), cosines.shape)
        places.append(best[::-1])
    x0, y0, x1, y1 = pair["trg_bndbox"]
    return np.linalg.norm(places - truths, axis=1) / max(x1 - x0, y1 - y0)


@functools.lru_cache(24)
def upsampled(store: Store, image: int, size: tuple[int, int], head: int) -> Any:
    """Unit vectors [height, width, channels] of all pixels: bilinear between the centres of patches."""
    vectors = read_site(store.lance, RUN, "value", 1, image)[head].astype(np.float32).reshape(14, 14, -1)
    for axis, pixels in enumerate(size[::-1]):
        at = ((np.arange(pixels) + 0.5) / pixels * 114 / 8 - 0.5).clip(0, 13)
        low = np.floor(at).astype(int).clip(0, 12)
        on = (at - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        vectors = vectors.take(low, axis) * (1 - on) + vectors.take(low + 1, axis) * on
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@functools.cache
def images_of(store: Store) -> list[tuple[Any, ...]]:
    return query(store, "select image_id, width, height, name from dataset_image join image using (image_id)")


def stored(store: Store, pair: dict[str, Any], side: str) -> tuple[int, Any]:
    """image_id and size of one image of a pair."""
    for image, width, height, name in images_of(store):
        if name.endswith(f"{pair['category']}/{pair[f'{side}_imname']}"):
            return image, np.array([width, height])
    raise AssertionError(f"{pair['filename']}: no {side} image in the store")
