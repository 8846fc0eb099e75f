"""Correspondence over all image values of a run, end to end, against a torch loop over .npy files, and SQL.

A 7B model's values (28 layers x 4 heads x 729 patches x 128) of 90 images with 612 pairs of 7 keypoints: a
twentieth of SPair-71k's test split (12,234 pairs, 1,800 images). Both sides read all vectors, predict, and
end with PCK of every image value; ours also writes 480,000 rows of `match`, with bootstrap intervals. The
floor is one product of the keypoints' vectors with those of the target's patches, for each image value.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kvstore.probes import Request, _matches, correspondence
from kvstore.store import Store
from tests.bench import block_read
from tests.bench.figure import Figure, in_turn, seconds
from tests.stores import fill_catalog

IMAGES, PAIRS, POINTS = 90, 612, 7
FEW_IMAGES, FEW_PAIRS = 20, 10
SPLIT, MINUTES = 12234, 45
SIDE = 384.0

Pairs = list[tuple[int, int, np.ndarray[Any, Any]]]

_CROSS_JOIN = """
select
    p.pair_id, k.name, s.layer, s.head,
    arg_max(t.patch, array_cosine_similarity(s.value::float[128], t.value::float[128])) as patch,
from pair p
join pair_keypoint k using (dataset_id, pair_id)
join patch_kv s
    on s.run_id = 'run' and s.image_id = p.source_image_id
    and s.patch = floor(k.source_y / 384 * 27) * 27 + floor(k.source_x / 384 * 27)
join patch_kv t
    on t.run_id = 'run' and t.image_id = p.target_image_id and t.layer = s.layer and t.head = s.head
group by all
"""


def measure() -> list[Figure]:
    """Each side in turn; the same predictions on both."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    try:
        return [*_against_loop(folder / "many"), _against_sql(folder / "few")]
    finally:
        shutil.rmtree(folder)


def _against_loop(folder: Path) -> list[Figure]:
    store, pairs = _made(folder, IMAGES, PAIRS)
    ours, its, ratio = in_turn(lambda: _probe(store), lambda: _loop(folder, pairs), rounds=2)
    if not (_predicted(store) == _loop(folder, pairs)).mean() > 0.9999:  # ties may fall otherwise
        raise AssertionError("the two sides predict different patches")
    whole = ours * SPLIT / PAIRS / 60
    note = f"{ours:.1f} against {its:.1f} s for {PAIRS} pairs x 112 image values"
    return [
        Figure(
            "correspondence from Lance / torch loop over .npy", ratio, "x", "at most 1.2", ratio <= 1.2, note
        ),
        Figure(
            "SPair-71k test at full size, from a twentieth",
            whole,
            "min",
            f"under {MINUTES}",
            whole < MINUTES,
            note,
        ),
    ]


def _against_sql(folder: Path) -> Figure:
    store, _ = _made(folder, FEW_IMAGES, FEW_PAIRS)
    with store.connect() as con:
        ours, its, ratio = in_turn(
            lambda: _probe(store, scored=False), lambda: con.execute(_CROSS_JOIN).fetchall(), rounds=3
        )
    faster = 1 / ratio
    note = f"{ours:.2f} against {its:.2f} s for {FEW_PAIRS} pairs x 112 image values"
    return Figure("pure-SQL cross join / correspondence", faster, "x", "at least 5", faster >= 5, note)


def _made(folder: Path, images: int, count: int) -> tuple[Store, Pairs]:
    """A store with values and pairs, and beside it an .npy file of each image."""
    store = Store.open(folder / "store", create=True)
    buffer = block_read.fill(store.lance, images)
    layers, heads = block_read.LAYERS, block_read.HEADS
    shape = (block_read.WINDOW, layers, heads, block_read.PATCHES, block_read.WIDTH)
    values = buffer.memory["value"].numpy().reshape(shape)
    for image in range(images):
        np.save(folder / f"{image}.npy", values[image % block_read.WINDOW])
    fill_catalog(store, range(images), range(layers), heads, block_read.WIDTH, (27, 27), SIDE / 27)
    pairs = _pairs(images, count)
    with store.publish() as con:
        for number, (source, target, points) in enumerate(pairs):
            con.execute(
                "insert into pair values ('set', ?, 'thing', ?, ?, 0, 0, 384, 384, 0, 0, 384, 384)",
                [number, source, target],
            )
            con.executemany(
                "insert into pair_keypoint values ('set', ?, ?, ?, ?, ?, ?)",
                [[number, str(k), *map(float, point)] for k, point in enumerate(points)],
            )
    return store, pairs


def _pairs(images: int, count: int) -> Pairs:
    chance, draws = random.Random(0), np.random.default_rng(0)
    return [(*chance.sample(range(images), 2), draws.uniform(0, SIDE, (POINTS, 4))) for _ in range(count)]  # type: ignore[misc]


def _probe(store: Store, *, scored: bool = True) -> None:
    """What `kvstore probe correspondence --site value` does, from the start."""
    with store.publish() as con:
        con.execute("delete from match")
        con.execute("delete from score")
    if scored:
        correspondence.predict(store, Request("run", sites=("value",)))
        return
    real = _matches.score
    _matches.score = lambda *_: None  # type: ignore[assignment]
    try:
        correspondence.predict(store, Request("run", sites=("value",)))
    finally:
        _matches.score = real


def _predicted(store: Store) -> np.ndarray[Any, Any]:
    """Patches predicted: [layers, heads, pairs * points]."""
    with store.connect() as con:
        rows = con.execute(
            "select patch from match where site = 'value' order by layer, head, pair_id, name::integer"
        ).fetchnumpy()
    return np.asarray(rows["patch"]).reshape(block_read.LAYERS, block_read.HEADS, -1)


def _loop(folder: Path, pairs: Pairs) -> np.ndarray[Any, Any]:
    """A script as it is written by hand: layer by layer, pair by pair, all heads at once; PCK at the end."""
    found = []
    for layer in range(block_read.LAYERS):
        for source, target, points in pairs:
            a, b = (
                torch.from_numpy(np.load(folder / f"{image}.npy", mmap_mode="c")[layer]).float()
                for image in (source, target)
            )
            cells = np.floor(points / SIDE * 27).astype(int)
            at = torch.from_numpy(cells[:, 1] * 27 + cells[:, 0])
            similar = functional.normalize(a[:, at], dim=-1) @ functional.normalize(b, dim=-1).transpose(1, 2)
            found.append(similar.argmax(-1).numpy())
    patches = np.stack(found).reshape(block_read.LAYERS, len(pairs), block_read.HEADS, POINTS)
    centres = (np.stack([patches % 27, patches // 27], -1) + 0.5) * SIDE / 27
    truth = np.stack([points[:, 2:] for _, _, points in pairs])[None, :, None]
    pck = (np.linalg.norm(centres - truth, axis=-1) <= 0.1 * SIDE).mean((1, 3))
    if pck.shape != (block_read.LAYERS, block_read.HEADS):
        raise AssertionError(pck.shape)
    return patches.transpose(0, 2, 1, 3).reshape(block_read.LAYERS, block_read.HEADS, -1)


if __name__ == "__main__":
    print(seconds(lambda: print(*measure(), sep="\n")))
