import pytest

from kvstore.contracts import Grid
from kvstore.geometry import box_of, centre_of, patch_of

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
