"""Grids and pixel boxes of AnyRes tiles, worked out by hand."""

from __future__ import annotations

import pytest

from kvstore.anyres import Tiling, layout

NEXT = Tiling(336, 14, [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]])
ONEVISION = Tiling(
    384, 14, [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)], max_tiles=9
)


def test_640_by_480_in_two_by_two_tiles() -> None:
    made = layout(NEXT, (640, 480), "all")
    # 672 x 504 pixels in 672 x 672: 84 px of padding above and below, 6 rows of 14 px; 36 rows are left
    assert (made.grids[1].rows, made.grids[1].columns) == (36, 48)
    assert made.grids[1].box == pytest.approx((0, 0, 640, 480))
    assert (made.grids[1].tile_rows, made.grids[1].tile_columns) == (2, 2)
    assert made.tokens == 576 + 36 * 49
    assert made.grids[1].tokens()[48] == 576 + 49  # a newline token ends the first row


def test_a_box_reaches_past_the_image_where_a_patch_is_half_padding() -> None:
    made = layout(NEXT, (1000, 300), "all").grids[1]
    # one row of three tiles; 1000 x 300 -> 1008 x ceil(302.4) = 303; 16 px of padding above, 1 row of 14 cut
    # (24 - 21.6 -> 21, (24 - 21) // 2 = 1): rows 1 to 22 cover 14 - 16 = -2 to 322 - 16 = 306 of 303 px
    assert (made.rows, made.columns) == (22, 72)
    assert made.box == pytest.approx((0, -2 * 300 / 303, 1000, 306 * 300 / 303))


def test_onevision_boxes_end_with_the_last_whole_patch() -> None:
    made = layout(ONEVISION, (768, 768), "all")
    # 27 * 14 = 378 of 384 px; two tiles: from 0 to 384 + 378 px
    assert made.grids[0].box == pytest.approx((0, 0, 2 * 378, 2 * 378))
    assert made.grids[1].box == pytest.approx((0, 0, 762, 762))
    assert made.tokens == 729 + 54 * 55


def test_onevision_reduces_beyond_nine_tiles() -> None:
    made = layout(ONEVISION, (2304, 2304), "all")
    # 36 tiles: 162 x 162 patches; sqrt(36 / 9) = 2, so 81 x 81, over the same pixels
    assert (made.grids[1].rows, made.grids[1].columns) == (81, 81)
    assert made.grids[1].box == pytest.approx((0, 0, 2298, 2298))
    assert made.tokens == 729 + 81 * 82


def test_base_view_has_neither_tiles_nor_newlines() -> None:
    made = layout(NEXT, (2000, 300), "base")
    assert (len(made.grids), made.tokens, made.patches) == (1, 576, 576)


def test_every_box_misses_the_images_edge_by_less_than_a_cell() -> None:
    for tiling in (NEXT, ONEVISION):
        for width, height in [(640, 427), (37, 911), (911, 37), (1333, 800), (101, 97), (500, 333), (3, 2)]:
            grid = layout(tiling, (width, height), "all").grids[1]
            x0, y0, x1, y1 = grid.box
            wide, high = (x1 - x0) / grid.columns, (y1 - y0) / grid.rows
            assert max(abs(x0), abs(x1 - width)) < wide
            assert max(abs(y0), abs(y1 - height)) < high


def test_of_a_mosaic_without_rows_the_overview_is_left() -> None:
    # no resolution holds a whole pixel of its height, so the first of the smallest: 24 rows of 48 patches, of
    # which int(1 * 48 / 4000) = 0 rows are image, and 24 // 2 are cut at top and bottom each
    made = layout(NEXT, (4000, 1), "all")
    assert (len(made.grids), made.tokens, made.patches) == (1, 576, 576)


def test_of_a_mosaic_without_columns_the_overview_and_the_newlines_are_left() -> None:
    # again 24 rows of 48 patches; int(1 * 24 / 4000) = 0 columns are image; each row ends with its newline
    made = layout(NEXT, (1, 4000), "all")
    assert (len(made.grids), made.tokens, made.patches) == (1, 576 + 24, 576)


def test_an_odd_row_of_patches_stays_though_it_is_padding() -> None:
    # one tile of 27 rows: (27 - 0) // 2 = 13 are cut at top and bottom each, one is left
    made = layout(ONEVISION, (4000, 1), "all")
    assert (made.grids[1].rows, made.grids[1].columns) == (1, 27)
