from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kvstore import masks
from kvstore.errors import UsageError
from kvstore.masks import to_array
from kvstore.probes import Request, referring
from kvstore.query import run_analysis
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
TEXTS = ["a cat", "the left one", "what is small"]
#: (image, object, number) -> which text; object 1 is in two images, as in frames of a clip
ASKED = {(1, 1, 0): 0, (1, 1, 1): 1, (2, 1, 0): 0, (2, 7, 0): 2, (4, 8, 3): 2}


def furnish(made: Made) -> dict[tuple[int, int], Array]:
    """Objects of images 1, 2 and 4, and their expressions: (image, object) -> pixels."""
    rng = np.random.default_rng(4)
    pixels = {}
    for image, item, _ in ASKED:
        x, y = rng.integers(0, 20), rng.integers(0, 12)
        if (image, item) not in pixels:
            pixels[image, item] = rectangle(x, y, x + rng.integers(8, 20), y + rng.integers(8, 18))
            add_object(made, item, image, "thing", pixels[image, item])
    add_expressions(made, {key: TEXTS[text] for key, text in ASKED.items()})
    return pixels


def add_expressions(made: Made, texts: dict[tuple[int, int, int], str]) -> None:
    with made.store.publish() as con:
        con.executemany(
            "insert into expression values ('set', ?, ?, ?, ?)", [(*key, text) for key, text in texts.items()]
        )


def predicted(made: Made) -> dict[tuple[str, int, int | None], dict[tuple[int, int, int], tuple[str, Array]]]:
    """(site, layer, head) -> (image, object, number) -> label and pixels."""
    with made.store.connect() as con:
        found = con.execute(
            "select site, layer, head, image_id, object_id, number, label, mask::varchar from mask"
        ).fetchall()
    made_of: dict[Any, Any] = {}
    for *place, image, item, number, label, mask in found:
        made_of.setdefault(tuple(place), {})[image, item, number] = (label, to_array(mask))
    return made_of


def test_every_prediction_equals_numpys(make_store: Make) -> None:
    made = make_store(images=4, sites=("value", "key", "input"))
    furnish(made)
    expected = scores(made, random_texts(made, TEXTS))
    outcome = referring.predict(made.store, Request("run", heads="both"))
    found = predicted(made)
    assert found.keys() == expected.keys() | {("position", 0, None)}
    for place, maps in expected.items():
        assert found[place].keys() == ASKED.keys()
        for (image, item, number), text in ASKED.items():
            label, pixels = found[place][image, item, number]
            assert label == TEXTS[text]
            np.testing.assert_array_equal(pixels, cells(otsu(maps[image - 1, text])))
    assert (outcome.items, outcome.made, outcome.rows) == (5, 5, 5 * len(found))


def test_pixels_are_counted_as_they_lie(make_store: Make) -> None:
    """Void pixels and crowds count nowhere; expressions of crowds, and of no mask, are left out."""
    made = make_store(images=4, layers=(0,), heads=1, sites=("value",))
    truth = furnish(made)
    void, crowd = rectangle(3, 5, 17, 22), rectangle(25, 0, 40, 13)
    add_void(made, 1, void)
    add_object(made, 50, 1, "thing", crowd, crowd=True)
    add_object(made, 51, 1, "thing", rectangle(0, 0, 9, 9))
    with made.store.publish() as con:
        con.execute("update object set mask = null where object_id = 51")
    add_expressions(made, {(1, 50, 0): "people", (1, 51, 0): "nothing"})
    maps = scores(made, random_texts(made, TEXTS))["value", 0, 0]
    referring.predict(made.store, Request("run"))
    with made.store.connect() as con:
        found = con.execute(
            "select image_id, object_id, number, predicted, truth, shared, valid, x0, y0, x1, y1"
            " from mask where site = 'value'"
        ).fetchall()
    assert {row[:3] for row in found} == ASKED.keys()
    for image, item, number, *counts in found:
        counted = ~(void | crowd) if image == 1 else np.ones((30, 40), bool)
        pixels = cells(otsu(maps[image - 1, ASKED[image, item, number]]))
        real = truth[image, item] & counted
        assert counts[:4] == [
            (pixels * counted).sum(),
            real.sum(),
            (pixels * real).sum(),
            counted.sum(),
        ]
        ys, xs = np.nonzero(pixels)
        assert counts[4:] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_vectors_that_tell_the_text_give_perfect_masks_and_boxes(make_store: Make) -> None:
    """Head 0 of layer 1 alone points to the text on the object's patches; objects are whole patches."""
    made = make_store(images=6, sites=("value",))
    values, texts = made.vectors["run"]["value"], np.zeros((3, 2, 2, 8), np.float16)
    texts[:, :, :, :3] = np.eye(3)[:, None, None]
    for image in made.image_ids:
        bits = np.zeros((3, 12), bool)
        bits[0, [image, image + 1]] = bits[1, [image, image + 4]] = bits[2, 11 - image] = True
        for number, own in enumerate(bits):
            add_object(made, 10 * image + number, image, "thing", cells(own) > 0)
            add_expressions(made, {(image, 10 * image + number, 0): TEXTS[number]})
        values[image - 1, 1, 0] = bits.T @ np.eye(3, 8) * 9
    replace_values(made, values)
    write_texts(made, TEXTS, {"value": texts})
    referring.predict(made.store, Request("run"))
    found = figures(made)
    for metric in ("miou", "oiou", "box@0.50"):
        assert found[metric, "value", 1, 0] == (1.0, 1.0, 1.0, 18)
        assert max(found[metric, site, 0, None][0] for site in ("position", "chance")) < 0.5


def test_position_only_is_the_usual_place_in_the_other_half(make_store: Make) -> None:
    made = make_store(images=4, layers=(0,), heads=1, sites=("value",))
    truth = furnish(made)
    random_texts(made, TEXTS)
    referring.predict(made.store, Request("run"))
    found = predicted(made)["position", 0, None]
    for key in ASKED:
        others = [truth[image, item] for image, item, _ in ASKED if image % 2 != key[0] % 2]
        mean = sum(one.reshape(3, CELL, 4, CELL).mean((1, 3)).ravel() for one in others)
        np.testing.assert_array_equal(found[key][1], cells(otsu(np.asarray(mean))))


def test_figures_by_hand(make_store: Make) -> None:
    """Three expressions: IoU 20 of 60, 30 of 40, 0 of 30; boxes that overlap by 1/2, by 1/3 and not at all.

    The same object has expression 0 in two images. Chance takes all 100, 100 and 50 pixels, and the whole
    image, 40 x 30, for the box.
    """
    made = make_store(images=2)
    made_of = [  # image, object, number, predicted box, predicted, true, shared, valid
        (1, 1, 0, (0, 0, 20, 20), 40, 40, 20, 100),
        (1, 1, 1, (0, 0, 30, 20), 40, 30, 30, 100),
        (2, 1, 0, None, 0, 30, 0, 50),
    ]
    for image in (1, 2):
        add_object(made, 1, image, "thing", rectangle(0, 0, 10, 20))
    with made.store.publish() as con:
        for image, item, number, box, *counts in made_of:
            mask = masks.from_array(rectangle(*box) if box else np.zeros((30, 40), bool))
            for site in ("value", "position"):
                con.execute(
                    "insert into mask by name select 'run' as run_id, 'referring' as probe, ? as image_id,"
                    " 'it' as label, ? as object_id, ? as number, ? as site, 0 as layer, ? as mask,"
                    " ? as x0, ? as y0, ? as x1, ? as y1, ? as predicted, ? as truth, ? as shared,"
                    " ? as valid",
                    [image, item, number, site, mask, *(box or [None] * 4), *counts],
                )
    found = run_analysis(made.store, "bootstrap", {"probe": "referring"}).to_pylist()
    value = {"miou": (1 / 3 + 3 / 4 + 0) / 3, "oiou": 50 / 130, "box@0.50": 1 / 3}
    chance = {"miou": (0.4 + 0.3 + 0.6) / 3, "oiou": 100 / 250, "box@0.50": 0}
    expected = {(metric, site): figure for metric, figure in value.items() for site in ("value", "position")}
    expected |= {(metric, "chance"): figure for metric, figure in chance.items()}
    assert {(row["metric"], row["site"]): row["value"] for row in found} == pytest.approx(expected)
    assert {row["n"] for row in found} == {3}


def test_again_replaces_nothing_and_an_unfinished_part_is_made_anew(make_store: Make) -> None:
    made = make_store(images=4)
    furnish(made)
    random_texts(made, TEXTS)
    request = Request("run", sites=("value",))
    referring.predict(made.store, request)
    first, catalog = rows(made), made.store.catalog.stat().st_mtime_ns
    again = referring.predict(made.store, request)
    assert (again.made, again.kept, again.rows) == (0, 2, 0)
    assert made.store.catalog.stat().st_mtime_ns == catalog
    with made.store.publish() as con:
        con.execute("delete from mask where layer = 1 and head = 0 and image_id = 4")
        con.execute("update mask set predicted = 0 where layer = 1")
    resumed = referring.predict(made.store, request)
    assert (resumed.made, resumed.kept) == (1, 1)
    assert rows(made) == first


def test_a_run_without_expressions_is_told_which_data_sets_have_some(make_store: Make) -> None:
    made = make_store(images=2)
    add_object(made, 1, 1, "thing", rectangle(0, 0, 9, 9))
    with pytest.raises(
        UsageError, match=r"'set' of run 'run' has no referring expressions.*shapes or refcoco"
    ):
        referring.predict(made.store, Request("run"))
    with made.store.publish() as con:
        con.execute("insert into expression values ('set', 99, 1, 0, 'it')")
    with pytest.raises(UsageError, match=r"has one of the 1 referring expressions.*--limit"):
        referring.predict(made.store, Request("run"))


def test_the_encoder_has_no_texts(make_store: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_store(images=4, layers=(0,), sites=("encoder",))
    furnish(made)
    with pytest.raises(UsageError, match=r"no text tower .*; use a run with --sites value,key,input"):
        referring.predict(made.store, Request("run"))
    assert capsys.readouterr().err == ""
