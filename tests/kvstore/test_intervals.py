"""The macros of sql/intervals.sql: what they draw, against numpy, arithmetic by hand and known truths."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from tests import coverage, intervals

Array = np.ndarray[Any, Any]
COLUMNS = (
    "figure varchar, sign integer, class varchar, item bigint, units bigint[], part double, whole double"
)
FOUND = "select value, low, high, n, units from intervals('items')"


@pytest.fixture
def con() -> Any:
    with coverage.bare() as opened:
        opened.execute(f"create table items ({COLUMNS})")
        yield opened


def put(con: Any, part: Array, whole: Array, units: Array, *, sign: int = 1, name: str = "f") -> None:
    """Items of one figure; units [items] or [items, 2]."""
    of = np.sort(units.reshape(len(part), -1), 1).tolist()
    rows = [(name, sign, "", n, of[n], part[n], whole[n]) for n in range(len(part))]
    con.executemany("insert into items values (?, ?, ?, ?, ?, ?, ?)", rows)


def shares(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Parts, between 0 and their wholes."""
    whole = rng.uniform(1, 5, count)
    return whole * rng.uniform(0, 1, count), whole


# ------------------------------------------------------------------------------------------ quantiles, draws


@pytest.mark.parametrize(("freedom", "quantile"), [(4, 2.776), (9, 2.262), (29, 2.045), (99, 1.984)])
def test_students_quantiles_are_those_of_the_tables(con: Any, freedom: int, quantile: float) -> None:
    assert con.execute("select student(?)", [freedom]).fetchone()[0] == pytest.approx(quantile, abs=6e-4)


@pytest.mark.parametrize("z", [0.0, 0.5, 1.96, 2.5, 4.0])
def test_the_normal_tail_is_pythons(con: Any, z: float) -> None:
    found = con.execute("select normal_tail(?::double)", [z]).fetchone()[0]
    assert found == pytest.approx(NormalDist().cdf(-z), abs=1e-7)


def test_weights_are_poissons_and_units_are_drawn_apart(con: Any) -> None:
    """Of 1000 resamples of 50 units: mean 1, variance 1, no correlation; an item's is its units' product."""
    weights = con.execute(
        "select list(resample_weight(resample, [unit]) order by unit) from range(1000) r(resample),"
        " range(50) u(unit) group by resample order by resample"
    ).fetchall()
    drawn = np.array([row[0] for row in weights])
    assert drawn.mean() == pytest.approx(1, abs=4 / np.sqrt(drawn.size))
    assert drawn.var() == pytest.approx(1, abs=4 * np.sqrt(3 / drawn.size))  # Poisson's fourth moment is 4
    assert np.abs(np.corrcoef(drawn.T) - np.eye(50)).max() < 4.5 / np.sqrt(1000)
    assert np.abs(np.corrcoef(drawn) - np.eye(1000)).mean() < 1.1 * np.sqrt(2 / np.pi / 50)
    pair = con.execute("select list(resample_weight(r, [7, 9]) order by r) from range(1000) t(r)").fetchone()
    assert pair[0] == (drawn[:, 7] * drawn[:, 9]).tolist()


def test_an_item_with_units_on_both_halves_is_on_neither(con: Any) -> None:
    even, odd = ([u for u in range(20) if _hash(con, u) % 2 == side] for side in (0, 1))
    found = con.execute(
        "select half_of(?::bigint[]), half_of(?::bigint[]), half_of(?::bigint[]), half_of(?::bigint[])",
        [even[:1], even[:2], odd[:2], [even[0], odd[0]]],
    ).fetchone()
    assert found == ("chooses", "chooses", "scores", None)


def _hash(con: Any, unit: int) -> int:
    return int(con.execute("select hash(?::bigint)", [unit]).fetchone()[0])


# --------------------------------------------------------------------------------------- intervals by numpy


def test_items_that_share_a_unit_are_drawn_together(con: Any) -> None:
    """Clusters of 1 to 30 items, whose figures differ between clusters more than within."""
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(40), rng.integers(1, 31, 40))
    part, whole = shares(len(units), rng)
    part = whole * np.clip(part / whole / 4 + rng.uniform(0, 0.75, 40)[units], 0, 1)
    put(con, part, whole, units)
    found = con.execute(FOUND).fetchone()
    intervals.check(found, part, whole, units)
    over_items, _ = intervals.interval(part, whole, np.arange(len(units)))
    assert found[2] - found[1] > 2 * (over_items[1] - over_items[0])  # what it was before


def test_an_item_told_ten_times_over_says_nothing_more(con: Any) -> None:
    """The same items, and ten of each that share its unit: the same interval, to the last bit but one."""
    part, whole = shares(30, np.random.default_rng(2))
    put(con, part, whole, np.arange(30), name="once")
    put(con, part.repeat(10), whole.repeat(10), np.arange(30).repeat(10), name="ten times")
    once, ten = con.execute(f"{FOUND} order by figure").fetchall()
    assert once[:3] == pytest.approx(ten[:3], abs=1e-12)
    assert (once[3:], ten[3:]) == ((30, 30), (300, 30))


def test_pairs_are_drawn_by_both_images(con: Any) -> None:
    """Pairs of 40 images, some of them both ways around, one of an image with itself."""
    rng = np.random.default_rng(3)
    units = np.stack([rng.integers(0, 40, 150), rng.integers(0, 40, 150)], 1)
    units[0] = 5
    effect = rng.normal(0, 1, 40)
    whole = rng.integers(1, 9, 150).astype(float)
    part = rng.binomial(whole.astype(int), 1 / (1 + np.exp(-effect[units].sum(1)))).astype(float)
    of = [sorted(set(pair)) for pair in units.tolist()]
    rows = [("f", 1, "", n, of[n], part[n], whole[n]) for n in range(150)]
    con.executemany("insert into items values (?, ?, ?, ?, ?, ?, ?)", rows)
    (value, variance) = con.execute("select value, variance from unit_spread('items')").fetchone()
    assert value == pytest.approx(part.sum() / whole.sum())
    assert variance == pytest.approx(intervals.dyadic_variance(part, whole, units))


def test_the_interval_of_pairs_is_numpys(con: Any) -> None:
    rng = np.random.default_rng(4)
    units = np.stack([rng.choice(40, 2, replace=False) for _ in range(200)])
    part, whole = shares(200, rng)
    part = whole * np.clip(part / whole / 2 + rng.uniform(0, 0.25, 40)[units].sum(1), 0, 1)
    put(con, part, whole, units)
    intervals.check(con.execute(FOUND).fetchone(), part, whole, units)


def test_classes_weigh_alike_and_one_that_lacks_units_is_drawn_from_those_it_has(con: Any) -> None:
    """Class a has images 0 to 29, b 20 to 49: resamples are of 50 images, figures means of two ratios."""
    rng = np.random.default_rng(5)
    of = {"a": np.arange(30), "b": np.arange(20, 50)}
    made = {name: shares(30, rng) for name in of}
    for name, (part, whole) in made.items():
        items = zip(of[name].tolist(), part, whole, strict=True)
        rows = [("f", 1, name, n, [n], *both) for n, *both in items]
        con.executemany("insert into items values (?, ?, ?, ?, ?, ?, ?)", rows)
    value, low, high, n, units = con.execute(FOUND).fetchone()
    assert value == pytest.approx(np.mean([part.sum() / whole.sum() for part, whole in made.values()]))
    assert (n, units) == (50, 50)
    draws = rng.integers(0, 50, (10_000, 50))
    times = np.stack([np.bincount(draw, minlength=50) for draw in draws])
    resampled = np.mean(
        [times[:, of[name]] @ part / (times[:, of[name]] @ whole) for name, (part, whole) in made.items()], 0
    )
    tail = intervals.expanded_tail(50)
    expected = np.quantile(resampled, [tail, 1 - tail])
    assert [low, high] == pytest.approx(expected, abs=0.45 * resampled.std())


def test_a_difference_is_drawn_on_both_sides_alike(con: Any) -> None:
    """One side is the other plus a tenth of its wholes, item by item: the difference has no spread."""
    part, whole = shares(30, np.random.default_rng(6))
    put(con, part + whole / 10, whole, np.arange(30))
    put(con, part, whole, np.arange(30), sign=-1)
    assert con.execute(FOUND).fetchone() == pytest.approx((0.1, 0.1, 0.1, 30, 30))


def test_the_interval_of_a_difference_is_that_of_paired_items(con: Any) -> None:
    rng = np.random.default_rng(8)
    first, second = rng.uniform(0, 1, (2, 60))
    put(con, first, np.ones(60), np.arange(60))
    put(con, second, np.ones(60), np.arange(60), sign=-1)
    intervals.check(con.execute(FOUND).fetchone(), first - second, np.ones(60))


def test_one_unit_has_no_interval(con: Any) -> None:
    put(con, np.array([1.0, 3.0]), np.array([4.0, 4.0]), np.array([7, 7]))
    assert con.execute(FOUND).fetchone() == (0.5, None, None, 2, 1)


# -------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("name", ["expressions by image", "mean IoU of classes", "pairs that share some"])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    """400 data sets of 30 units; all kinds, 100 units and more data sets: tests/bench/coverage.py."""
    held, _ = coverage.coverage(coverage.SCHEMES[name], 30, 400)
    assert 0.93 <= held <= 0.97


def test_intervals_over_items_would_not() -> None:
    """What is wrong with items: the same data sets, each item its own unit."""
    held, _ = coverage.coverage(coverage.SCHEMES["expressions by image"], 30, 400, over_items=True)
    assert held < 0.85
