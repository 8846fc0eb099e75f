"""Ingest's Lance writing against one plain sequential write and fsync of the same bytes.

The floor is the disk: the plain write. Both sides write vectors that are in memory already.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from kvstore.contracts import Grid, Layout
from kvstore.prefill.blocks import Buffer
from kvstore.prefill.record import Progress
from kvstore.prefill.writing import BUFFERS, Window, Writer
from kvstore.vectors import schema as tables
from kvstore.vectors import write
from tests.bench.figure import Figure, in_turn

IMAGES, WINDOW, ROUNDS = 72, 6, 5
LAYOUT = Layout((Grid(27, 27, (0, 0, 384, 384)),), 729)
SHAPE = tables.Shape(tuple(range(28)), 4, 128, 128, 0, 0, ())


def measure() -> list[Figure]:
    """72 images of a 7B model: 28 layers, 4 heads, 729 patches, width 128."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    buffers = [Buffer(SHAPE, "cpu") for _ in range(BUFFERS)]
    blocks = {id(buffer): buffer.blocks([LAYOUT] * WINDOW) for buffer in buffers}
    for buffer in buffers:
        for name, memory in buffer.memory.items():
            if name != "good":
                memory.normal_()
    size = sum(2 * memory.numel() for name, memory in buffers[0].memory.items() if name in ("key", "value"))
    total = size * IMAGES // WINDOW

    def ours() -> None:
        shutil.rmtree(folder / "lance", ignore_errors=True)
        (folder / "lance").mkdir(parents=True)
        schemas = tables.schemas(SHAPE)
        write.create(folder / "lance", "run", schemas)
        layers = {"key": SHAPE.layers, "value": SHAPE.layers}
        writer = Writer(folder / "lance", "run", schemas, layers, list(buffers), lambda *_: None)  # type: ignore[arg-type]
        for first in range(0, IMAGES, WINDOW):
            buffer = writer.buffer()
            rows = [(first + i, (first + i) * 729, block) for i, block in enumerate(blocks[id(buffer)])]
            writer.put(Window(buffer, rows, Progress()))
        writer.close()

    plain_file = folder / "plain.bin"
    parts = [buffers[0].memory[name].numpy().view("u1").data for name in ("key", "value")]

    def plain() -> None:
        plain_file.unlink(missing_ok=True)
        with plain_file.open("wb") as file:
            for _ in range(IMAGES // WINDOW):
                for part in parts:
                    file.write(part)
            file.flush()
            os.fsync(file.fileno())

    try:
        torch.manual_seed(0)
        mine, its, ratio = in_turn(ours, plain, ROUNDS)
    finally:
        shutil.rmtree(folder)
    speed = 1 / ratio
    note = f"{total / mine / 1e9:.2f} against {total / its / 1e9:.2f} GB/s, {total / 1e9:.2f} GB a round"
    return [Figure("Lance writing / plain write and fsync", speed, "x", "at least 0.8", speed >= 0.8, note)]
