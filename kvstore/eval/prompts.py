"""Prompts in token ids, cut where their images end: all before is prefilled once for many questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvstore import prompting
from kvstore.contracts import Inputs
from kvstore.eval.questions import Asked, Picture

if TYPE_CHECKING:
    from kvstore.models import Loaded


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question's prompt: `start` ends with the last image's placeholder (one an image), `tail` follows."""

    question: Asked
    start: tuple[int, ...]
    tail: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that start alike: with the same images after the same text."""

    images: tuple[Picture, ...]
    start: tuple[int, ...]
    prompts: tuple[Prompt, ...]


def groups(loaded: Loaded, questions: Iterable[Asked], prefix: str) -> Iterator[Group]:
    """All prompts, those that start alike together, in the order of each group's first question."""
    found: dict[tuple[tuple[Picture, ...], tuple[int, ...]], list[Prompt]] = {}
    asked = list(questions)
    ids = prompting.question_ids(loaded, [(one.text, len(one.images)) for one in asked], prefix)
    for question, tokens in zip(asked, ids, strict=True):
        made = _cut(loaded, question, tokens)
        found.setdefault((question.images, made.start), []).append(made)
    for (images, start), prompts in found.items():
        yield Group(images, start, tuple(prompts))


def _cut(loaded: Loaded, question: Asked, ids: Sequence[int]) -> Prompt:
    cut = len(ids) - ids[::-1].index(loaded.image_token_id)
    return Prompt(question, tuple(ids[:cut]), tuple(ids[cut:]))


def expanded(loaded: Loaded, start: Sequence[int], inputs: Sequence[Inputs]) -> list[int]:
    """`start` with each placeholder repeated for every token of its image."""
    counts = iter(inputs)
    ids: list[int] = []
    for token in start:
        ids += [token] * (next(counts).layout.tokens if token == loaded.image_token_id else 1)
    return ids


def option_ids(loaded: Loaded, option: str) -> list[int]:
    """Token ids of an answer as the model would write it: the text's own, then the tokenizer's end token."""
    ids = loaded.tokenizer(option, add_special_tokens=False)["input_ids"]
    return [*map(int, ids), int(loaded.tokenizer.eos_token_id)]
