"""What `shapes` says and asks, judged again from masks and captions alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from kvstore import datasets, recipes
from kvstore.contracts import ImageRecord, Question

KINDS = ("fish", "bird", "car", "house", "tree", "person", "cup", "boat")
HUES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
STYLES = ("flat", "outline", "hatched", "pixelated", "watercolour")
COLUMNS, ROWS = ("left", "", "right"), ("top", "", "bottom")


@dataclass(frozen=True)
class Seen:
    """One object: its middle in shares of the image, and what it is."""

    object_id: int
    category: str
    hue: str
    x: float
    y: float


def described(record: ImageRecord) -> tuple[list[Seen], str]:
    """Objects with their hues, which the caption lists from left to right, and the style it names."""
    said = record.annotate(0, 0, 1)
    listed, style = re.fullmatch(r"(.+) on an? \w+ background", said.captions[0]), said.captions[1]
    nouns = re.split(r", | and ", listed[1])
    middles = []
    for thing in said.objects:
        height, width = json.loads(thing.mask)["size"]
        x0, y0, x1, y1 = thing.box
        middles.append((thing, (x0 + x1) / 2 / width, (y0 + y1) / 2 / height))
    middles.sort(key=lambda middle: middle[1])
    found = []
    for noun, (thing, x, y) in zip(nouns, middles, strict=True):
        _, hue, category = noun.split()
        assert category == thing.category
        assert hue in HUES
        found.append(Seen(thing.object_id, category, hue, x, y))
    return found, re.match(r"an? (\w+) picture of", style)[1]


@cache
def world(split: str) -> dict[str, tuple[list[Seen], str]]:
    """All images of a split by name."""
    return {record.name: described(record) for record in datasets.load("shapes", split=split).images}


def named(words: str, seen: list[Seen]) -> list[Seen]:
    """The objects that "red fish" or "fish" fits."""
    *hue, category = words.split()
    return [s for s in seen if s.category == category and hue in ([], [s.hue])]


def at(place: str, seen: list[Seen]) -> list[Seen]:
    """The objects whose middle is in a ninth of the image: "top left", "top", "middle", ..."""

    def ninth(thing: Seen) -> str:
        words = (ROWS[int(thing.y * 3)], COLUMNS[int(thing.x * 3)])
        return " ".join(word for word in words if word) or "middle"

    return [s for s in seen if ninth(s) == place]


def beside(relation: str, thing: Seen, anchor: Seen) -> bool:
    return {
        "left of": thing.x < anchor.x,
        "right of": thing.x > anchor.x,
        "above": thing.y < anchor.y,
        "below": thing.y > anchor.y,
    }[relation]


def meant(text: str, seen: list[Seen]) -> list[Seen]:
    """All objects that an expression fits."""
    if place := re.fullmatch(r"the thing at the ([a-z ]+)", text):
        return at(place[1], seen)
    if near := re.fullmatch(r"the ([a-z ]+) (left of|right of|above|below) the ([a-z ]+)", text):
        (anchor,) = named(near[3], seen)
        return [s for s in named(near[1], seen) if beside(near[2], s, anchor)]
    return named(text.removeprefix("the "), seen)


def test_each_expression_fits_exactly_one_object() -> None:
    forms: Counter[str] = Counter()
    told, things = set(), 0
    for record in datasets.load("shapes").images:
        seen = world("test")[record.name][0]
        things += len(seen)
        said = record.annotate(0, 0, 1).expressions
        assert len(set(said)) == len(said)
        for expression in said:
            assert [s.object_id for s in meant(expression.text, seen)] == [expression.object_id]
            told.add(expression.object_id)
            forms["at" if " at " in expression.text else str(len(expression.text.split()))] += 1
    assert len(told) > 0.9 * things  # few cannot be singled out
    assert min(forms[form] for form in ("at", "2", "3", "5", "6")) > 20  # the cup; the red cup; left of it


def answer(asked: Question, images: list[tuple[list[Seen], str]]) -> str:
    """The answer, from what the images show."""
    seen, style = images[0]
    if asked.kind == "style":
        (place,) = (n for n in (1, 2) if images[n][1] == style)
        return ("first", "second", "third")[place]
    if there := re.fullmatch(r"Is there an? ([a-z ]+) in the image\?", asked.text):
        return "yes" if named(there[1], seen) else "no"
    if color := re.fullmatch(r"What color is the ([a-z]+)\?", asked.text):
        (one,) = named(color[1], seen)
        return one.hue
    if place_ := re.fullmatch(r"What is at the ([a-z ]+)\?", asked.text):
        (one,) = at(place_[1], seen)
        return one.category
    if count := re.fullmatch(r"How many ([a-z]+) are there\?", asked.text):
        kind = {"people": "person", "fish": "fish"}.get(count[1], count[1][:-1])
        return str(len(seen) if kind == "thing" else len(named(kind, seen)))
    near = re.fullmatch(r"Is the ([a-z ]+) (left of|right of|above|below) the ([a-z ]+)\?", asked.text)
    (thing,), (anchor,) = named(near[1], seen), named(near[3], seen)
    return "yes" if beside(near[2], thing, anchor) else "no"


@pytest.mark.parametrize("split", ["test", "val"])
def test_each_question_is_answered_as_the_images_show(split: str) -> None:
    kinds: Counter[str] = Counter()
    for asked in datasets.load("shapes", split=split).questions:
        assert answer(asked, [world(split)[name] for name in asked.images]) == asked.answer, asked
        assert asked.answer in asked.options
        assert len(asked.images) == (3 if asked.kind == "style" else 1)
        kinds[asked.kind] += 1
    least = {"existence": 400, "counting": 200, "color": 150, "place": 150, "relation": 150, "style": 190}
    assert all(kinds[kind] >= n for kind, n in least.items())
    assert kinds.keys() == least.keys()


def test_options_are_all_answers_of_the_kind() -> None:
    expected = {
        "existence": {"yes", "no"},
        "relation": {"yes", "no"},
        "style": {"second", "third"},
        "color": set(HUES),
        "place": set(KINDS),
        "counting": set("0123456"),
    }
    for asked in datasets.load("shapes").questions:
        assert set(asked.options) == expected[asked.kind]


@pytest.mark.parametrize("split", ["test", "val"])
def test_two_choice_answers_are_balanced(split: str) -> None:
    questions = datasets.load("shapes", split=split).questions
    per_image: dict[tuple[str, ...], list[str]] = {}
    for asked in questions:
        if asked.kind == "existence":
            per_image.setdefault(asked.images, []).append(asked.answer)
    assert set(map(tuple, map(sorted, per_image.values()))) == {("no", "yes")}
    for kind, first in (("relation", "yes"), ("style", "second")):
        answers = [asked.answer for asked in questions if asked.kind == kind]
        assert abs(answers.count(first) / len(answers) - 0.5) < 0.03


def test_what_is_not_there_is_often_nearly_there() -> None:
    """Hard negatives, as POPE's adversarial ones: a category or a hue of the image, in no object together."""
    hard = []
    for asked in datasets.load("shapes").questions:
        if asked.kind == "existence" and asked.answer == "no":
            words = re.fullmatch(r"Is there an? ([a-z ]+) in the image\?", asked.text)[1].split()
            seen = world("test")[asked.images[0]][0]
            hard.append(any({s.hue, s.category} & set(words) for s in seen))
    assert 0.4 < sum(hard) / len(hard) < 0.9


def test_ids_are_stable_and_style_questions_stay_near() -> None:
    dataset = datasets.load("shapes")
    ids = [asked.question_id for asked in dataset.questions]
    assert len(set(ids)) == len(ids)
    again = {asked.question_id: asked for asked in datasets.load("shapes", limit=7).questions}
    for asked in dataset.questions:
        assert again[asked.question_id] == asked
        number = int(asked.images[0][-10:-4])
        assert asked.question_id // 20 == number
        assert len(set(asked.images)) == len(asked.images)
        assert {int(name[-10:-4]) // 20 for name in asked.images} == {number // 20}


def test_nothing_is_drawn_before_questions_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> Iterator[object]:
        raise AssertionError("a scene was composed")

    blocks = vars(recipes.load("ingest/datasets", "shapes"))["_blocks"]
    blocks.told.cache_clear()  # what other tests of this process have asked for
    monkeypatch.setattr(vars(blocks)["_scenes"], "compose", touched)
    dataset = datasets.load("shapes", split="train", limit=30)
    assert dataset.images[29].name == "train/000029.png"
    with pytest.raises(AssertionError, match="composed"):
        len(dataset.questions)
