from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from kvstore.errors import UsageError
from kvstore.masks import from_array, to_array
from kvstore.probes import Request, _predictions
from kvstore.probes import fewshot_segmentation as fewshot
from kvstore.probes._truth import read_scenes
from kvstore.query import run_analysis
from tests.pairs import write_spans
from tests.stores import Made, write_tables

Make = Callable[..., Made]
Array = np.ndarray[Any, Any]
# The stores' images are 4 columns x 3 rows of patches of 10 pixels.
HEIGHT, WIDTH, CELL = 30, 40, 10


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewshot, "EPISODES", 24)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Array:
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def scattered(images: Sequence[int], seed: int = 1) -> list[tuple[int, str, Array, bool]]:
    """(image, category, pixels, crowd): a cat in each image, a dog in each but the third."""
    rng = np.random.default_rng(seed)
    found = []
    for image in images:
        for category in ("cat", "dog"):
            x, y = rng.integers(0, 24), rng.integers(0, 14)
            pixels = rectangle(x, y, x + rng.integers(8, 24), y + rng.integers(8, 24))
            if (image, category) != (3, "dog"):
                found.append((image, category, pixels, False))
    return found


def annotate(made: Made, objects: Sequence[tuple[int, str, Array, bool]], void: dict[int, Array]) -> None:
    write_spans(made)
    with made.store.publish() as con:
        for number, (image, category, pixels, crowd) in enumerate(objects):
            con.execute(
                "insert into object values ('set', ?, ?, ?, 0, 0, 40, 30, 1, ?, ?)",
                [number, image, category, crowd, from_array(pixels)],
            )
        for image, pixels in void.items():
            con.execute("insert into void values ('set', ?, ?)", [image, from_array(pixels)])


def cells(pixels: Array) -> Array:
    """Pixels of each patch [12]."""
    return pixels.reshape(3, CELL, 4, CELL).sum((1, 3)).reshape(12)


def truth_of(
    objects: Sequence[tuple[int, str, Array, bool]], void: dict[int, Array], image: int, category: str
) -> tuple[Array, Array]:
    """True pixels and pixels that count, bool [height, width]; void and crowds do not count."""
    counted = ~void.get(image, np.zeros((HEIGHT, WIDTH), bool))
    true = np.zeros_like(counted)
    for _, name, pixels, crowd in (one for one in objects if one[0] == image):
        if crowd:
            counted &= ~pixels
        elif name == category:
            true |= pixels
    return true & counted, counted


def logits_by_numpy(support: Array, labels: Array, counts: Array, query: Array) -> Array:
    """Logistic regression of unit vectors [patches, width] in float64: Newton until the slope is nothing."""
    support, query = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (support, query))
    support, labels = support[counts], labels[counts]
    share = np.where(labels, 1 / max(1, labels.sum()), 1 / max(1, (~labels).sum()))
    share /= share.sum()
    mean = share @ support
    scale = np.sqrt(share @ ((support - mean) ** 2).sum(1))
    x, asked = (np.c_[(one - mean) / scale, np.ones(len(one))] for one in (support, query))
    sign, w = np.where(labels, 1.0, -1.0), np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(sign * (x @ w)))
        slope = 1e-3 * w - x.T @ (share * sign * p)
        curves = x.T @ (x * (share * p * (1 - p))[:, None]) + 1e-3 * np.eye(len(w))
        w -= 0.5 * np.linalg.solve(curves, slope)
    assert np.abs(slope).max() < 1e-12
    return asked @ w


def grids(made: Made) -> dict[tuple[str, int, int | None], Array]:
    """(site, layer, head) -> vectors [images, patches, width], float64, heads together included."""
    vectors = made.vectors["run"]
    found: dict[tuple[str, int, int | None], Array] = {("input", 0, None): vectors["input"]}
    for index, layer in enumerate(made.layers):
        heads = vectors["value"][:, index]
        found |= {("value", layer, head): heads[:, head] for head in range(heads.shape[1])}
        found["value", layer, None] = np.concatenate([heads[:, h] for h in range(heads.shape[1])], -1)
    places = np.zeros((12, 25))
    for patch in range(12):
        y, x = (patch // 4 + 0.5) / 3, (patch % 4 + 0.5) / 4
        row, column = (
            [1, np.cos(np.pi * t), np.sin(np.pi * t), np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)]
            for t in (y, x)
        )
        places[patch] = [a * b for a in row for b in column]
    found["position", 0, None] = np.tile(places, (len(made.image_ids), 1, 1))
    return {place: array.astype(np.float64) for place, array in found.items()}


def episodes_of(made: Made) -> list[fewshot.Episode]:
    with made.store.connect() as con:
        return fewshot.draw(read_scenes(con, "run"), "run")


def masks(made: Made) -> list[tuple[Any, ...]]:
    with made.store.connect() as con:
        return con.execute(
            "select site, layer, head, number, label, image_id, mask::varchar, predicted, truth, shared,"
            " valid from mask where probe = 'fewshot-segmentation' order by all"
        ).fetchall()


def scores(made: Made) -> dict[tuple[Any, ...], tuple[float, float, float, int]]:
    with made.store.connect() as con:
        rows = con.execute("select metric, site, layer, head, value, low, high, n from score").fetchall()
    return {row[:4]: row[4:] for row in rows}


def test_every_prediction_is_that_of_numpys_optimum(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Void pixels take a row of patches of image 1 and half a patch of image 2; a crowd does not count."""
    made = make_store(images=9, sites=("value", "input"))
    void = {1: rectangle(0, 0, 40, 10), 2: rectangle(0, 0, 5, 10)}
    objects = [*scattered(made.image_ids), (4, "cat", rectangle(20, 0, 40, 20), True)]
    annotate(made, objects, void)
    monkeypatch.setattr(fewshot, "FITTED", 2000)  # a few episodes at a time
    outcome = fewshot.predict(made.store, Request("run", heads="both"))
    assert (outcome.items, outcome.made, outcome.kept) == (24, 3, 0)
    episodes = {episode.number: episode for episode in episodes_of(made)}
    found = masks(made)
    assert outcome.rows == len(found) == 24 * (2 * 3 + 1 + 1)
    for site, layer, head, number, label, image, mask, predicted, truth, shared, valid in found:
        episode = episodes[number]
        assert (label, image) == (episode.category, episode.query)
        vectors = grids(made)[site, layer, head]
        shots = [truth_of(objects, void, one, label) for one in episode.support]
        true, counts = (np.concatenate([cells(shot[which]) for shot in shots]) for which in (0, 1))
        taught = vectors[[one - 1 for one in episode.support]].reshape(-1, vectors.shape[-1])
        logits = logits_by_numpy(taught, true >= counts / 2, counts > 0, vectors[image - 1])
        assert np.abs(logits).min() > 1e-4, "a draw that is too close to call"
        pixels = (logits > 0).reshape(3, 4).repeat(CELL, 0).repeat(CELL, 1)
        np.testing.assert_array_equal(to_array(mask), pixels)
        is_true, counted = truth_of(objects, void, image, label)
        assert (predicted, truth) == ((pixels & counted).sum(), is_true.sum())
        assert (shared, valid) == ((pixels & is_true).sum(), counted.sum())


@pytest.mark.parametrize("width", [4, 40])
def test_the_fit_is_where_the_loss_is_flat(width: int) -> None:
    """Fewer and more channels than patches; classes that a plane parts; one class alone; patches left out."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, 30, width)).astype(np.float32)
    signs = np.where(rng.random((3, 30)) < 0.2, 1.0, -1.0)
    x[1, ..., 0] = signs[1] * 5
    signs[2] = -1
    share = np.where(signs > 0, 0.5 / np.maximum(1, (signs > 0).sum(1, keepdims=True)), 0)
    share += np.where(signs < 0, (1 - share.sum(1, keepdims=True)) / (signs < 0).sum(1, keepdims=True), 0)
    share[:, -3:] = 0
    share /= share.sum(1, keepdims=True)
    tensors = (torch.from_numpy(one).float() for one in (x, signs, share))
    slopes, offsets = (one.double().numpy() for one in fewshot.fit(*tensors))
    assert offsets.shape == (3, 2)
    for e, k in np.ndindex(3, 2):
        mean = share[e] @ x[e, k]
        scale = np.sqrt(share[e] @ ((x[e, k] - mean) ** 2).sum(1))
        w, b = slopes[e, k] * scale, offsets[e, k] + slopes[e, k] @ mean
        z = np.c_[(x[e, k] - mean) / scale, np.ones(30)]
        wrong = 1 / (1 + np.exp(signs[e] * (x[e, k] @ slopes[e, k] + offsets[e, k])))
        slope = 1e-3 * np.r_[w, b] - z.T @ (share[e] * signs[e] * wrong)
        assert np.abs(slope).max() < 2e-6, (e, k)
    assert (offsets[2] < -1).all()


def test_episodes_take_the_categories_in_turn_and_never_the_query_for_support(make_store: Make) -> None:
    """A third category has five images only."""
    made = make_store(images=9)
    rare = [(image, "ant", rectangle(0, 0, 20, 20), False) for image in (1, 2, 3, 4, 5)]
    annotate(made, [*scattered(made.image_ids), *rare], {})
    episodes = episodes_of(made)
    assert [e.number for e in episodes] == [*range(0, 24, 2), *range(1, 24, 2)]
    assert {e.category for e in episodes if e.number % 2 == 0} == {"cat"}
    assert {e.category for e in episodes if e.number % 2 == 1} == {"dog"}
    for e in episodes:
        assert len({*e.support, e.query}) == 6
        assert e.category == "cat" or 3 not in (*e.support, e.query)
    assert len({(e.query, e.support) for e in episodes}) == 24
    assert len({e.query for e in episodes if e.category == "cat"}) > 4


def test_episodes_depend_on_the_seed_that_is_stated_and_on_nothing_else(make_store: Make) -> None:
    made = make_store(images=8)
    annotate(made, [(image, "cat", rectangle(0, 0, 20, 20), False) for image in made.image_ids], {})
    random = Random("0 cat 8")
    expected = [random.sample(range(1, 9), 6) for _ in range(24)]
    assert [[e.query, *e.support] for e in episodes_of(made)] == expected


def test_vectors_that_tell_the_class_find_all_of_it(make_store: Make) -> None:
    """Head 1 of layer 0 has one channel each for cats, dogs and the rest; objects are whole patches."""
    made = make_store(images=10)
    rng = np.random.default_rng(2)
    objects = []
    values = made.vectors["run"]["value"]
    values[:, 0, 1] *= 0.1
    for image in made.image_ids:
        places = rng.permutation(12)
        values[image - 1, 0, 1, places[6:], 2] = 3
        for category, some, channel in (("cat", places[:3], 0), ("dog", places[3:6], 1)):
            pixels = np.isin(np.arange(12), some).reshape(3, 4).repeat(CELL, 0).repeat(CELL, 1)
            objects.append((image, category, pixels, False))
            values[image - 1, 0, 1, some, channel] = 3
    for table in ("patch_kv", "pooled_kv"):
        shutil.rmtree(made.store.lance / f"run.{table}.lance")
    write_tables(made.store.lance, "run", made.vectors["run"], made.layers, made.image_ids)
    annotate(made, objects, {})
    fewshot.predict(made.store, Request("run", sites=("value",)))
    found = scores(made)
    assert found["miou", "value", 0, 1][:3] == (1, 1, 1)
    assert found["fb_iou", "value", 0, 1][:3] == (1, 1, 1)
    assert found["miou", "value", 0, 0][0] < 0.7
    assert found["miou", "position", 0, None][0] < 0.7
    assert found["miou", "value", 0, 1][3] == 24
    assert found["miou", "chance", 0, None][0] == pytest.approx(3 / 12)
    assert found["fb_iou", "chance", 0, None][0] == pytest.approx((0 + 9 / 12) / 2)


def test_figures_of_counts_by_hand(make_store: Make) -> None:
    """Two episodes of cats, one of dogs: predicted, true, both and counted pixels."""
    made = make_store(images=3)
    with made.store.publish() as con:
        for site, head in (("value", 1), ("position", None)):
            for number, label, image, counts in (
                (0, "cat", 1, (60, 40, 20, 100)),
                (2, "cat", 2, (0, 20, 0, 50)),
                (1, "dog", 3, (10, 10, 5, 100)),
            ):
                con.execute(
                    "insert into mask by name select 'run' as run_id, 'fewshot-segmentation' as probe,"
                    " ? as image_id, ? as label, ? as number, ? as site, 0 as layer, ? as head, '{}' as mask,"
                    " ? as predicted, ? as truth, ? as shared, ? as valid",
                    [image, label, number, site, head, *counts],
                )
    rows = run_analysis(made.store, "bootstrap", {"probe": "fewshot-segmentation"}).to_pylist()
    figures = {(row["metric"], row["site"]): (row["value"], row["n"]) for row in rows}
    # cats: both 20 + 0, either 80 + 20; dogs: both 5, either 15.
    # backgrounds: both 20 + 30 + 85, either 80 + 50 + 95.
    miou, fb_iou = (20 / 100 + 5 / 15) / 2, (25 / 115 + 135 / 225) / 2
    assert figures == {
        ("miou", "value"): (pytest.approx(miou), 3),
        ("miou", "position"): (pytest.approx(miou), 3),
        ("miou", "chance"): (pytest.approx((60 / 150 + 10 / 100) / 2), 3),
        ("fb_iou", "value"): (pytest.approx(fb_iou), 3),
        ("fb_iou", "position"): (pytest.approx(fb_iou), 3),
        ("fb_iou", "chance"): (pytest.approx((0 + 180 / 250) / 2), 3),
    }


def test_again_makes_nothing_and_what_is_missing_is_made_anew(make_store: Make) -> None:
    made = make_store(images=8)
    annotate(made, scattered(made.image_ids), {})
    request = Request("run", sites=("value",))
    fewshot.predict(made.store, request)
    first, catalog = masks(made), made.store.catalog.stat()
    again = fewshot.predict(made.store, request)
    assert (again.made, again.kept, again.rows) == (0, 2, 0)
    assert made.store.catalog.stat().st_mtime_ns == catalog.st_mtime_ns
    with made.store.publish() as con:
        con.execute("delete from mask where layer = 1 and head = 0 and number > 5")
    resumed = fewshot.predict(made.store, request)
    assert (resumed.made, resumed.kept) == (1, 1)
    assert masks(made) == first


def test_images_that_come_later_make_other_episodes_and_none_of_the_old_stays(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=9)
    annotate(made, scattered(made.image_ids), {})
    fewshot.predict(made.store, Request("run", sites=("value",)))
    whole, figures = masks(made), scores(made)
    with made.store.publish() as con:
        later = con.execute("from token_grid where image_id > 7").fetchall()
        con.execute("delete from token_grid where image_id > 7")
        con.execute("delete from mask")
    fewshot.predict(made.store, Request("run"))
    assert masks(made) != whole
    with made.store.publish() as con:
        con.executemany(f"insert into token_grid values ({', '.join('?' * len(later[0]))})", later)
    with monkeypatch.context() as broken:
        broken.setattr(fewshot, "carry_out", lambda *_: None)
        fewshot.predict(made.store, Request("run", sites=("value",)))
    assert (masks(made), scores(made)) == ([], {})
    outcome = fewshot.predict(made.store, Request("run", sites=("value",)))
    assert (outcome.made, outcome.kept) == (2, 0)
    assert (masks(made), scores(made)) == (whole, figures)


def test_blocks_and_publishes_of_any_size_give_the_same_rows(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=8)
    annotate(made, scattered(made.image_ids), {})
    fewshot.predict(made.store, Request("run"))
    whole = masks(made)
    for module, name in ((fewshot, "HELD"), (fewshot, "FITTED"), (_predictions, "PUBLISH_BYTES")):
        monkeypatch.setattr(module, name, 1)
    with made.store.publish() as con:
        con.execute("delete from mask")
    fewshot.predict(made.store, Request("run"))
    assert masks(made) == whole


def test_a_run_without_masks_or_with_too_few_is_said_so(make_store: Make) -> None:
    made = make_store(images=5)
    with pytest.raises(UsageError, match="'set' of run 'run' has no masks of objects"):
        fewshot.predict(made.store, Request("run"))
    annotate(made, scattered(made.image_ids), {})
    with pytest.raises(UsageError, match=r"no category of run 'run' has masks in 6 images.*the most is 5"):
        fewshot.predict(made.store, Request("run"))
