from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from kvstore.errors import UsageError
from kvstore.masks import from_array
from kvstore.probes import Request, _predictions, _vectors, _work, foreground
from kvstore.query import run_analysis
from tests.intervals import Found, check
from tests.pairs import write_spans
from tests.stores import Made

Make = Callable[..., Made]
Array = np.ndarray[Any, Any]
# The stores' images are 4 columns x 3 rows of patches of 10 pixels.
HEIGHT, WIDTH, CELL = 30, 40, 10


def add_objects(made: Made, objects: Sequence[tuple[int, Array | None, bool]]) -> None:
    """Give images objects: (image, pixels of its mask, whether it is a crowd)."""
    write_spans(made)
    with made.store.publish() as con:
        for number, (image, pixels, crowd) in enumerate(objects):
            mask = None if pixels is None else from_array(pixels)
            con.execute(
                "insert into object values ('set', ?, ?, 'thing', 0, 0, 40, 30, 1, ?, ?)",
                [number, image, crowd, mask],
            )


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Array:
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def random_objects(images: Sequence[int], seed: int = 1) -> list[tuple[int, Array | None, bool]]:
    """One to three overlapping rectangles an image."""
    rng = np.random.default_rng(seed)
    found: list[tuple[int, Array | None, bool]] = []
    for image in images:
        for _ in range(rng.integers(1, 4)):
            x, y = rng.integers(0, 30), rng.integers(0, 20)
            found.append((image, rectangle(x, y, x + rng.integers(8, 20), y + rng.integers(8, 20)), False))
    return found


def truths(made: Made, objects: Sequence[tuple[int, Array | None, bool]]) -> Array:
    """Foreground [images, patches]: half of the pixels of a cell lie in some mask that is no crowd's."""
    found = []
    for image in made.image_ids:
        pixels = np.zeros((HEIGHT, WIDTH), bool)
        for _, mask, _ in (one for one in objects if one[0] == image and not one[2]):
            pixels |= mask if mask is not None else False
        found.append(pixels.reshape(3, CELL, 4, CELL).mean((1, 3)).reshape(12) >= 0.5)
    return np.array(found)


def by_numpy(vectors: Array, truth: Array) -> Array:
    """Nearest class mean, float64: vectors [images, patches, width], truth [images, patches]."""
    unit = vectors.astype(np.float64)
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    predicted = np.zeros_like(truth)
    for half in (0, 1):  # image ids are 1, 2, ... at places 0, 1, ...
        fits = [i for i in range(half, len(truth), 2) if 0 < truth[i].sum() < truth.shape[1]]
        inside = unit[fits][truth[fits]].mean(0)
        outside = unit[fits][~truth[fits]].mean(0)
        one = unit @ inside / np.linalg.norm(inside) > unit @ outside / np.linalg.norm(outside)
        predicted[1 - half :: 2] = one[1 - half :: 2]
    return predicted


def segments(made: Made) -> dict[tuple[str, int, int | None], tuple[Array, Array]]:
    """(site, layer, head) -> predicted and true bits [images, patches], in the order of image_id."""
    with made.store.connect() as con:
        rows = con.execute(
            "select site, layer, head, list(predicted::varchar order by image_id),"
            " list(truth::varchar order by image_id) from segment where run_id = 'run' group by all"
        ).fetchall()
    bits = lambda texts: np.array([[letter == "1" for letter in text] for text in texts])  # noqa: E731
    return {(site, layer, head): (bits(a), bits(b)) for site, layer, head, a, b in rows}


def scores(made: Made) -> dict[tuple[Any, ...], Found]:
    with made.store.connect() as con:
        rows = con.execute(
            "select metric, site, layer, head, value, low, high, n, units from score"
        ).fetchall()
    return {row[:4]: row[4:] for row in rows}


def grids(made: Made) -> dict[tuple[str, int, int | None], Array]:
    """(site, layer, head) -> vectors [images, patches, width] of image values, heads together included."""
    vectors = made.vectors["run"]
    found: dict[tuple[str, int, int | None], Array] = {("input", 0, None): vectors["input"]}
    for index, layer in enumerate(made.layers):
        found["encoder", layer, None] = vectors["encoder"][:, index]
        for site in ("value", "key"):
            heads = vectors[site][:, index]
            found |= {(site, layer, head): heads[:, head] for head in range(heads.shape[1])}
            found[site, layer, None] = np.concatenate([heads[:, h] for h in range(heads.shape[1])], -1)
    return found


def test_every_prediction_equals_numpys(make_store: Make) -> None:
    """Of 8 images one has no object and one is covered whole; crowds and objects without a mask count not."""
    made = make_store(images=8, sites=("value", "key", "input", "encoder"))
    objects = [
        *random_objects([1, 2, 4, 5, 6, 8]),
        (7, rectangle(0, 0, 40, 30), False),
        (3, rectangle(0, 0, 40, 30), True),
        (3, None, False),
    ]
    add_objects(made, objects)
    outcome = foreground.predict(made.store, Request("run", heads="both"))
    truth = truths(made, objects)
    assert (truth[2].sum(), truth[6].sum()) == (0, 12)
    found = segments(made)
    assert found.keys() == grids(made).keys() | {("position", 0, None)}
    for place, vectors in grids(made).items():
        predicted, told = found[place]
        np.testing.assert_array_equal(told, truth)
        np.testing.assert_array_equal(predicted, by_numpy(vectors, truth), str(place))
    assert (outcome.items, outcome.made, outcome.kept) == (8, 7, 0)
    assert outcome.rows == 8 * len(found)


def test_position_only_sees_nothing_but_places(make_store: Make) -> None:
    made = make_store(images=8, sites=("key",), layers=(0,), heads=1)
    objects = random_objects(range(1, 9), seed=3)
    add_objects(made, objects)
    foreground.predict(made.store, Request("run"))
    features = np.zeros((12, 25))
    for patch in range(12):
        y, x = (patch // 4 + 0.5) / 3, (patch % 4 + 0.5) / 4
        row, column = (
            [1, np.cos(np.pi * t), np.sin(np.pi * t), np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)]
            for t in (y, x)
        )
        features[patch] = [a * b for a in row for b in column]
    truth = truths(made, objects)
    predicted, _ = segments(made)["position", 0, None]
    np.testing.assert_array_equal(predicted, by_numpy(np.tile(features, (8, 1, 1)), truth))
    assert 0 < predicted.sum() < predicted.size


def test_vectors_that_tell_the_foreground_find_all_of_it(make_store: Make) -> None:
    """One head of one layer points to one side on the foreground and to the other elsewhere."""
    made = make_store(images=6, sites=("value",))
    objects = random_objects(range(1, 7), seed=5)
    truth = truths(made, objects)
    replaced = made.vectors["run"]["value"]
    replaced[:, 1, 0, :, 0] = np.where(truth, 20, -20)
    write_values(made, replaced)
    add_objects(made, objects)
    foreground.predict(made.store, Request("run"))
    found = scores(made)
    assert found["iou", "value", 1, 0][:3] == (1.0, 1.0, 1.0)
    assert found["iou_image", "value", 1, 0][:3] == (1.0, 1.0, 1.0)
    best = run_analysis(made.store, "best_layer", {"run": "run", "probe": "foreground"}).to_pylist()
    assert [(row["layer"], row["head"], row["value"]) for row in best if row["site"] == "value"] == [
        (1, 0, 1.0)
    ] * 2


def write_values(made: Made, values: Array) -> None:
    """Put these vectors in the place of the store's."""
    import shutil

    from tests.stores import write_tables

    for table in ("patch_kv", "pooled_kv"):
        shutil.rmtree(made.store.lance / f"run.{table}.lance")
    write_tables(made.store.lance, "run", {"value": values}, made.layers, made.image_ids)


def test_iou_and_its_interval_equal_numpys(make_store: Make) -> None:
    made = make_store(images=40, layers=(0,), sites=("value",))
    objects = random_objects(range(1, 41), seed=2)
    add_objects(made, objects)
    foreground.predict(made.store, Request("run"))
    found = scores(made)
    truth = truths(made, objects)
    for place, (predicted, _) in segments(made).items():
        both, either = (predicted & truth).sum(1), (predicted | truth).sum(1)
        check(found["iou", *place], both, either)
        some = either > 0
        check(found["iou_image", *place], (both[some] / either[some]), np.ones(some.sum()))
    check(found["iou", "chance", 0, None], truth.sum(1), np.full(40, 12))
    check(found["iou_image", "chance", 0, None], truth.mean(1), np.ones(40))


def test_figures_of_bits_by_hand(make_store: Make) -> None:
    """Overlaps 1 of 3, 0 of 0, 2 of 2; every patch for foreground: 2, 0 and 2 of 4."""
    made = make_store(images=3)
    with made.store.publish() as con:
        for site, head in (("value", 1), ("position", None)):
            con.executemany(
                "insert into segment values ('run', 'foreground', ?, ?, 0, ?, ?, ?)",
                [
                    (1, site, head, "1100", "1010"),
                    (2, site, head, "0000", "0000"),
                    (3, site, head, "0110", "0110"),
                ],
            )
    rows = run_analysis(made.store, "bootstrap", {"probe": "foreground"}).to_pylist()
    figures = {(row["metric"], row["site"], row["head"]): (row["value"], row["n"]) for row in rows}
    assert figures == {
        ("iou", "value", 1): (pytest.approx(3 / 5), 3),
        ("iou", "position", None): (pytest.approx(3 / 5), 3),
        ("iou", "chance", None): (pytest.approx(4 / 12), 3),
        ("iou_image", "value", 1): (pytest.approx((1 / 3 + 1) / 2), 2),
        ("iou_image", "position", None): (pytest.approx((1 / 3 + 1) / 2), 2),
        ("iou_image", "chance", None): (pytest.approx((0.5 + 0 + 0.5) / 3), 3),
    }
    assert run_analysis(made.store, "bootstrap", {"probe": "correspondence"}).num_rows == 0


def test_only_grid_0_is_segmented(make_store: Make) -> None:
    """The image's 12 patches made into a tile grid (first 8) and, after it, an overview of 2 x 2."""
    made = make_store(images=6, layers=(0,), heads=1, sites=("value",))
    objects = random_objects(range(1, 7), seed=4)
    add_objects(made, objects)
    with made.store.publish() as con:
        con.execute("update token_grid set grid = 1, rows = 2, columns = 4")
        con.execute(
            "insert into token_grid select run_id, image_id, 0, 2, 2, x0, y0, x1, y1, 8, 8, 2, 1, 1"
            " from token_grid"
        )
    foreground.predict(made.store, Request("run"))
    pixels = np.zeros((6, HEIGHT, WIDTH), bool)
    for image, mask, _ in objects:
        pixels[image - 1] |= mask
    truth = pixels.reshape(6, 2, 15, 2, 20).mean((2, 4)).reshape(6, 4) >= 0.5
    predicted, told = segments(made)["value", 0, 0]
    np.testing.assert_array_equal(told, truth)
    np.testing.assert_array_equal(predicted, by_numpy(made.vectors["run"]["value"][:, 0, 0, 8:], truth))


def test_blocks_and_publishes_of_any_size_give_the_same_rows(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=6)
    add_objects(made, random_objects(range(1, 7)))
    foreground.predict(made.store, Request("run"))
    whole = rows(made)
    monkeypatch.setattr(_vectors, "BLOCK_BYTES", 1)
    monkeypatch.setattr(_predictions, "PUBLISH_BYTES", 1)
    with made.store.publish() as con:
        con.execute("delete from segment")
    foreground.predict(made.store, Request("run"))
    assert rows(made) == whole


def rows(made: Made) -> list[tuple[Any, ...]]:
    with made.store.connect() as con:
        return con.execute("select * from segment order by all").fetchall()


def test_again_replaces_nothing_and_an_unfinished_part_is_made_anew(make_store: Make) -> None:
    made = make_store(images=6)
    add_objects(made, random_objects(range(1, 7)))
    request = Request("run", sites=("value",))
    foreground.predict(made.store, request)
    first, catalog = rows(made), made.store.catalog.stat()
    again = foreground.predict(made.store, request)
    assert (again.made, again.kept, again.rows) == (0, 2, 0)
    assert made.store.catalog.stat().st_mtime_ns == catalog.st_mtime_ns
    with made.store.publish() as con:
        con.execute("delete from segment where layer = 1 and head = 0 and image_id > 3")
        con.execute("update segment set predicted = '000000000000' where layer = 1")
    resumed = foreground.predict(made.store, request)
    assert (resumed.made, resumed.kept) == (1, 1)
    assert rows(made) == first
    with made.store.publish() as con:
        con.execute("delete from score")
    assert foreground.predict(made.store, request).rows == 0
    assert ("iou", "chance", 0, None) in scores(made)


def test_a_kill_between_layers_loses_no_finished_layer(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=6, layers=(0, 1, 2))
    add_objects(made, random_objects(range(1, 7)))
    monkeypatch.setattr(_predictions, "PUBLISH_BYTES", 1)
    with monkeypatch.context() as broken:
        calls, real = iter(range(10)), foreground._means

        def dies(*args: Any) -> Any:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return real(*args)

        broken.setattr(foreground, "_means", dies)
        with pytest.raises(KeyboardInterrupt):
            foreground.predict(made.store, Request("run", sites=("value",)))
    assert {layer for _, layer, _ in segments(made)} == {0, 1}
    outcome = foreground.predict(made.store, Request("run", sites=("value",)))
    assert (outcome.made, outcome.kept) == (1, 2)


def take_away(made: Made, last: int) -> list[tuple[Any, ...]]:
    """Take images after `last` out of the run; what brings them back."""
    with made.store.publish() as con:
        later = con.execute("from token_grid where image_id > ?", [last]).fetchall()
        con.execute("delete from token_grid where image_id > ?", [last])
    return later


def put_back(made: Made, later: Sequence[tuple[Any, ...]]) -> None:
    with made.store.publish() as con:
        con.executemany(f"insert into token_grid values ({', '.join('?' * len(later[0]))})", later)


def test_a_kill_before_the_figures_leaves_none_of_fewer_images(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=8, layers=(0,), heads=1, sites=("value",))
    add_objects(made, [(image, rectangle(0, 0, 20, 20), False) for image in made.image_ids])
    later = take_away(made, 6)
    foreground.predict(made.store, Request("run"))
    assert {n for *_, n in scores(made).values()} == {6}
    put_back(made, later)
    with monkeypatch.context() as broken:

        def dies(*_: Any) -> None:
            raise KeyboardInterrupt

        broken.setattr(_work, "score", dies)
        with pytest.raises(KeyboardInterrupt):
            foreground.predict(made.store, Request("run"))
    assert foreground.predict(made.store, Request("run")).made == 0
    assert {n for *_, n in scores(made).values()} == {8}


def test_images_that_come_later_change_the_means_and_so_all_is_made_anew(make_store: Make) -> None:
    made = make_store(images=8, layers=(0,), heads=1, sites=("value",))
    objects = random_objects(range(1, 9), seed=6)
    add_objects(made, objects)
    later = take_away(made, 6)
    assert foreground.predict(made.store, Request("run")).items == 6
    put_back(made, later)
    outcome = foreground.predict(made.store, Request("run"))
    assert (outcome.made, outcome.kept, outcome.items) == (1, 0, 8)
    truth = truths(made, objects)
    predicted, _ = segments(made)["value", 0, 0]
    np.testing.assert_array_equal(predicted, by_numpy(made.vectors["run"]["value"][:, 0, 0], truth))


def test_a_data_set_without_masks_is_said_so(make_store: Make) -> None:
    made = make_store()
    add_objects(made, [(1, None, False), (2, rectangle(0, 0, 20, 20), True)])
    with pytest.raises(UsageError, match="'set' of run 'run' has no masks of objects"):
        foreground.predict(made.store, Request("run"))
    with made.store.publish() as con:
        con.execute("delete from object")
    add_objects(made, [(99, rectangle(0, 0, 20, 20), False)])
    with pytest.raises(UsageError, match=r"no image of run 'run' has one of the 1 masks .* --limit"):
        foreground.predict(made.store, Request("run"))


def test_a_half_with_nothing_to_learn_from_is_said_so(make_store: Make) -> None:
    made = make_store(images=4)
    whole = rectangle(0, 0, 40, 30)
    add_objects(made, [*random_objects([1, 3]), (2, whole, False), (4, whole, False)])
    with pytest.raises(UsageError, match="no image at an odd place of run 'run' has both"):
        foreground.predict(made.store, Request("run"))
    assert rows(made) == []


def test_blocks_hold_no_more_than_their_limit(make_store: Make) -> None:
    made = make_store(images=7)
    add_objects(made, random_objects(range(1, 8)))
    with made.store.connect() as con:
        scenes = foreground.read_scenes(con, "run")
    grids = {scene.image_id: scene.placed for scene in scenes}
    blocks = list(_vectors.blocks(list(grids), grids, 100, 2 * 12 * 100 + 50))  # 12 patches an image
    assert blocks == [[1, 2], [3, 4], [5, 6], [7]]
