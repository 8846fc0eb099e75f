"""Reading one (image, layer) of values from a store of 300 images of a 7B model, against a plain file.

300 x 28 x 4 x 729 rows of width 128, 6.3 GB of values; both sides read 746 KB from the page cache, at random
places, and touch every byte. The floor is one copy out of the page cache.
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np

from kvstore import vectors
from kvstore.contracts import Grid, Layout
from kvstore.prefill.blocks import Buffer
from kvstore.prefill.record import Progress
from kvstore.prefill.writing import Window, Writer
from kvstore.vectors import schema as tables
from kvstore.vectors import write
from tests.bench.figure import Figure, seconds

IMAGES, WINDOW, READS = 300, 10, 200
LAYERS, HEADS, PATCHES, WIDTH = 28, 4, 729, 128
SHAPE = tables.Shape(tuple(range(LAYERS)), HEADS, 0, WIDTH, 0, 0, ())
LAYOUT = Layout((Grid(27, 27, (0, 0, 384, 384)),), PATCHES)


def measure() -> list[Figure]:
    """Median of 200 random blocks, each side on the same blocks in turn."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    try:
        _fill(folder)
        return _read(folder)
    finally:
        shutil.rmtree(folder)


def fill(lance: Path, images: int) -> Buffer:
    """Write values of images 0, 1, ..., the same every `WINDOW` images; the buffer holds a window's."""
    lance.mkdir(parents=True, exist_ok=True)
    schemas = tables.schemas(SHAPE)
    write.create(lance, "run", schemas)
    buffer = Buffer(SHAPE, "cpu")
    blocks = buffer.blocks([LAYOUT] * WINDOW)
    for name, memory in buffer.memory.items():
        if name != "good":
            memory.normal_()
    writer = Writer(lance, "run", schemas, {"value": SHAPE.layers}, [buffer], lambda *_: None)
    for first in range(0, images, WINDOW):
        rows = [(first + i, (first + i) * PATCHES, block) for i, block in enumerate(blocks)]
        writer.put(Window(writer.buffer(), rows, Progress()))
    writer.close()
    vectors.optimize(lance, "run", schemas, compact=False)
    return buffer


def _fill(folder: Path) -> None:
    buffer = fill(folder / "lance", IMAGES)
    with (folder / "plain.bin").open("wb") as file:
        for _ in range(IMAGES // WINDOW):
            file.write(buffer.memory["value"].numpy().view("u1").data)


def _read(folder: Path) -> list[Figure]:
    reader = vectors.Reader(folder / "lance", "run")
    size = HEADS * PATCHES * WIDTH
    chance = random.Random(0)
    ours, its, equal = [], [], True
    for _ in range(READS):
        image, layer = chance.randrange(IMAGES), chance.randrange(LAYERS)
        found: list[np.ndarray] = []  # type: ignore[type-arg]

        def kvstore(image: int = image, layer: int = layer, found: list = found) -> None:  # type: ignore[type-arg]
            found.append(np.array(reader.site("value", layer, image)))

        def plain(image: int = image, layer: int = layer, found: list = found) -> None:  # type: ignore[type-arg]
            offset = 2 * size * (image * LAYERS + layer)
            found.append(np.fromfile(folder / "plain.bin", np.float16, size, offset=offset))

        kvstore(), plain()
        equal &= bool((found[0].reshape(-1) == found[1]).all())
        ours.append(seconds(kvstore))
        its.append(seconds(plain))
    if not equal:
        raise AssertionError("the two sides read different values")
    mine, plain_time = 1e3 * statistics.median(ours), 1e3 * statistics.median(its)
    ratio = mine / plain_time
    note = f"{mine:.3f} against {plain_time:.3f} ms for {2 * size / 1e3:.0f} KB"
    return [
        Figure("read one (image, layer) of values", mine, "ms", "at most 5 ms", mine <= 5, note),
        Figure("the same / plain file", ratio, "x", "at most 3", ratio <= 3, note),
    ]
