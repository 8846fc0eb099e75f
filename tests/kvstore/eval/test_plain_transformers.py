"""Answers against plain `transformers`: the model's own processor, `generate` and a plain forward.

Greedy tokens of untrained weights are as good as random, and logits of the two ways differ by the order of
their sums (some 1e-6): equal texts of 16 tokens mean equal prompts, images, masks and positions. The
log-likelihoods' TOLERANCE: the largest difference met over all cases is 1.1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image

from kvstore import images, recipes
from kvstore.contracts import Inputs
from kvstore.eval.forward import Answerer
from kvstore.eval.prompts import expanded, groups, option_ids
from kvstore.eval.questions import Asked
from kvstore.models import Loaded, load
from kvstore.prompting import processor

TOLERANCE = 1e-4
MODELS = ("tiny-onevision-untrained", "tiny-next-untrained", "tiny-qwen-untrained")
QUESTIONS = ("What color is the fish?", "Is there a red house left of the tree?", "Which?")
OPTIONS = ("yes", "no", "top left", "a  long, strange option.")
PREFIX = "Look at the fish. "
SIZES = ((128, 96), (70, 110), (200, 60))


@cache
def loaded(name: str) -> Loaded:
    return load(name, "cpu", "float32")


@cache
def scenes() -> list[Image.Image]:
    """Three drawn scenes, each of another shape."""
    drawn = recipes.load("ingest/datasets", "shapes").load(None, "test")
    decoded = [images.decode(drawn.images[n].read()).image for n in range(len(SIZES))]
    return [image.resize(size) for image, size in zip(decoded, SIZES, strict=True)]


def plain(name: str, question: str, shown: Sequence[Image.Image], prefix: str) -> dict[str, Any]:
    """What the real processor makes of the whole prompt, the prefix written before the first image."""
    made = processor(loaded(name))
    content = [{"type": "image"}] * len(shown) + [{"type": "text", "text": question}]
    text = made.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    start = loaded(name).family.IMAGE_START + made.image_token
    text = text.replace(start, prefix + start, 1)
    return dict(made(text=[text], images=[list(shown)], return_tensors="pt"))


def chat(name: str, question: str, shown: Sequence[Image.Image]) -> dict[str, Any]:
    """What the real processor makes of the conversation, in its one call for that."""
    content: list[dict[str, Any]] = [{"type": "image", "image": image} for image in shown]
    turn = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    made = processor(loaded(name)).apply_chat_template(
        turn, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    return dict(made)


def inputs_of(name: str, shown: Sequence[Image.Image]) -> list[Inputs]:
    model = loaded(name)
    family, config, own = model.family, model.config, model.image_processor
    if len(shown) > 1 and hasattr(family, "several"):
        return list(family.several(config, own, shown))
    return [family.preprocess(config, own, image, "all") for image in shown]


def read(
    name: str, shown: Sequence[Image.Image], prefix: str, batch: int = 32
) -> tuple[Answerer, Any, list[Any]]:
    """The context of the images and the questions' tails, as kvstore sees them."""
    model = loaded(name)
    asked = [
        Asked(n, text, (), (None,) * len(shown), frozenset())  # type: ignore[arg-type]
        for n, text in enumerate(QUESTIONS)
    ]
    (group,) = groups(model, asked, prefix)
    inputs = inputs_of(name, shown)
    answerer = Answerer(model, batch)
    context = answerer.read(expanded(model, group.start, inputs), inputs)
    return answerer, context, [each.tail for each in group.prompts]


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_those_of_generate(name: str, count: int, prefix: str) -> None:
    shown = scenes()[:count]
    answerer, context, tails = read(name, shown, prefix)
    made = answerer.generate(context, tails, 16)
    decode = loaded(name).tokenizer.decode
    for question, tail, ids in zip(QUESTIONS, tails, made, strict=True):
        given = plain(name, question, shown, prefix)
        assert given["input_ids"][0].tolist() == [*context.ids, *tail]
        out = loaded(name).model.generate(**given, do_sample=False, max_new_tokens=16)
        expected = out[0, given["input_ids"].shape[1] :]
        assert decode(ids, skip_special_tokens=True) == decode(expected, skip_special_tokens=True)
        assert ids == expected.tolist()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_a_prompts_ids_are_those_of_the_processors_chat(name: str, count: int) -> None:
    shown = scenes()[:count]
    _, context, tails = read(name, shown, "")
    for question, tail in zip(QUESTIONS, tails, strict=True):
        assert chat(name, question, shown)["input_ids"][0].tolist() == [*context.ids, *tail]


@pytest.mark.parametrize(("count", "prefix"), [(1, PREFIX), (3, "")])
@pytest.mark.parametrize("name", MODELS)
def test_log_likelihoods_are_those_of_a_plain_forward(name: str, count: int, prefix: str) -> None:
    shown = scenes()[:count]
    answerer, context, tails = read(name, shown, prefix)
    answers = [option_ids(loaded(name), option) for option in OPTIONS]
    end = loaded(name).tokenizer.eos_token_id
    assert [answer[-1] for answer in answers] == [end] * len(OPTIONS)
    made = answerer.log_likelihoods(context, [(tail, answer) for tail in tails for answer in answers])
    expected = []
    for question in QUESTIONS:
        given = plain(name, question, shown, prefix)
        length = given["input_ids"].shape[1]
        for answer in answers:
            whole = dict(given)
            for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
                if key in given:
                    more = {"input_ids": answer, "attention_mask": [1] * len(answer)}
                    added = torch.tensor([more.get(key, [0] * len(answer))])
                    whole[key] = torch.cat([given[key], added], 1)
            with torch.no_grad():
                logits = loaded(name).model(**whole).logits[0, length - 1 : -1].double()
            expected.append(float(logits.log_softmax(-1)[range(len(answer)), answer].sum()))
    difference = max(abs(a - b) for a, b in zip(made, expected, strict=True))
    assert difference < TOLERANCE, difference
    assert max(made) - min(made) > 1  # options do differ


@pytest.mark.parametrize("name", MODELS)
def test_the_batch_does_not_change_the_answers(name: str) -> None:
    shown = scenes()[:1]
    answerer, context, tails = read(name, shown, "")
    alone, _, _ = read(name, shown, "", batch=1)
    assert alone.generate(context, tails, 8) == answerer.generate(context, tails, 8)
    pairs = [(tail, option_ids(loaded(name), option)) for tail in tails for option in OPTIONS]
    apart = alone.log_likelihoods(context, pairs)
    assert answerer.log_likelihoods(context, pairs) == pytest.approx(apart, abs=TOLERANCE)


def test_an_answer_ends_with_its_end_token() -> None:
    name = MODELS[2]
    answerer, context, tails = read(name, scenes()[:1], "")
    free = answerer.generate(context, tails, 16)
    answerer.ends = frozenset({free[0][2]})
    cut = answerer.generate(context, tails, 16)
    assert cut[0] == free[0][: free[0].index(free[0][2]) + 1]
    assert all(len(ids) == 16 or ids[-1] == free[0][2] for ids in cut)


@pytest.mark.parametrize("name", MODELS[1:])
def test_the_models_own_repetition_penalty_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded(name).model.generation_config, "repetition_penalty", 1.3)
    shown = scenes()[:1]
    answerer, context, tails = read(name, shown, "")
    made = answerer.generate(context, tails, 16)
    for question, ids in zip(QUESTIONS, made, strict=True):
        given = plain(name, question, shown, "")
        out = loaded(name).model.generate(**given, do_sample=False, max_new_tokens=16)
        assert ids == out[0, given["input_ids"].shape[1] :].tolist()
