"""A sample of tests/fuzz/model_files.py: fields of model files replaced by what does not belong there."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.model_files import MODELS, Case, cases, fault

#: The same every time, until the tiny models' files have other fields.
SAMPLE = [case for model in MODELS for case in random.Random(11).sample(cases(model), 8)]


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_vectors_are_those_of_plain_transformers_or_a_line_says_why_not(case: Case) -> None:
    assert fault(case) is None
