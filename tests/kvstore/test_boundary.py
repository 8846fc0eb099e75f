from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kvstore.boundary import Contour, contour, reach

Array = np.ndarray[Any, Any]


def pixels(text: str) -> Array:
    return np.array([[letter == "#" for letter in line] for line in text.split()])


def shape(mask: Array) -> set[tuple[int, int]]:
    """(y, x) of pixels unlike the right, lower or lower right one, by the definition, pixel by pixel."""
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            near = [(y, min(x + 1, width - 1)), (min(y + 1, height - 1), x)]
            near.append((min(y + 1, height - 1), min(x + 1, width - 1)))
            if any(mask[y, x] != mask[place] for place in near):
                found.add((y, x))
    return found


def met(of: set[tuple[int, int]], by: set[tuple[int, int]], radius: int) -> int:
    return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in by) for y, x in of)


def blobs(rng: np.random.Generator, height: int, width: int) -> Array:
    """Some rectangles, some of them cut by the borders."""
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 5)):
        y, x = rng.integers(-4, height), rng.integers(-4, width)
        mask[max(y, 0) : y + rng.integers(1, 12), max(x, 0) : x + rng.integers(1, 12)] ^= True
    return mask


def test_the_contour_of_a_square_is_moved_up_and_left_by_half_a_pixel():
    mask = pixels(
        """
        ......
        ......
        ..##..
        ..##..
        ......
        """
    )
    assert (
        contour(mask)
        == pixels(
            """
            ......
            .###..
            .#.#..
            .###..
            ......
            """
        )
    ).all()


def test_the_borders_of_the_image_are_no_contour():
    mask = pixels("..### ..### .....")
    assert (contour(mask) == pixels(".#... .#### .....")).all()
    assert not contour(np.ones((3, 4), bool)).any()
    assert not contour(np.zeros((3, 4), bool)).any()


def test_reach_is_a_share_of_the_diagonal_rounded_up():
    assert reach(854, 480) == 8  # 0.008 x 979.7 = 7.8
    assert reach(30, 40) == 1  # 0.4
    assert reach(75, 100) == 1  # exactly 1
    assert reach(76, 100) == 2


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 9])
def test_hits_equal_distances_between_all_pairs(radius: int):
    rng = np.random.default_rng(radius)
    some = 0
    for _ in range(30):
        one, other = (blobs(rng, 24, 31) for _ in range(2))
        a, b = Contour(one), Contour(other)
        assert (len(a), len(b)) == (len(shape(one)), len(shape(other)))
        assert a.hits(b, radius) == met(shape(one), shape(other), radius)
        assert b.hits(a, radius) == met(shape(other), shape(one), radius)
        some += 0 < a.hits(b, radius) < len(a)
    assert some > 5


def test_a_whole_mask_in_one_corner_meets_one_in_the_other():
    """The contour of a single pixel at (y, x) is it, and the ones above, left and above left of it."""
    one, other = np.zeros((2, 20, 20), bool)
    one[3, 3] = True
    other[3, 13] = True
    assert len(Contour(one)) == len(Contour(other)) == 4
    assert Contour(one).hits(Contour(other), 8) == 0
    assert Contour(one).hits(Contour(other), 9) == 2  # columns 3 and 12, at the rows 2 and 3
    assert Contour(one).hits(Contour(other), 10) == 4


def test_nothing_meets_nothing():
    none, some = np.zeros((6, 6), bool), pixels("...... ..##.. ..##.. ......")
    empty, full = Contour(none), Contour(some)
    assert len(empty) == 0
    assert (empty.hits(full, 3), full.hits(empty, 3), empty.hits(empty, 3)) == (0, 0, 0)
