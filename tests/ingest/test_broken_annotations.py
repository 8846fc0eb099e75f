"""A sample of what `tests.fuzz.annotations` tries: annotation files with a field that cannot be."""

from __future__ import annotations

import pytest

from tests.fuzz import annotations

NAMES = ["coco", "refcoco", "spair71k", "davis2017", "pascal5i", "imagenet_s"]


def test_a_field_that_is_not_what_it_should_be_is_told(tmp_path):
    found = list(annotations.tried(tmp_path, NAMES, 60, seed=1, real=False))
    assert len(found) == 60
    assert {case.world.name for case, _ in found} >= {"coco", "refcoco"}
    assert [f"{case}: {wrong}" for case, wrong in found if wrong] == []


def test_the_sample_would_notice_a_loss_and_a_traceback(tmp_path, monkeypatch):
    world = next(annotations.worlds(tmp_path, ["refcoco"], real=False))
    case = next(c for c in annotations.cases(world) if c.value == "text" and c.path[-1] == "segmentation")
    assert annotations.verdict(case) == ""
    monkeypatch.setattr(annotations.annotate.load, "store", lambda *args: None)  # no note is kept
    assert annotations.verdict(case) == "lost without a word: {'mask': 1}"

    def fails(*args: object) -> None:
        raise KeyError("bbox")

    monkeypatch.setattr(annotations.annotate, "collect", fails)
    assert annotations.verdict(case).startswith("KeyError: ")
    with pytest.raises(KeyError):
        annotations.loaded(world)
