from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvstore.cli import main
from kvstore.errors import UsageError
from kvstore.masks import from_array, to_array
from kvstore.probes import Request, semantic_segmentation
from kvstore.query import run_analysis
from kvstore.store import Store
from tests.ingesting import assert_clean, query
from tests.stores import Made
from tests.texts import (
    CELL,
    add_object,
    add_void,
    cells,
    figures,
    otsu,
    random_texts,
    rectangle,
    replace_values,
    rows,
    scores,
    write_texts,
)

Make = Callable[..., Made]
Array = np.ndarray[Any, Any]
NAME = "semantic-segmentation"
CATEGORIES = ["cat", "cow", "dog"]


def furnish(made: Made, seed: int = 1) -> dict[int, Array]:
    """One to three boxes an image, of any category; the label of each pixel: 0 other, 1 cat, 2 cow, 3 dog.

    Boxes are painted by falling size, so that smaller ones lie on larger ones; no two of an image have one
    size.
    """
    rng = np.random.default_rng(seed)
    labels, number = {}, 0
    for image in made.image_ids:
        found = {}
        for _ in range(rng.integers(1, 4)):
            x, y = rng.integers(0, 25), rng.integers(0, 15)
            pixels = rectangle(x, y, x + rng.integers(8, 16), y + rng.integers(8, 16))
            found[int(pixels.sum())] = (int(rng.integers(0, 3)), pixels)
        labels[image] = np.zeros((30, 40), int)
        for _, (category, pixels) in sorted(found.items(), reverse=True):
            labels[image][pixels] = 1 + category
        for category, pixels in found.values():
            add_object(made, number := number + 1, image, CATEGORIES[category], pixels)
    return labels


def predicted(made: Made) -> dict[tuple[str, int, int | None], dict[int, dict[str, Array]]]:
    """(site, layer, head) -> image -> label -> pixels."""
    with made.store.connect() as con:
        found = con.execute("select site, layer, head, image_id, label, mask::varchar from mask").fetchall()
    masks: dict[tuple[str, int, int | None], dict[int, dict[str, Array]]] = {}
    for site, layer, head, image, label, mask in found:
        masks.setdefault((site, layer, head), {}).setdefault(image, {})[label] = to_array(mask)
    return masks


def by_numpy(maps: Array) -> Array:
    """Labels [patches] of scores [texts, patches]."""
    return np.where(otsu(maps.max(0)), 1 + maps.argmax(0), 0)


def check_rows(found: dict[str, Array], labels: Array, truth: Array) -> None:
    """Each label in prediction or truth, once, with the pixels of its patches."""
    pixels = cells(labels)
    names = ["other", *CATEGORIES]
    assert found.keys() == {names[number] for number in {*np.unique(pixels), *np.unique(truth)}}
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, pixels == names.index(name))


def test_every_prediction_equals_numpys(make_store: Make) -> None:
    made = make_store(images=6, sites=("value", "key", "input"))
    truth, texts = furnish(made), random_texts(made, CATEGORIES)
    outcome = semantic_segmentation.predict(made.store, Request("run", heads="both"))
    found = predicted(made)
    expected = scores(made, texts)
    assert found.keys() == expected.keys() | {("position", 0, None)}
    for place, maps in expected.items():
        for at, image in enumerate(made.image_ids):
            check_rows(found[place][image], by_numpy(maps[at]), truth[image])
    assert (outcome.items, outcome.made, outcome.kept) == (6, 5, 0)
    assert outcome.rows == len(rows(made))


def test_pixels_are_counted_as_they_lie(make_store: Make) -> None:
    """Void pixels and crowds count nowhere; a pixel of two categories is the smaller object's."""
    made = make_store(images=2, layers=(0,), heads=1, sites=("value",))
    truth = furnish(made)
    void, crowd = rectangle(3, 5, 17, 22), rectangle(25, 0, 40, 13)
    add_void(made, 1, void)
    add_object(made, 99, 1, "cow", crowd, crowd=True)
    maps = scores(made, random_texts(made, CATEGORIES))["value", 0, 0]
    semantic_segmentation.predict(made.store, Request("run"))
    with made.store.connect() as con:
        found = con.execute(
            "select image_id, label, predicted, truth, shared, valid from mask where site = 'value'"
        ).fetchall()
    for image, name, *counts in found:
        counts_in = ~(void | crowd) if image == 1 else np.ones((30, 40), bool)
        number = ["other", *CATEGORIES].index(name)
        mask = (cells(by_numpy(maps[image - 1])) == number) & counts_in
        real = (truth[image] == number) & counts_in
        assert counts == [mask.sum(), real.sum(), (mask & real).sum(), counts_in.sum()]


def test_vectors_that_tell_the_categories_give_perfect_masks(make_store: Make) -> None:
    """Head 1 of layer 1 alone points to the name of what it sees; objects are whole patches."""
    made = make_store(images=6, sites=("value",))
    values, texts = made.vectors["run"]["value"], np.zeros((3, 2, 2, 8), np.float16)
    texts[:, :, :, :3] = np.eye(3)[:, None, None]
    for image in made.image_ids:
        labels = np.zeros(12, int)
        labels[[image, image + 1, 11]] = [1 + image % 3, 1 + image % 3, 1 + (image + 1) % 3]
        for number in set(labels.tolist()) - {0}:
            add_object(made, 10 * image + number, image, CATEGORIES[number - 1], cells(labels == number) > 0)
        values[image - 1, 1, 1] = np.eye(4)[(labels - 1) % 4] @ np.eye(4, 8) * 9
    replace_values(made, values)
    write_texts(made, CATEGORIES, {"value": texts})
    semantic_segmentation.predict(made.store, Request("run"))
    found = figures(made)
    assert found["miou", "value", 1, 1] == (1.0, 1.0, 1.0, 6)
    assert max(found["miou", "value", 0, 0][0], found["miou", "position", 0, None][0]) < 0.9
    best = run_analysis(made.store, "best_layer", {"run": "run", "probe": NAME}).to_pylist()
    assert [(row["layer"], row["head"], row["value"]) for row in best if row["site"] == "value"] == [
        (1, 1, 1.0)
    ]


def test_position_only_is_the_usual_label_of_the_place_in_the_other_half(make_store: Make) -> None:
    made = make_store(images=8, layers=(0,), heads=1, sites=("value",))
    truth = furnish(made, seed=3)
    for image in made.image_ids:  # more than half of the images' pixels there are a dog's
        add_object(made, 100 + image, image, "dog", rectangle(11, 11, 19, 19))
        truth[image][11:19, 11:19] = 3
    random_texts(made, CATEGORIES)
    semantic_segmentation.predict(made.store, Request("run"))
    share = np.array(
        [
            [(truth[image] == number).reshape(3, CELL, 4, CELL).sum((1, 3)).ravel() for number in range(4)]
            for image in made.image_ids
        ]
    )
    found = predicted(made)["position", 0, None]
    for at, image in enumerate(made.image_ids):
        labels = share[1 - at % 2 :: 2].sum(0).argmax(0)
        assert 3 in labels
        check_rows(found[image], labels, truth[image])


def test_figures_by_hand(make_store: Make) -> None:
    """Of cat 20 of 50 and 10 of 10, of other 60 of 90 and 0 of 10, void left out: means of ratios of sums.

    Chance draws one of two labels for each of 100 and 20 pixels: cat has 40 and 10 pixels, of which half are
    hit, and in union with 60 drawn 85; other has 60 and 10.
    """
    made = make_store(images=2)
    counts = {  # image, label -> predicted, true, shared, valid
        (1, "cat"): (30, 40, 20, 100),
        (1, "other"): (90, 60, 60, 100),
        (2, "cat"): (10, 10, 10, 20),
        (2, "other"): (0, 10, 0, 20),
    }
    empty = from_array(np.zeros((30, 40), bool))
    with made.store.publish() as con:
        for (image, name), numbers in counts.items():
            for site in ("value", "position"):
                con.execute(
                    "insert into mask by name select 'run' as run_id, ? as probe, ? as image_id, ? as label,"
                    " 0 as number, ? as site, 0 as layer, ? as mask, ? as predicted, ? as truth, ? as shared,"
                    " ? as valid",
                    [NAME, image, name, site, empty, *numbers],
                )
    found = run_analysis(made.store, "bootstrap", {"probe": NAME}).to_pylist()
    value = (30 / 60 + 60 / 100) / 2
    assert {(row["metric"], row["site"]): (row["value"], row["n"]) for row in found} == {
        ("miou", "value"): (pytest.approx(value), 2),
        ("miou", "position"): (pytest.approx(value), 2),
        ("miou", "chance"): (pytest.approx((25 / (60 + 50 - 25) + 35 / (60 + 70 - 35)) / 2), 2),
    }


def test_again_replaces_nothing_and_an_unfinished_part_is_made_anew(make_store: Make) -> None:
    made = make_store(images=4)
    furnish(made)
    random_texts(made, CATEGORIES)
    request = Request("run", sites=("value",))
    semantic_segmentation.predict(made.store, request)
    first, catalog = rows(made), made.store.catalog.stat().st_mtime_ns
    again = semantic_segmentation.predict(made.store, request)
    assert (again.made, again.kept, again.rows) == (0, 2, 0)
    assert made.store.catalog.stat().st_mtime_ns == catalog
    with made.store.publish() as con:
        con.execute("delete from mask where layer = 1 and head = 0 and image_id = 3")
        con.execute("update mask set predicted = 0 where layer = 1")
    resumed = semantic_segmentation.predict(made.store, request)
    assert (resumed.made, resumed.kept) == (1, 1)
    assert rows(made) == first


def test_a_category_called_other_is_other(make_store: Make) -> None:
    made = make_store(images=2, layers=(0,), heads=1, sites=("value",))
    for image in made.image_ids:
        add_object(made, image, image, "cat", rectangle(0, 0, 10, 10))
        add_object(made, image + 10, image, "other", rectangle(20, 0, 40, 30))
    random_texts(made, ["cat"])
    semantic_segmentation.predict(made.store, Request("run"))
    with made.store.connect() as con:
        found = con.execute("select label, truth from mask where site = 'value' order by all").fetchall()
    assert found == [("cat", 100)] * 2 + [("other", 1100)] * 2


def test_the_encoder_has_no_texts(make_store: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_store(images=2, layers=(0,), sites=("value", "encoder"))
    furnish(made)
    random_texts(made, CATEGORIES)
    with pytest.raises(UsageError, match=r"site encoder of run 'run' .* no text tower .*; use value\."):
        semantic_segmentation.predict(made.store, Request("run", sites=("encoder",)))
    assert semantic_segmentation.predict(made.store, Request("run")).made == 1
    assert capsys.readouterr().err.endswith("space; left out\n")
    assert {site for site, _, _ in predicted(made)} == {"value", "position"}


def test_an_encoder_alone_has_texts_where_it_has_a_text_tower(make_store: Make) -> None:
    made = make_store(images=2, layers=(0,), sites=("encoder",))
    furnish(made)
    with made.store.publish() as con:
        con.execute("update model set layers = 0, family = 'dinov2'")
    with pytest.raises(UsageError, match=r"no text tower .*; use a run of an encoder that has one"):
        semantic_segmentation.predict(made.store, Request("run"))


def test_an_encoder_with_a_text_tower_is_probed_end_to_end(tmp_path: Path) -> None:
    """Shapes by tiny-encoder from the command line: the last layer's labels are numpy's of text vectors."""
    for command in (
        ["ingest", "shapes", "--model", "tiny-encoder", "--run", "run", "--limit", "4"],
        ["probe", "semantic-segmentation", "--run", "run"],
        ["probe", "referring", "--run", "run"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main([*command, "--store", str(tmp_path), "--device", "cpu"])
        assert not exit_.value.code
    store = Store.open(tmp_path)
    probed = "select probe, site, layer, head from mask where site = 'encoder' group by all order by all"
    assert query(store, probed) == [
        (probe, "encoder", layer, None) for probe in ("referring", NAME) for layer in range(5)
    ]
    names = [name for (name,) in query(store, "select distinct category from object order by all")]
    words = [query(store, f"select feature from text_encoder where text = '{name}'")[0][0] for name in names]
    for (image,) in query(store, "select image_id from token_grid"):
        patches = query(
            store, f"select feature from patch_encoder where layer = 4 and image_id = {image} order by patch"
        )
        labels = by_numpy(np.array(words) @ np.array([feature for (feature,) in patches]).T)
        found = query(
            store,
            "select label from mask where probe = 'semantic-segmentation' and site = 'encoder' and layer = 4"
            f" and predicted > 0 and image_id = {image}",
        )
        assert {label for (label,) in found} == {["other", *names][label] for label in labels.tolist()}
    assert_clean(store)


def test_a_run_without_masks_is_told_before_a_model_is_sought(make_store: Make) -> None:
    made = make_store(images=2)
    with pytest.raises(UsageError, match="has no masks of objects"):
        semantic_segmentation.predict(made.store, Request("run"))
