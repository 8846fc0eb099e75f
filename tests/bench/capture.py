"""Capture against the same prefill with an ordinary DynamicCache (CPU, a tiny model).

Both sides run the decoder over the same embeddings; ours also rounds to float16, lays the rows out, and makes
pooled vectors and key moments.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache

from kvstore import models, prompting
from kvstore.prefill.blocks import Buffer
from kvstore.prefill.forward import Engine, Prompt
from kvstore.prefill.moments import KeyMoments
from kvstore.prefill.options import Options
from kvstore.prefill.plan import shape_of
from tests.bench.figure import Figure, in_turn
from tests.bench.pictures import pictures

BATCH, ROUNDS = 4, 15


def measure() -> list[Figure]:
    """A batch of 4 images, all layers, keys and values."""
    loaded = models.load("tiny-onevision", "cpu", "float32")
    shape = shape_of(Options("shapes", "tiny-onevision", sites=("value", "key")), loaded.description)
    prompt = Prompt(tuple(prompting.prompt_ids(loaded)), loaded.image_token_id)
    engine = Engine(loaded.model, loaded.family, prompt, shape, 1, KeyMoments())
    inputs = [
        loaded.family.preprocess(loaded.config, loaded.image_processor, image, "base")
        for image in pictures(BATCH)
    ]
    blocks = Buffer(shape, "cpu").blocks([item.layout for item in inputs])
    decoder = loaded.model.model.language_model

    @torch.inference_mode()
    def plain() -> None:
        tokens = loaded.family.encode(loaded.model, inputs, ()).tokens
        _, embeds = engine._sequence(tokens)
        decoder(inputs_embeds=embeds, past_key_values=DynamicCache(config=decoder.config), use_cache=True)

    ours, its, ratio = in_turn(lambda: engine.run(inputs, blocks), plain, ROUNDS)
    note = f"{1e3 * ours:.1f} against {1e3 * its:.1f} ms a batch of {BATCH}"
    return [Figure("capture / prefill with DynamicCache", ratio, "x", "at most 1.1", ratio <= 1.1, note)]
