"""The trained models that come with the package: plain transformers loads them, and they answer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from kvstore import models, prompting
from kvstore.model_files import shipped
from tests.tiny import NAMES

FOLDERS = shipped()
CHECKPOINTS = sorted(name for name in FOLDERS if "-step-" in name)
MLMS = [*NAMES, *CHECKPOINTS]


def test_what_is_shipped_and_how_large_it_is() -> None:
    assert set(FOLDERS) == {*NAMES, "tiny-encoder", *CHECKPOINTS}
    assert len(CHECKPOINTS) + 1 >= 6  # with the finished model, the last of its own training
    files = [path for folder in FOLDERS.values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6


@pytest.mark.parametrize("name", [*MLMS, "tiny-encoder"])
def test_weights_are_float16_and_few(name: str) -> None:
    with safe_open(FOLDERS[name] / "model.safetensors", framework="pt") as file:
        weights = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118 - no mapping
        assert {weight.get_dtype() for weight in weights} == {"F16"}
        assert sum(torch.Size(weight.get_shape()).numel() for weight in weights) <= 6e6


@pytest.mark.parametrize("name", MLMS)
def test_plain_transformers_loads_a_model_whole(name: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model, report = AutoModelForImageTextToText.from_pretrained(FOLDERS[name], output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(FOLDERS[name])
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    text = model.config.text_config
    assert text.num_hidden_layers >= 8
    assert 2 <= text.num_key_value_heads < text.num_attention_heads
    assert (
        tokenizer("Is there a red fish in the image?")["input_ids"]
        == models.load_config(
            "tiny-onevision-untrained" if name in CHECKPOINTS else f"{name}-untrained"
        ).tokenizer("Is there a red fish in the image?")["input_ids"]
    )


def test_the_encoder_is_a_siglip_that_matches_images_with_their_captions() -> None:
    """Of 40 held-out scenes the right caption is far more often the nearest than by chance."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    from kvstore import datasets
    from kvstore.images import decode

    folder = FOLDERS["tiny-encoder"]
    model, report = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert type(model).__name__ == "SiglipModel"
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    records = datasets.load("shapes", limit=40).images
    images = [decode(record.read()).image for record in records]
    captions = [
        record.annotate(*image.size, 1).captions[0] for record, image in zip(records, images, strict=True)
    ]
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = tokenizer(
        captions,
        padding="max_length",
        max_length=48,
        truncation=True,
        padding_side="right",
        return_tensors="pt",
    )
    with torch.no_grad():
        made = model(input_ids=words["input_ids"], **processor(images=images, return_tensors="pt"))
    right = (made.logits_per_image.argmax(1) == torch.arange(40)).float().mean()
    assert right > 0.5  # by chance 0.025


def test_the_encoder_is_the_tower_before_the_mlm_was_trained() -> None:
    """The same shapes, other weights: the MLM's training changed the tower."""
    names = {}
    for name, start in (("tiny-encoder", "vision_model."), ("tiny-onevision", "model.vision_tower.")):
        with safe_open(FOLDERS[name] / "model.safetensors", framework="pt") as file:
            keys = [key for key in file.keys() if "encoder.layers." in key and start in f"model.{key}"]  # noqa: SIM118
            names[name] = {
                key[key.index("encoder.layers.") :]: file.get_tensor(key) for key in keys if "vision" in key
            }
    before, after = names["tiny-encoder"], names["tiny-onevision"]
    shared = before.keys() & after.keys()
    assert len(shared) == 4 * 16  # 4 layers of 16 tensors
    assert all(before[key].shape == after[key].shape for key in shared)
    assert not all(torch.equal(before[key], after[key]) for key in shared)


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_model_answers_and_its_untrained_twin_does_not(name: str) -> None:
    """Existence and place over 12 held-out scenes, by plain generation."""
    trained, untrained = (asked(models.load(each, "cpu", "float32")) for each in (name, f"{name}-untrained"))
    assert untrained < 0.2 < 0.6 < trained


def asked(loaded: models.Loaded) -> float:
    from kvstore import datasets
    from kvstore.images import decode

    dataset = datasets.load("shapes", limit=12)
    pictures = {record.name: decode(record.read()).image for record in dataset.images}
    questions = [q for q in dataset.questions if len(q.images) == 1 and q.images[0] in pictures]
    chosen = random.Random(0).sample([q for q in questions if q.kind in ("existence", "place")], 24)
    return sum(generated(loaded, pictures[q.images[0]], q.text) == q.answer for q in chosen) / len(chosen)


def generated(loaded: models.Loaded, picture: Any, text: str) -> str:
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=loaded.chat_template,
        add_generation_prompt=True,
        tokenize=False,
    )
    special = not prompt.startswith(loaded.tokenizer.bos_token or "\0")
    made = prompting.processor(loaded)(
        images=[picture], text=prompt, return_tensors="pt", add_special_tokens=special
    )
    with torch.no_grad():
        out = loaded.model.generate(**made, do_sample=False, max_new_tokens=6)
    return str(loaded.tokenizer.decode(out[0, made["input_ids"].shape[1] :], skip_special_tokens=True))


def test_the_card_and_the_curves_are_there() -> None:
    """Each course's curve ends where the card says, and accuracy rises by at least 0.3 along it."""
    here = FOLDERS["tiny-onevision"].parent
    lines = [json.loads(line) for line in (here / "curves" / "onevision.jsonl").read_text().splitlines()]
    told = [line["accuracy"] for line in lines if "accuracy" in line]
    assert told[-1] - told[0] > 0.3
    card = Path(here, "README.md").read_text(encoding="utf-8")
    assert all(name in card for name in FOLDERS)
