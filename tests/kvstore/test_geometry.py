import numpy as np
import pytest

from kvstore.contracts import Grid
from kvstore.geometry import box_of, centre_of, coverage, patch_of

GRID = Grid(rows=2, columns=4, box=(10, 20, 50, 60))  # cells 10 wide and 20 high


@pytest.mark.parametrize(
    ("point", "patch"),
    [
        ((10, 20), 0),
        ((19.999, 39.999), 0),
        ((20, 20), 1),  # on the border: the cell to the right
        ((10, 40), 4),  # on the border: the cell below
        ((49.9, 59.9), 7),
        ((50, 60), 7),  # on the far edge: the last cell
        ((-100, 45), 4),
        ((1000, 1000), 7),
    ],
)
def test_a_point_lies_in_the_cell_that_contains_it_or_is_nearest(
    point: tuple[float, float], patch: int
) -> None:
    assert patch_of(point, GRID) == patch


def test_centres_and_boxes_by_hand() -> None:
    assert centre_of(0, GRID) == (15, 30)
    assert centre_of(6, GRID) == (35, 50)
    assert box_of(6, GRID) == (30, 40, 40, 60)


def test_every_centre_lies_in_its_own_patch_of_a_27_x_27_grid() -> None:
    grid = Grid(27, 27, (0, 0, 333.3, 17.7))
    assert [patch_of(centre_of(patch, grid), grid) for patch in range(729)] == list(range(729))


def test_coverage_counts_a_pixel_as_far_as_it_lies_in_the_patch() -> None:
    """3 x 1 pixels cut in two at x = 1.5: the middle pixel is half in each, a third of either."""
    assert coverage(np.array([[0, 1, 0]]), Grid(1, 2, (0, 0, 3, 1))) == pytest.approx([1 / 3, 1 / 3])
    assert coverage(np.array([[1, 1, 0]]), Grid(1, 2, (0, 0, 3, 1))) == pytest.approx([1, 1 / 3])


def test_coverage_of_a_patch_at_the_edge_is_of_its_part_inside() -> None:
    """Boxes of 2 pixels over an image 3 wide: the second is its last column, the third is outside."""
    assert coverage(np.array([[0, 0, 1], [0, 0, 0]]), Grid(1, 3, (0, 0, 6, 2))).tolist() == [0, 0.5, 0]
    assert coverage(np.ones((2, 3)), Grid(1, 3, (0, 0, 6, 2))).tolist() == [1, 1, 0]


def test_coverage_equals_a_count_of_finer_pixels() -> None:
    """Cells of 2.25 x 1.75 pixels from (0.5, 0.25) on: in quarters of a pixel 9 x 7 from (2, 1)."""
    pixels = np.random.default_rng(0).random((8, 12)) < 0.4
    found = coverage(pixels, Grid(4, 5, (0.5, 0.25, 11.75, 7.25)))
    fine = pixels.repeat(4, 0).repeat(4, 1)[1 : 1 + 4 * 7, 2 : 2 + 5 * 9]
    assert found == pytest.approx(fine.reshape(4, 7, 5, 9).mean((1, 3)).reshape(-1))
