"""Macros against numpy on the arrays that were stored."""

from __future__ import annotations

import numpy as np


def test_patches_of_a_plain_grid(make_store):
    made = make_store(grid=(3, 4), cell=10)
    with made.store.connect() as con:
        rows = con.execute(
            "select patch, grid, row, col, x0, y0, x1, y1, position from patches('run', 2)"
        ).fetchall()
    assert len(rows) == 12
    assert rows[0] == (0, 0, 0, 0, 0, 0, 10, 10, 0)
    assert rows[6] == (6, 0, 1, 2, 20, 10, 30, 20, 6)


def test_patches_of_tiles_with_newlines_pooling_and_a_box_past_the_image(make_store):
    made = make_store(images=1, grid=(3, 4), cell=10)  # an image of 40 x 30 pixels
    with made.store.publish() as con:
        con.execute("update run set pool = 2")
        # 4 x 6 tokens in 1 x 2 tiles, pooled to 2 x 3 cells of 15 x 16 pixels, a newline after each row of 6
        con.execute("insert into token_grid values ('run', 1, 1, 2, 3, 0, 0, 45, 32, 12, 20, 7, 1, 2)")
    with made.store.connect() as con:
        rows = con.execute(
            "select patch, row, col, tile_row, tile_col, x0, y0, x1, y1, position"
            " from patches('run', 1) where grid = 1"
        ).fetchall()
    assert [row[0] for row in rows] == [12, 13, 14, 15, 16, 17]
    assert rows[2] == (14, 0, 2, 0, 1, 30, 0, 40, 16, 24)
    assert rows[3] == (15, 1, 0, 0, 0, 0, 16, 15, 30, 34)


def test_a_patchs_tile_is_told_where_padding_was_cut_off(make_store):
    """1600 x 1100 pixels in 5 x 3 tiles of LLaVA-OneVision: 384 px, 27 patches of 14 px and 6 px lost."""
    made = make_store(images=1)
    # 1100 -> 3 * 384 = 1152 px, 1600 -> 1676 px in the middle of 5 * 384 = 1920 px: 122 px of padding at the
    # left. 135 - int(1600 * 81 / 1100) = 18 columns of patches are cut, 9 at each side: 9 to 125 are left.
    near, far = (9 * 14 - 122, 4 * 384 + 18 * 14 - 122)
    box = (near * 1600 / 1676, 0, far * 1600 / 1676, (2 * 384 + 378) * 1100 / 1152)
    with made.store.publish() as con:
        con.execute("update image set width = 1600, height = 1100")
        con.execute(
            "insert into token_grid values ('run', 1, 1, 81, 117, ?, ?, ?, ?, 12, 12, 118, 3, 5)", box
        )
    with made.store.connect() as con:
        rows = con.execute(
            "select row, col, tile_row, tile_col from patches('run', 1) where grid = 1"
        ).fetchall()
    assert len(rows) == 81 * 117
    assert [row for row in rows if row[2:] != (row[0] // 27, (row[1] + 9) // 27)] == []


def test_patches_of_a_grid_of_more_than_32767(make_store):
    made = make_store(images=1)
    with made.store.publish() as con:
        con.execute("update token_grid set rows = 200, columns = 200")
    with made.store.connect() as con:
        assert con.execute("select count(*), max(patch) from patches('run', 1)").fetchone() == (40000, 39999)


def test_patch_vector_and_image_value_are_what_was_stored(make_store):
    made = make_store(layers=(3, 7))
    stored = made.vectors["run"]
    with made.store.connect() as con:
        key, value = con.execute("from patch_vector('run', 2, 7, 1, 5)").fetchone()
        rows = con.execute("select patch, row, col, key, value from image_value('run', 3, 3, 0)").fetchall()
    assert np.array_equal(key, stored["key"][1, 1, 1, 5])
    assert np.array_equal(value, stored["value"][1, 1, 1, 5])
    assert [row[:3] for row in rows] == [(p, p // 4, p % 4) for p in range(12)]
    assert np.array_equal([row[3] for row in rows], stored["key"][2, 0, 0])
    assert np.array_equal([row[4] for row in rows], stored["value"][2, 0, 0])


def test_layer_pooled_is_the_mean_over_patches(make_store):
    made = make_store(layers=(3, 7))
    with made.store.connect() as con:
        rows = con.execute("select image_id, head, value, value_norm from layer_pooled('run', 7)").fetchall()
    means = made.vectors["run"]["value"][:, 1].astype(np.float64).mean(axis=2)
    assert [row[:2] for row in rows] == [(i, h) for i in (1, 2, 3) for h in (0, 1)]
    assert np.allclose([row[2] for row in rows], means.reshape(6, -1), atol=1e-3)
    assert np.allclose([row[3] for row in rows], np.linalg.norm(means, axis=-1).reshape(-1), rtol=1e-6)


def test_neighbours_are_numpys_cosine_order_over_other_images(make_store):
    made = make_store(images=4, runs=("run", "other"))
    for site in ("value", "key"):
        vectors = made.vectors["run"][site][:, 1, 0].astype(np.float64)  # image, patch, width
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        similarity = unit @ unit[1, 5]
        similarity[1] = -2  # the image itself
        order = np.argsort(-similarity.reshape(-1))[:6]
        with made.store.connect() as con:
            rows = con.execute(
                "from patch_neighbours($run, 2, 1, 0, 5, $site, 6)", {"run": "run", "site": site}
            ).fetchall()
        assert [row[:2] for row in rows] == [(i // 12 + 1, i % 12) for i in order]
        assert np.allclose([row[2] for row in rows], similarity.reshape(-1)[order], atol=1e-6)


def test_run_vectors_are_one_runs_rows(make_store):
    made = make_store(runs=("run", "other"))
    with made.store.connect() as con:
        for kind in ("patch_kv", "pooled_kv"):
            query = "select count(*), min(run_id), max(run_id) from "
            direct = con.execute(f"{query} run_vectors('other', '{kind}')").fetchone()
            assert direct == con.execute(f"{query} {kind} where run_id = 'other'").fetchone()
            assert direct[0] > 0
