"""What built-in tiny models share: sizes, a small real tokenizer, machine-independent weights, files.

A family's recipe states its configuration and template; here it becomes a folder of the same form as a hub
snapshot (config.json, model.safetensors, preprocessor_config.json, processor_config.json, tokenizer files,
chat_template.jinja).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Rows of the token embedding: what the tokenizer learns, and room.
VOCABULARY = 704
#: Grouped-query attention with 2 KV heads of 32 numbers, as flat as a language model can be.
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
}
VISION: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
#: What the tokenizer learns from: sentences, and words that each become one token, alone and after a space.
_CORPUS = """
A photo of a cat that sleeps on a sofa. Two dogs run across the green field behind the house.
What is in this image? Describe the picture in one sentence. Which of the two is on the left?
You are a helpful language and vision assistant. You are able to understand the visual content that the
user provides, and assist the user with a variety of tasks using natural language. Answer with yes or no.
"""
_WORDS = """
Is there a an the fish bird car house tree person cup boat birds cars houses trees people cups boats thing
things object objects red orange yellow green teal blue purple pink What color is style How many are Where
Which image images first second third or has have of have left right above below top bottom middle in on at
and one two three four five six yes no flat outline outlines hatched pixelated watercolour watercolor with
drawn as striped checked cloudy plain background Describe picture look like system user assistant to by
"""


def rope(theta: float, **further: Any) -> dict[str, Any]:
    """The rotary part of a text configuration."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **further}}


def tokenizer(special: Sequence[str], template: str, end: str, pad: str, begin: str | None = None) -> Any:
    """A byte-level BPE of a few sentences and words, with the family's special tokens and chat template.

    `begin`, where given, is put before every text, as Llama's tokenizers do.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=960, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    words = [form for word in _WORDS.split() for form in (word, f" {word}")]
    bpe.train_from_iterator(_CORPUS.splitlines() + 4 * words, trainer)
    bpe.add_special_tokens(list(special))
    if begin is not None:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, bpe.token_to_id(begin))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, pad_token=pad, bos_token=begin)
    fast.chat_template = template
    return fast


def write(
    folder: Path, model_class: Any, config: Any, image_processor: Any, tokens: Any, settings: dict[str, Any]
) -> None:
    """Write model, image processor, tokenizer and `settings` of the processor into `folder`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        model = model_class(config)
    fill(model)
    model.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    tokens.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def fill(model: Any) -> None:
    """Draw every weight from numbers that depend only on its name, equal on every machine.

    Matrices are uniform with variance 1 / fan-in, so that activations keep their size and attention is
    neither flat nor a single peak. Uniform numbers come from PCG64's integers by one multiplication, while
    normal numbers would go through the machine's own logarithms and cosines.
    """
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.from_numpy(_drawn(name, tuple(weight.shape))))


def _drawn(name: str, shape: tuple[int, ...]) -> Any:
    """Values of one parameter; float32 of `shape`."""
    import numpy as np

    if len(shape) == 1 and name.endswith("weight"):  # the scale of a norm
        return np.ones(shape, np.float32)
    if "position_embedding" in name or len(shape) == 1:
        deviation = 0.3 if "position_embedding" in name else 0.1
    elif "embed_tokens" in name:
        deviation = 0.5
    else:
        deviation = 1 / math.sqrt(math.prod(shape[1:]))
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    uniform = np.random.Generator(np.random.PCG64(seed)).random(shape, dtype=np.float32) - np.float32(0.5)
    return uniform * np.float32(deviation * math.sqrt(12))
