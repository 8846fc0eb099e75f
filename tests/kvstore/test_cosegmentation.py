from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from kvstore.contracts import Grid
from kvstore.errors import UsageError
from kvstore.masks import from_array, to_array
from kvstore.probes import Request, _predictions, _vectors, cosegmentation
from kvstore.probes._truth import read_scenes
from kvstore.query import run_analysis
from tests.pairs import write_spans
from tests.stores import Made, write_tables

Make = Callable[..., Made]
Array = np.ndarray[Any, Any]
Object = tuple[int, str, Array, bool]
# The stores' images are 6 columns x 5 rows of patches of 10 pixels.
ROWS, COLUMNS, CELL = 5, 6, 10
PATCHES = ROWS * COLUMNS


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Array:
    pixels = np.zeros((ROWS * CELL, COLUMNS * CELL), bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def pixels_of(patches: Array) -> Array:
    return patches.reshape(ROWS, COLUMNS).repeat(CELL, 0).repeat(CELL, 1)


def scattered(images: Sequence[int]) -> list[Object]:
    """(image, category, pixels, crowd): a cat in each image, a dog in each odd one, an ant in the second."""
    rng = np.random.default_rng(1)
    found = [(2, "ant", rectangle(0, 0, 20, 20), False)]
    for image in images:
        for category in ("cat", "dog") if image % 2 else ("cat",):
            x, y = rng.integers(0, 40), rng.integers(0, 30)
            pixels = rectangle(x, y, x + rng.integers(8, 30), y + rng.integers(8, 30))
            found.append((image, category, pixels, False))
    return found


def annotate(made: Made, objects: Sequence[Object], void: dict[int, Array]) -> None:
    write_spans(made)
    with made.store.publish() as con:
        for number, (image, category, pixels, crowd) in enumerate(objects):
            con.execute(
                "insert into object values ('set', ?, ?, ?, 0, 0, 60, 50, 1, ?, ?)",
                [number, image, category, crowd, from_array(pixels)],
            )
        for image, pixels in void.items():
            con.execute("insert into void values ('set', ?, ?)", [image, from_array(pixels)])


def masks(made: Made) -> list[tuple[Any, ...]]:
    with made.store.connect() as con:
        return con.execute(
            "select site, layer, head, number, label, image_id, mask::varchar, predicted, truth, shared,"
            " valid from mask where probe = 'cosegmentation' order by all"
        ).fetchall()


def scores(made: Made) -> dict[tuple[Any, ...], tuple[float, float, float, int]]:
    with made.store.connect() as con:
        rows = con.execute("select metric, site, layer, head, value, low, high, n from score").fetchall()
    return {row[:4]: row[4:] for row in rows}


def grids(made: Made) -> dict[tuple[str, int, int | None], Array]:
    """(site, layer, head) -> unit vectors [images, patches, width], float64, heads together included."""
    vectors = made.vectors["run"]
    found: dict[tuple[str, int, int | None], Array] = {("input", 0, None): vectors["input"]}
    for index, layer in enumerate(made.layers):
        heads = vectors["value"][:, index]
        found |= {("value", layer, head): heads[:, head] for head in range(heads.shape[1])}
        found["value", layer, None] = np.concatenate([heads[:, h] for h in range(heads.shape[1])], -1)
    places = np.zeros((PATCHES, 25))
    for patch in range(PATCHES):
        y, x = (patch // COLUMNS + 0.5) / ROWS, (patch % COLUMNS + 0.5) / COLUMNS
        row, column = (
            [1, np.cos(np.pi * t), np.sin(np.pi * t), np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)]
            for t in (y, x)
        )
        places[patch] = [a * b for a in row for b in column]
    found["position", 0, None] = np.tile(places, (len(made.image_ids), 1, 1))
    unit = {place: array.astype(np.float64) for place, array in found.items()}
    return {place: array / np.linalg.norm(array, axis=-1, keepdims=True) for place, array in unit.items()}


def by_numpy(vectors: Array, number: int, fitted: int, clusters: int) -> Array:
    """The object's patches [images, patches] of a group: vectors [images, patches, width]."""
    draws = np.random.default_rng([0, number])
    each = [np.sort(draws.permutation(PATCHES)[: fitted // len(vectors)]) for _ in vectors]
    points = np.concatenate([one[some] for one, some in zip(vectors, each, strict=True)])
    centres: list[Array] = []
    for draw in np.random.default_rng(0).random(clusters):
        away = np.array([((points - centre) ** 2).sum(1) for centre in centres] or [np.ones(len(points))])
        chance = np.cumsum(away.min(0)) / away.min(0).sum()
        centres.append(points[np.searchsorted(chance, draw, "right")])
    middle = np.array(centres)
    for _ in range(50):
        at = (points @ middle.T).argmax(1)
        for cluster in set(at):
            total = points[at == cluster].sum(0)
            middle[cluster] = total / np.linalg.norm(total)
    ring = np.array(
        [p // COLUMNS in (0, ROWS - 1) or p % COLUMNS in (0, COLUMNS - 1) for p in range(PATCHES)]
    )
    found = (vectors @ middle.T).argmax(-1)
    votes = [
        sum(2 * 30 * ring[one == c].sum() < 18 * (one == c).sum() for one in found) for c in range(clusters)
    ]
    if not max(votes):
        return np.zeros(found.shape, bool)
    return np.isin(found, [c for c in range(clusters) if votes[c] >= 0.75 * max(votes)])


def test_every_prediction_equals_numpys(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters of 15 or 30 patches of each image; a row of patches is void, and a crowd does not count."""
    made = make_store(images=7, grid=(ROWS, COLUMNS), sites=("value", "input"))
    void = {1: rectangle(0, 0, 60, 10), 2: rectangle(0, 0, 5, 10)}
    objects = [*scattered(made.image_ids), (4, "cat", rectangle(30, 0, 60, 20), True)]
    annotate(made, objects, void)
    monkeypatch.setattr(cosegmentation, "FITTED", 107)
    outcome = cosegmentation.predict(made.store, Request("run", heads="both"))
    assert (outcome.items, outcome.made, outcome.kept) == (7 + 4, 3, 0)
    found = masks(made)
    assert outcome.rows == len(found) == 11 * (2 * 3 + 1 + 1)
    groups = {(1, "cat"): [1, 2, 3, 4, 5, 6, 7], (2, "dog"): [1, 3, 5, 7]}
    expected = {}
    for place, vectors in grids(made).items():
        for (number, label), images in groups.items():
            bits = by_numpy(vectors[[image - 1 for image in images]], number, 107, 10)
            expected |= {(*place, number, label, image): one for image, one in zip(images, bits, strict=True)}
    assert {row[:6] for row in found} == expected.keys()
    for *key, mask, predicted, truth, shared, valid in found:
        label, image = key[4:]
        pixels = pixels_of(expected[tuple(key)])
        np.testing.assert_array_equal(to_array(mask), pixels, str(key))
        counted = ~void.get(image, np.zeros_like(pixels)) & ~(objects[-1][2] if image == 4 else False)
        true = counted & sum(one[2] for one in objects[:-1] if one[:2] == (image, label))
        assert (predicted, truth) == ((pixels & counted).sum(), true.sum())
        assert (shared, valid) == ((pixels & true).sum(), counted.sum())
    assert 0 < sum(row[7] for row in found) < sum(row[10] for row in found)


def test_votes_by_hand() -> None:
    """Grids of 4 x 4, 12 of 16 patches on the border: a vote below 3/8 of the cluster's patches on it.

    Cluster 0 is at the border. Cluster 1 has the vote of every image, 2 those of the first two (0 of 1 and 1
    of 3 on the border; in the last 2 of 3), 3 that of the last.
    """
    images = ["0000 0110 0120 0000", "0000 0122 0020 0000", "0000 0312 0022 0000"]
    found = [np.array([[int(cluster) for cluster in image.replace(" ", "")]]) for image in images]
    grid = Grid(4, 4, (0, 0, 40, 40))
    assert elected(found, grid) == [1]
    assert elected(found[:2], grid) == [1, 2]
    assert elected(found[2:], grid) == [1, 3]
    assert elected([np.zeros((1, 16), np.int64)], grid) == []


def elected(found: list[Array], grid: Grid) -> list[int]:
    return [int(c) for c in cosegmentation.elect(found, [grid] * len(found))[0].nonzero()[0]]


def test_vectors_that_tell_the_object_find_it(make_store: Make) -> None:
    """Head 1 of layer 0 points one way on cats, inside the border, and two other ways elsewhere."""
    made = make_store(images=6, grid=(ROWS, COLUMNS))
    rng = np.random.default_rng(3)
    values, objects = made.vectors["run"]["value"], []
    values[:, 0, 1] *= 0.01
    inside = np.array([r * COLUMNS + c for r in range(1, ROWS - 1) for c in range(1, COLUMNS - 1)])
    for image in made.image_ids:
        patches = np.isin(np.arange(PATCHES), rng.permutation(inside)[:4])
        objects.append((image, "cat", pixels_of(patches), False))
        values[image - 1, 0, 1, patches, 0] = 5
        values[image - 1, 0, 1, ~patches, 1] = np.where(rng.random(PATCHES - 4) < 0.5, 5, -5)
    for table in ("patch_kv", "pooled_kv"):
        shutil.rmtree(made.store.lance / f"run.{table}.lance")
    write_tables(made.store.lance, "run", made.vectors["run"], made.layers, made.image_ids)
    annotate(made, objects, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cosegmentation, "CLUSTERS", 3)
        cosegmentation.predict(made.store, Request("run", sites=("value",)))
    found = scores(made)
    assert found["jaccard", "value", 0, 1] == (1, 1, 1, 6)
    assert found["precision", "value", 0, 1] == (1, 1, 1, 6)
    assert found["jaccard", "value", 0, 0][0] < 0.5
    assert found["jaccard", "chance", 0, None][0] == pytest.approx(4 / 30)
    assert found["precision", "chance", 0, None][0] == pytest.approx(26 / 30)


def test_figures_of_counts_by_hand(make_store: Make) -> None:
    """Group a has images 1 and 2, group b image 1: predicted, true, both and counted pixels."""
    made = make_store(images=2)
    with made.store.publish() as con:
        for site, head in (("value", 1), ("position", None)):
            for number, label, image, counts in (
                (0, "a", 1, (60, 40, 20, 100)),
                (0, "a", 2, (0, 10, 0, 50)),
                (1, "b", 1, (10, 10, 10, 100)),
            ):
                con.execute(
                    "insert into mask by name select 'run' as run_id, 'cosegmentation' as probe,"
                    " ? as image_id, ? as label, ? as number, ? as site, 0 as layer, ? as head, '{}' as mask,"
                    " ? as predicted, ? as truth, ? as shared, ? as valid",
                    [image, label, number, site, head, *counts],
                )
    rows = run_analysis(made.store, "bootstrap", {"probe": "cosegmentation"}).to_pylist()
    figures = {(row["metric"], row["site"]): (row["value"], row["n"]) for row in rows}
    # Means over images within a group, then over groups. Right pixels: 20 + 20 of 100, 40 of 50, all.
    jaccard, precision = ((20 / 80 + 0) / 2 + 1) / 2, ((40 / 100 + 40 / 50) / 2 + 1) / 2
    assert figures == {
        ("jaccard", "value"): (pytest.approx(jaccard), 2),
        ("jaccard", "position"): (pytest.approx(jaccard), 2),
        ("jaccard", "chance"): (pytest.approx(((40 / 100 + 10 / 50) / 2 + 10 / 100) / 2), 2),
        ("precision", "value"): (pytest.approx(precision), 2),
        ("precision", "position"): (pytest.approx(precision), 2),
        ("precision", "chance"): (pytest.approx(((60 / 100 + 40 / 50) / 2 + 90 / 100) / 2), 2),
    }


def test_groups_are_the_first_images_of_a_category(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images stand in the data set's order, here from the last to the first."""
    made = make_store(images=7, grid=(ROWS, COLUMNS))
    annotate(made, scattered(made.image_ids), {})
    with made.store.publish() as con:
        con.execute("update dataset_image set position = 10 - position")
    monkeypatch.setattr(cosegmentation, "MOST_IMAGES", 3)
    with made.store.connect() as con:
        groups = cosegmentation.gather(read_scenes(con, "run"), "run")
    assert [(g.number, g.category, g.images) for g in groups] == [
        (1, "cat", [7, 6, 5]),
        (2, "dog", [7, 5, 3]),
    ]


def test_again_makes_nothing_and_what_is_missing_is_made_anew(make_store: Make) -> None:
    made = make_store(images=5, grid=(ROWS, COLUMNS))
    annotate(made, scattered(made.image_ids), {})
    request = Request("run", sites=("value",))
    cosegmentation.predict(made.store, request)
    first, catalog = masks(made), made.store.catalog.stat()
    again = cosegmentation.predict(made.store, request)
    assert (again.made, again.kept, again.rows) == (0, 2, 0)
    assert made.store.catalog.stat().st_mtime_ns == catalog.st_mtime_ns
    with made.store.publish() as con:
        con.execute("delete from mask where layer = 1 and head = 0 and image_id = 3 and label = 'dog'")
    resumed = cosegmentation.predict(made.store, request)
    assert (resumed.made, resumed.kept) == (1, 1)
    assert masks(made) == first


def test_an_image_that_comes_later_changes_the_groups_and_so_all_is_made_anew(make_store: Make) -> None:
    made = make_store(images=6, grid=(ROWS, COLUMNS), layers=(0,))
    annotate(made, scattered(made.image_ids), {})
    cosegmentation.predict(made.store, Request("run"))
    whole = masks(made)
    with made.store.publish() as con:
        last = con.execute("from token_grid where image_id = 6").fetchall()
        con.execute("delete from token_grid where image_id = 6")
        con.execute("delete from mask")
    assert cosegmentation.predict(made.store, Request("run")).items == 5 + 3
    with made.store.publish() as con:
        con.executemany(f"insert into token_grid values ({', '.join('?' * len(last[0]))})", last)
    outcome = cosegmentation.predict(made.store, Request("run"))
    assert (outcome.kept, outcome.items) == (0, 6 + 3)
    assert masks(made) == whole


def test_blocks_and_publishes_of_any_size_give_the_same_rows(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=5, grid=(ROWS, COLUMNS))
    annotate(made, scattered(made.image_ids), {})
    cosegmentation.predict(made.store, Request("run"))
    whole = masks(made)
    monkeypatch.setattr(_vectors, "BLOCK_BYTES", 1)
    monkeypatch.setattr(_predictions, "PUBLISH_BYTES", 1)
    with made.store.publish() as con:
        con.execute("delete from mask")
    cosegmentation.predict(made.store, Request("run"))
    assert masks(made) == whole


def test_a_run_without_masks_or_groups_is_said_so(make_store: Make) -> None:
    made = make_store(images=3, grid=(ROWS, COLUMNS))
    with pytest.raises(UsageError, match="'set' of run 'run' has no masks of objects"):
        cosegmentation.predict(made.store, Request("run"))
    annotate(made, [(1, "cat", rectangle(0, 0, 20, 20), False), (2, "dog", rectangle(0, 0, 9, 9), False)], {})
    with pytest.raises(UsageError, match=r"no two images of run 'run' have masks of one category.*--limit"):
        cosegmentation.predict(made.store, Request("run"))
