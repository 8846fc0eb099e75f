"""Sequences for training: one prefix with its images, and many questions that do not see each other.

The prefix is encoded once for all of them: question tokens attend to the prefix and to their own question
alone, and each question's positions go on where the prefix ends, as if it stood there by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Question:
    """Ids of what stands behind the image up to the answer, and of the answer with its end."""

    tail: list[int]
    answer: list[int]


@dataclass
class Row:
    """One prefix and its questions.

    parts      token ids (list) and image tokens ([tokens, hidden]), in order
    positions  of the prefix, int64 [axes, prefix]
    gap        positions left out between prefix and questions
    """

    parts: list[Any]
    questions: list[Question]
    positions: torch.Tensor
    gap: int = 0


@dataclass(frozen=True)
class Batch:
    """What the language model takes, and where its answers are.

    embeddings  [rows, length, hidden]
    mask        bool [rows, 1, length, length]
    positions   [rows, length] or, with several axes, [axes, rows, length]
    at          flat indices of the tokens that predict `targets`
    owner       (row, question) of each target
    """

    embeddings: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    at: torch.Tensor
    targets: torch.Tensor
    owner: list[tuple[int, int]] = field(default_factory=list)


def build(embed: Any, rows: list[Row]) -> Batch:
    """Lay rows out, padded on the right."""
    made = [_row(embed, row) for row in rows]
    length = max(each[0].shape[0] for each in made)
    count = len(rows)
    embeddings = made[0][0].new_zeros(count, length, made[0][0].shape[1])
    group = torch.full((count, length), -1)
    axes = made[0][2].shape[0]
    positions = torch.zeros(axes, count, length, dtype=torch.long)
    at: list[int] = []
    targets: list[int] = []
    owner: list[tuple[int, int]] = []
    for index, (states, groups, places, answers) in enumerate(made):
        size = states.shape[0]
        embeddings[index, :size] = states
        group[index, :size] = groups
        positions[:, index, :size] = places
        for question, where, token in answers:
            at.append(index * length + where)
            targets.append(token)
            owner.append((index, question))
    device = embeddings.device
    seen = (group[:, None, :] == 0) | (group[:, :, None] == group[:, None, :])
    seen &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = seen[:, None].to(device)
    placed = (positions[0] if axes == 1 else positions).to(device)
    return Batch(
        embeddings, mask, placed, torch.tensor(at, device=device), torch.tensor(targets, device=device), owner
    )


def _row(embed: Any, row: Row) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[int, int, int]]]:
    """States [length, hidden], group of each token, positions [axes, length], (question, place, target)."""
    device = embed.weight.device
    parts = [p if isinstance(p, torch.Tensor) else embed(torch.tensor(p, device=device)) for p in row.parts]
    prefix = torch.cat(parts)
    size = prefix.shape[0]
    positions = row.positions
    first = int(positions.max()) + 1 + row.gap
    ids: list[int] = []
    groups = [torch.zeros(size, dtype=torch.long)]
    places = [positions]
    answers = []
    for number, question in enumerate(row.questions):
        start = size + len(ids) + len(question.tail) - 1
        tokens = question.tail + question.answer[:-1]
        answers += [(number, start + step, token) for step, token in enumerate(question.answer)]
        ids += tokens
        groups.append(torch.full((len(tokens),), number + 1))
        places.append((first + torch.arange(len(tokens))).expand(positions.shape[0], -1))
    states = torch.cat([prefix, embed(torch.tensor(ids, device=device))])
    return states, torch.cat(groups), torch.cat(places, 1), answers
