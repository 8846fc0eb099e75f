"""Moments of keys against numpy in float64, and by hand."""

import numpy as np
import pytest
import torch

from kvstore.contracts import Grid, Layout
from kvstore.prefill import moments
from kvstore.prefill.moments import KeyMoments, places, statistics

GOOD = torch.ones((), dtype=torch.bool)
BOX = (0.0, 0.0, 1.0, 1.0)


def one(*grids: Grid) -> Layout:
    return Layout(grids, sum(grid.patches for grid in grids))


def variance_shares(table) -> np.ndarray:
    columns = table.to_pydict()
    return np.array(columns["variance"]) / np.array(columns["mean_square"])


def test_a_share_of_a_millionth_is_exact_to_nine_digits():
    random = np.random.default_rng(0)
    base = random.normal(size=(1, 1, 6, 128)) * 4
    keys = [(base + random.normal(size=base.shape) * 4e-3).astype(np.float16) for _ in range(40)]
    made = KeyMoments()
    for key in keys:
        made.add(one(Grid(2, 3, BOX)), torch.from_numpy(key), GOOD)
    exact = np.stack(keys).astype(np.longdouble)
    square, mean = (exact**2).sum(-1).mean(0).ravel(), (exact.mean(0) ** 2).sum(-1).ravel()
    expected = ((square - mean) / square).astype(np.float64)
    assert 1e-7 < expected.min() < expected.max() < 5e-6
    np.testing.assert_allclose(variance_shares(statistics(made, (0,), 0)), expected, rtol=1e-9)


def test_patches_of_one_grid_at_other_positions_are_kept_apart():
    made = KeyMoments()
    key = torch.ones((1, 1, 2, 4), dtype=torch.float16)
    made.add(one(Grid(1, 2, BOX, first_token=0)), key, GOOD)
    made.add(one(Grid(1, 2, BOX, first_token=5)), key, GOOD)
    made.add(one(Grid(1, 2, BOX, first_token=5, row_stride=3)), key, GOOD)
    found = statistics(made, (7,), head=10).to_pydict()
    assert found["first_position"] == [10, 10, 15, 15, 15, 15]
    assert found["row_stride"] == [2, 2, 2, 2, 3, 3]
    assert found["n"] == [1] * 6
    assert found["layer"] == [7] * 6


def test_of_one_image_there_is_a_mean_and_no_variance():
    made = KeyMoments()
    made.add(one(Grid(1, 1, BOX)), torch.full((1, 1, 1, 4), 2.0, dtype=torch.float16), GOOD)
    found = statistics(made, (0,), 0).to_pydict()
    assert (found["mean_square"], found["square_mean"], found["variance"]) == ([16.0], [16.0], [None])


def test_an_image_with_a_bad_vector_counts_nowhere():
    made = KeyMoments()
    layout = one(Grid(1, 1, BOX), Grid(1, 2, BOX, first_token=1))
    made.add(layout, torch.full((1, 1, 3, 2), torch.nan, dtype=torch.float16), ~GOOD)
    made.add(layout, torch.ones((1, 1, 3, 2), dtype=torch.float16), GOOD)
    found = statistics(made, (0,), 0).to_pydict()
    assert found["n"] == [1, 1, 1]
    assert found["mean_square"] == [2.0] * 3


def test_grids_beyond_the_budget_are_left_out_with_all_their_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moments, "BUDGET", 100)
    made = KeyMoments()
    small, large = one(Grid(1, 1, BOX)), one(Grid(2, 2, BOX))
    for layout in (small, large, small, large):
        made.add(layout, torch.ones((1, 1, layout.patches, 4), dtype=torch.float16), GOOD)
    assert [(place.rows, float(sums.n)) for place, sums in made.sums.items()] == [(1, 2.0)]


def test_places_are_the_grids_with_their_stretch_of_patches():
    layout = one(Grid(2, 2, BOX), Grid(1, 3, BOX, first_token=4, row_stride=4))
    found = [(place.grid, place.patches, place.row_stride, part) for place, part in places(layout)]
    assert found == [(0, 4, 2, slice(0, 4)), (1, 3, 4, slice(4, 7))]
