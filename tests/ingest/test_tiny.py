"""Training of the tiny models: sequences are those of plain transformers, labels what the scene shows."""

from __future__ import annotations

import contextlib
import importlib
import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kvstore import models, prompting, recipes
from tests.tiny import NAMES

recipes.load("ingest/datasets", "shapes")  # makes kvstore.recipes.ingest importable as a package


def module(name: str) -> ModuleType:
    return importlib.import_module(f"kvstore.recipes.ingest.{name}")


@pytest.fixture(scope="module")
def sheets() -> list[Any]:
    """A few scenes with the pixels of all families."""
    tiny = module("tiny.sheets")
    loaded = {name: models.load_config(f"{name}-untrained") for name in NAMES}
    return [tiny._sheet("val", number, loaded) for number in range(4)]


@pytest.fixture(scope="module")
def learners() -> dict[str, Any]:
    make = module("tiny.learner").Learner
    return {name: make(models.load(f"{name}-untrained", "cpu", "float32")) for name in NAMES}


def image(number: int) -> Any:
    scenes = module("datasets._scenes")
    return scenes.paint(scenes.compose("val", number))


@pytest.mark.parametrize("name", NAMES)
def test_kept_pixels_are_the_processors(name: str, sheets: list[Any], learners: dict[str, Any]) -> None:
    learner = learners[name]
    loaded = learner.loaded
    for sheet in sheets:
        made = loaded.image_processor(images=[image(sheet.number)], return_tensors="pt")["pixel_values"]
        overview = made if made.ndim == 2 else made[0, :1]
        torch.testing.assert_close(learner.inputs(sheet, "none").pixels, overview, atol=1e-6, rtol=0)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 3])
def test_packed_questions_are_answered_as_plain_transformers_does(
    name: str, count: int, before: bool, sheets: list[Any], learners: dict[str, Any]
) -> None:
    """Each question of a packed prompt gets the logits of a prompt of its own; the first may be a prefix."""
    learner, asking = learners[name], module("tiny.asking")
    mix = asking.Mix(tiles="all", prefix=float(before))
    some = sheets[:count]
    asked = [("color", "What color is the fish?", "red"), ("counting", "How many cars are there?", "2")]
    with torch.no_grad():
        inputs = [learner.inputs(sheet, "all", count > 1) for sheet in some]
        tokens = learner.tokens(inputs)
        row = learner._packer.row(inputs, tokens, asked, mix, random.Random(0))
        batch = module("tiny.sequences").build(learner.embed, [row])
        packed = learner._logits(batch)
    for number, (_, text, answer) in enumerate(asked):
        mine = [place for place, owner in enumerate(batch.owner) if owner == (0, number)]
        prefix = asked[0][1] + " " if before else ""
        plain = plain_logits(learner.loaded, some, "" if before and number == 0 else text, answer, prefix)
        torch.testing.assert_close(packed[mine], plain[-len(mine) :], atol=2e-4, rtol=2e-4)


def plain_logits(
    loaded: models.Loaded, scenes: list[Any], text: str, answer: str, prefix: str
) -> torch.Tensor:
    """Logits that predict the answer's tokens and its end, by the real processor and model."""
    processor = prompting.processor(loaded)
    content = [{"type": "image"}] * len(scenes) + ([{"type": "text", "text": text}] if text else [])
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=loaded.chat_template,
        add_generation_prompt=True,
        tokenize=False,
    )
    start = loaded.family.IMAGE_START + loaded.tokenizer.convert_ids_to_tokens(loaded.image_token_id)
    prompt = prompt.replace(start, prefix + start, 1)
    pictures = [image(scene.number) for scene in scenes]
    made = processor(
        images=[pictures],
        text=prompt + answer,
        return_tensors="pt",
        add_special_tokens=not prompt.startswith(loaded.tokenizer.bos_token or "\0"),
    )
    with torch.no_grad():
        return loaded.model(**made).logits[0]


def test_a_question_does_not_see_another(sheets: list[Any], learners: dict[str, Any]) -> None:
    learner = learners["tiny-onevision"]
    build, mix = module("tiny.sequences").build, module("tiny.asking").Mix(prefix=0.0)
    asked = [("color", "What color is the fish?", "red"), ("color", "What color is the car?", "blue")]
    with torch.no_grad():
        inputs = [learner.inputs(sheets[0], "none")]
        tokens = learner.tokens(inputs)
        rows = [learner._packer.row(inputs, tokens, a, mix, random.Random(0)) for a in (asked, asked[1:])]
        both, alone = (learner._logits(build(learner.embed, [row])) for row in rows)
    torch.testing.assert_close(both[-len(alone) :], alone, atol=1e-5, rtol=1e-5)


def test_labels_are_what_the_scene_shows(sheets: list[Any]) -> None:
    """Against the annotations: the patch under the middle of each mask carries its object's category."""
    from pycocotools import mask as coco

    from kvstore import datasets

    kinds = module("tiny.sheets").KINDS
    records = datasets.load("shapes", split="val").images
    for sheet in sheets:
        width, height = sheet.size
        labels = sheet.labels["tiny-onevision"].reshape(14, 14, 6)
        objects = records[sheet.number].annotate(width, height, 1).objects
        for thing in objects:
            pixels = coco.decode(json.loads(thing.mask)).astype(float)
            rows, columns = np.nonzero(pixels)
            inside = sum(
                labels[int(y * 14 / height), int(x * 14 / width), 0] == kinds.index(thing.category) + 1
                for y, x in zip(rows, columns, strict=True)
            )
            assert inside > 0.6 * len(rows)  # the rest lies in patches whose middle shows something else
        assert labels[..., 5].sum() == len(objects)
        assert ((labels[..., 0] > 0) == (labels[..., 1] > 0)).all()


def test_yes_and_no_are_asked_alike_often(sheets: list[Any]) -> None:
    asking = module("tiny.asking")
    rng, answers = random.Random(0), []
    for _ in range(400):
        for kind, _, answer in asking.ask([rng.choice(sheets)], asking.Mix(), rng):
            answers += [answer] if kind == "existence" else []
    assert abs(answers.count("yes") / len(answers) - 0.5) < 0.1


def test_training_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A course of 4 steps stopped after 2: weights, optimiser and step count come back from the disk."""
    loop = module("tiny.loop")

    def course(folder: Path, steps: int, until: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)

        def loss(step: int, rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
            if step == until:
                raise KeyboardInterrupt
            return (model(torch.full((2, 4), step + 1.0)) - 1).square().mean(), {}

        with contextlib.suppress(KeyboardInterrupt):
            loop.run(
                "line",
                folder,
                {"model": model},
                loop.optimisers([(model, 1.0)]),
                loop.Schedule(steps, warmup=1, decay=1.0),
                loss,
                seed=0,
                save_every=0.0,
            )
        return model.weight.detach().clone()

    whole = course(tmp_path / "a", 4, until=9)
    course(tmp_path / "b", 4, until=2)
    resumed = course(tmp_path / "b", 4, until=9)
    torch.testing.assert_close(resumed, whole)


def test_frozen_weights_stay(sheets: list[Any]) -> None:
    """With nothing of the vision side trained, a step moves the language model alone."""
    learner = module("tiny.learner").Learner(models.load("tiny-onevision-untrained", "cpu", "float32"))
    learner.model.requires_grad_(True)
    asking, loop = module("tiny.asking"), module("tiny.loop")
    steps = loop.optimisers([(learner.tower, 0.25), (learner.model, 1.0)])
    rng = random.Random(0)
    before = {name: weight.clone() for name, weight in learner.model.named_parameters()}
    for trained in ("all", "nothing"):
        if trained == "nothing":
            before = {name: weight.clone() for name, weight in learner.model.named_parameters()}
        loss, _ = learner.loss([[sheets[0]]], asking.Mix(trained=trained), rng)
        loss.backward()
        for optimiser in steps:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    moved = {
        name.split(".")[1]
        for name, weight in learner.model.named_parameters()
        if (weight != before[name]).any()
    }
    assert "language_model" in moved
    assert not moved & {"vision_tower", "multi_modal_projector"}


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-qwen"])
def test_grounding_is_the_attention_that_the_model_pays(
    name: str, sheets: list[Any], learners: dict[str, Any]
) -> None:
    """-log of the attention from nouns to what they name, and from the end to nouns, by eager attention."""
    learner, grounding = learners[name], module("tiny.grounding")
    sheet = sheets[0]
    labels = sheet.labels[name]
    number = int(labels[:, 0].max())
    kind = module("tiny.sheets").KINDS[number - 1]
    asked = [("color", f"What color is the {kind}?", "red")]
    with torch.no_grad():
        inputs = [learner.inputs(sheet, "none")]
        mix = module("tiny.asking").Mix(prefix=0.0)
        row = learner._packer.row(inputs, learner.tokens(inputs), asked, mix, random.Random(0))
        batch = module("tiny.sequences").build(learner.embed, [row])
        with learner._grounding.watching():
            learner._logits(batch)
        found = learner._grounding.loss(batch, [row], [labels])
        plain = models.load(f"{name}-untrained", "cpu", "float32").model
        plain.set_attn_implementation("eager")
        attention = plain.model.language_model(
            inputs_embeds=batch.embeddings,
            attention_mask=torch.where(batch.mask, 0.0, -1e9),
            position_ids=batch.positions,
            output_attentions=True,
        ).attentions
    noun = learner.loaded.tokenizer(f" {kind}", add_special_tokens=False)["input_ids"]
    tail, head = row.questions[0].tail, len(row.parts[0])
    start = sum(len(part) for part in row.parts)
    patches = head + np.flatnonzero(labels[:, 0] == number)
    place, end = start + tail.index(noun[0]), start + len(tail) - 1
    expected = [
        attention[grounding.TO_PATCHES[0]][0, grounding.TO_PATCHES[1], place, patches].sum(),
        attention[grounding.TO_LAST[0]][0, grounding.TO_LAST[1], end, place],
        attention[grounding.TO_FIRST[0]][0, grounding.TO_FIRST[1], end, place],
    ]
    assert found.item() == pytest.approx(-sum(float(torch.log(share)) for share in expected), rel=1e-4)


def test_which_side_follows_from_whether_it_is_on_a_side() -> None:
    side = module("tiny.asking")._side
    assert side(("relation", "Is the car left of the cup?", "no")) == [
        ("side", "Is the car left or right of the cup?", "right")
    ]
    assert side(("relation", "Is the red fish above the blue fish?", "yes")) == [
        ("side", "Is the red fish above or below the blue fish?", "above")
    ]
    assert side(("relation", "Is the car right of the cup?", "no")) == []  # the same pair is asked for left
    assert side(("color", "What color is the car?", "red")) == []
