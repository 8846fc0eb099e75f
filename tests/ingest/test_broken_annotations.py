"""A sample of what `tests.fuzz.annotations` tries: broken annotation files, maps and lists."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import annotations, loading
from tests.fuzz.worlds import DRAWN


def test_what_is_broken_is_told(tmp_path):
    worlds = list(annotations.worlds(tmp_path, [], real=False))
    assert [world.label for world in worlds] == [*DRAWN]
    chosen = [c for world in worlds for c in random.Random(1).sample([*annotations.cases(world)], 4)]
    found = [(case, annotations.verdict(case)) for case in chosen]
    assert [f"{case}: {wrong}" for case, wrong in found if wrong] == []


def test_whole_worlds_load_without_a_fault(tmp_path):
    for world in annotations.worlds(tmp_path, [], real=True):
        found = loading.loaded(world)
        assert (found.counts["image"] > 0, found.lost) == (True, 0), world.label
        assert found.mended == 0 or world.name == "folder", world.label  # which passes over side-cars


def test_the_sample_would_notice_a_loss_and_a_traceback(tmp_path, monkeypatch):
    world = next(annotations.worlds(tmp_path, ["refcoco"], real=False))
    case = next(c for c in annotations.cases(world) if c.way == "text" and c.path[-1:] == ("segmentation",))
    assert annotations.verdict(case) == ""
    monkeypatch.setattr(loading.annotate.load, "store", lambda *args: None)  # no note is kept
    assert annotations.verdict(case) == "lost without a word: {'mask': 1}"

    def fails(*args: object) -> None:
        raise KeyError("bbox")

    monkeypatch.setattr(loading.annotate, "collect", fails)
    assert annotations.verdict(case).startswith("KeyError: ")
    with pytest.raises(KeyError):
        loading.loaded(world)
