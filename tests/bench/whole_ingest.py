"""A whole ingest against the script that a researcher would write.

The script: full prompt with a question, all AnyRes tiles, a full forward, one image at a time; then
`torch.save` of the image tokens' keys and values.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

import torch
from PIL import Image

from kvstore import models, prompting
from kvstore.prefill import ingest
from kvstore.prefill.options import Options
from kvstore.store import Store
from tests.bench.figure import Figure, seconds
from tests.bench.pictures import jpeg_folder

IMAGES, BY_SCRIPT, ROUNDS = 160, 16, 3


def measure() -> list[Figure]:
    """160 JPEGs by kvstore, the first 16 by the script; rates, in turn, three rounds."""
    folder = Path(tempfile.mkdtemp(prefix="kvstore-bench-"))
    try:
        jpeg_folder(folder / "images", IMAGES)
        pairs = [(_kvstore(folder, i), _script(folder)) for i in range(ROUNDS)]
    finally:
        shutil.rmtree(folder)
    ratio = statistics.median(ours / its for ours, its in pairs)
    ours, its = (statistics.median(side) for side in zip(*pairs, strict=True))
    note = f"{ours:.1f} against {its:.2f} images/s"
    return [Figure("whole ingest / researcher's script", ratio, "x images/s", "at least 4", ratio >= 4, note)]


def _kvstore(folder: Path, number: int) -> float:
    def run() -> None:
        options = Options("folder", "tiny-onevision", root=folder / "images", sites=("value", "key"))
        plan = ingest.plan(options)
        meter = ingest.Meter()
        seen = ingest.look(plan, meter)
        ingest.ingest(Store.open(folder / f"store{number}", create=True), plan, seen, meter)

    return IMAGES / seconds(run)


@torch.inference_mode()
def _script(folder: Path) -> float:
    def run() -> None:
        loaded = models.load("tiny-onevision", "cpu", "float32")
        processor = prompting.processor(loaded)
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
        text = processor.apply_chat_template(turn, add_generation_prompt=True)
        for path in sorted((folder / "images").iterdir())[:BY_SCRIPT]:
            inputs = processor(images=[Image.open(path)], text=text, return_tensors="pt")
            cache = loaded.model(**inputs, use_cache=True).past_key_values
            image = inputs["input_ids"][0] == loaded.image_token_id
            kept = [
                (layer.keys[0][:, image].half(), layer.values[0][:, image].half()) for layer in cache.layers
            ]
            torch.save(kept, folder / f"{path.stem}.pt")

    return BY_SCRIPT / seconds(run)
