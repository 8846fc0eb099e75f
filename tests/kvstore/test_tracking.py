from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore.errors import UsageError
from kvstore.masks import from_array, to_array
from kvstore.probes import Request, _predictions, _vectors, find, tracking
from kvstore.query import run_analysis
from tests.pairs import write_spans
from tests.stores import Made, name_versions, write_tables

Make = Callable[..., Made]
Array = np.ndarray[Any, Any]
Place = tuple[str, int, int | None]
# The stores' images are 4 columns x 3 rows of patches of 10 pixels; reach is 0.008 x 50 = 0.4, so 1 pixel.
HEIGHT, WIDTH, CELL = 30, 40, 10
NONE = np.zeros((HEIGHT, WIDTH), bool)


def box(x0: int, y0: int, x1: int, y1: int) -> Array:
    pixels = NONE.copy()
    pixels[y0:y1, x0:x1] = True
    return pixels


def add_clips(
    made: Made,
    clips: Mapping[str, Sequence[Mapping[int, Array]]],
    void: Mapping[int, Array] = {},
) -> None:
    """Clips of the store's images in order, each frame's masks by object_id; void pixels by image."""
    write_spans(made)
    images = iter(made.image_ids)
    with made.store.publish() as con:
        for clip, frames in clips.items():
            for number, objects in enumerate(frames):
                image = next(images)
                con.execute("insert into frame values ('set', ?, ?, ?)", [clip, number, image])
                for object_id, pixels in objects.items():
                    con.execute(
                        "insert into object values ('set', ?, ?, 'thing', 0, 0, 1, 1, 1, false, ?)",
                        [object_id, image, from_array(pixels)],
                    )
        for image, pixels in void.items():
            con.execute("insert into void values ('set', ?, ?)", [image, from_array(pixels)])


def replace(made: Made, values: Array) -> None:
    """Put these vectors in the place of the store's values."""
    import shutil

    for table in ("patch_kv", "pooled_kv"):
        shutil.rmtree(made.store.lance / f"run.{table}.lance")
    versions = write_tables(made.store.lance, "run", {"value": values}, made.layers, made.image_ids)
    name_versions(made.store, "run", versions)
    made.vectors["run"]["value"] = values


def rows(made: Made) -> list[tuple[Any, ...]]:
    with made.store.connect() as con:
        return con.execute("select * from mask order by all").fetchall()


def found(made: Made, probe: str = "tracking") -> dict[Place, dict[tuple[str, int, int], dict[str, Any]]]:
    """(site, layer, head) -> (clip, frame, object) -> row, its mask as pixels."""
    with made.store.connect() as con:
        table = con.execute("select * from mask where probe = ?", [probe]).to_arrow_table().to_pylist()
    places: dict[Place, dict[tuple[str, int, int], dict[str, Any]]] = {}
    for row in table:
        row["mask"] = to_array(row["mask"])
        place = places.setdefault((row["site"], row["layer"], row["head"]), {})
        place[row["label"], row["number"], row["object_id"]] = row
    return places


def scores(made: Made) -> dict[tuple[Any, ...], tuple[float, int]]:
    with made.store.connect() as con:
        got = con.execute("select metric, site, layer, head, value, n from score").fetchall()
    return {row[:4]: (row[4], row[5]) for row in got}


# --------------------------------------------------------------------- the definitions, pixel by pixel


def naive(vectors: Array, truth: Sequence[Mapping[int, Array]], objects: Sequence[int]) -> list[Array]:
    """Label of each pixel, frame by frame after the first: vectors [frames, 12 patches, width], by loops."""
    unit = vectors.astype(np.float64)
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    share = lambda pixels: pixels.reshape(3, CELL, 4, CELL).mean((1, 3)).reshape(12)  # noqa: E731
    masks = [truth[0].get(object_id, NONE) for object_id in objects]
    labels = [np.stack([share(~np.any(masks, 0)), *map(share, masks)])]
    painted = []
    for frame in range(1, len(vectors)):
        context = [0, *range(max(1, frame - 7), frame)]
        now = np.zeros_like(labels[0])
        for patch in range(12):
            near = []
            for other in context:
                for source in range(12):
                    apart = max(abs(patch // 4 - source // 4), abs(patch % 4 - source % 4))
                    if apart <= tracking.RADIUS:
                        near.append((float(unit[frame, patch] @ unit[other, source]), other, source))
            near.sort(reverse=True)
            weights = np.array([math.exp(similarity / 0.1) for similarity, _, _ in near[:5]])
            for weight, (_, other, source) in zip(weights / weights.sum(), near, strict=False):
                now[:, patch] += weight * labels[other][:, source]
        labels.append(now)
        painted.append(paint(now))
    return painted


def paint(labels: Array) -> Array:
    """Bilinear between the centres of patches, each map stretched to 0..1, the highest wins."""
    maps = np.zeros((len(labels), HEIGHT, WIDTH))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            row, column = (min(max((at + 0.5) / CELL - 0.5, 0), n - 1) for at, n in ((y, 3), (x, 4)))
            top, left = min(int(row), 1), min(int(column), 2)
            down, right = row - top, column - left
            square = labels.reshape(-1, 3, 4)[:, top : top + 2, left : left + 2]
            across = square[:, :, 0] * (1 - right) + square[:, :, 1] * right
            maps[:, y, x] = across[:, 0] * (1 - down) + across[:, 1] * down
    for one in maps:
        if one.max() > one.min():
            one[:] = (one - one.min()) / (one.max() - one.min())
    return maps.argmax(0)


def edges(mask: Array) -> Array:
    """(y, x) of the pixels unlike the right, the lower or the lower right one."""
    wide = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    unlike = sum(mask ^ other for other in (wide[1:, :-1], wide[:-1, 1:], wide[1:, 1:]))
    return np.argwhere(unlike > 0)


def measure(predicted: Array, truth: Array) -> tuple[float, float]:
    """J and F of one frame: intersection over union; harmonic mean of the shares within 1 pixel."""
    either = (predicted | truth).sum()
    j = (predicted & truth).sum() / either if either else 1.0
    a, b = edges(predicted), edges(truth)
    if not len(a) or not len(b):
        return j, float(len(a) == len(b))
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    precision, recall = (apart.min(1) <= 1).mean(), (apart.min(0) <= 1).mean()
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# ------------------------------------------------------------------------------------------ propagation


def walk(frames: int, seed: int = 0) -> list[dict[int, Array]]:
    """Two objects that move; the second is hidden in the third frame."""
    rng = np.random.default_rng(seed)
    scene = []
    for frame in range(frames):
        x, y = rng.integers(0, 8, 2)
        objects = {21: box(x, y, x + 14, y + 17), 22: box(20 + x, 2 + y, 31 + x, 20 + y)}
        if frame == 2:
            del objects[22]
        scene.append(objects)
    return scene


@pytest.mark.parametrize("radius", [12, 1])
def test_every_prediction_equals_numpys_by_loops(
    make_store: Make, monkeypatch: pytest.MonkeyPatch, radius: int
) -> None:
    """Twelve frames, so that some leave the context, two heads and both together, two layers, two clips."""
    monkeypatch.setattr(tracking, "RADIUS", radius)
    made = make_store(images=15, sites=("value", "key", "input"), width=4)
    clips = {"one": walk(12), "two": walk(3, seed=1)}
    clips["two"] = [{41: masks[21]} for masks in clips["two"]]
    add_clips(made, clips)
    outcome = tracking.predict(made.store, Request("run", heads="both"))
    places = found(made)
    assert (outcome.items, outcome.made, outcome.rows) == (11 * 2 + 2, 5, 24 * len(places))
    assert set(places) == set(grids(made)) | {("position", 0, None)}
    for place, vectors in grids(made).items():
        for clip, objects, frames in (("one", (21, 22), range(12)), ("two", (41,), range(12, 15))):
            painted = naive(vectors[list(frames)], clips[clip], objects)
            for number, labels in enumerate(painted, 1):
                for index, object_id in enumerate(objects, 1):
                    row = places[place][clip, number, object_id]
                    np.testing.assert_array_equal(row["mask"], labels == index, f"{place} {clip} {number}")
                    assert row["image_id"] == frames[number] + 1
    predicted = sum(row["mask"].any() for row in places["value", 0, 0].values())
    assert predicted > 10


def grids(made: Made) -> dict[Place, Array]:
    """(site, layer, head) -> vectors [images, patches, width], heads together included."""
    vectors = made.vectors["run"]
    places: dict[Place, Array] = {("input", 0, None): vectors["input"]} if "input" in vectors else {}
    for index, layer in enumerate(made.layers):
        for site in ("value", "key"):
            if site in vectors:
                heads = vectors[site][:, index]
                places |= {(site, layer, head): heads[:, head] for head in range(heads.shape[1])}
                places[site, layer, None] = np.concatenate([heads[:, h] for h in range(heads.shape[1])], -1)
    return places


def test_chunks_of_any_size_give_the_same_rows(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_store(images=5)
    add_clips(made, {"one": walk(5)})
    tracking.predict(made.store, Request("run", heads="both"))
    whole = rows(made)
    monkeypatch.setattr(tracking, "CHUNK", 1)
    monkeypatch.setattr(_vectors, "BLOCK_BYTES", 1)
    monkeypatch.setattr(_predictions, "PUBLISH_BYTES", 1)
    with made.store.publish() as con:
        con.execute("delete from mask")
    tracking.predict(made.store, Request("run", heads="both"))
    assert rows(made) == whole


def test_all_that_tie_with_the_fifth_hand_their_labels_on() -> None:
    """Seven equal sources of a target: each gives a seventh, whichever of them topk names."""
    import torch

    here, known = torch.ones(1, 1, 1), torch.ones(1, 7, 1)
    labels = torch.eye(7)[None]
    carried = tracking.carry(here, [(known, labels)], torch.ones(1, 7, dtype=torch.bool))
    np.testing.assert_allclose(carried[0, :, 0], np.full(7, 1 / 7), rtol=1e-6)


def test_vectors_that_tell_the_object_follow_it(make_store: Make) -> None:
    """An object of whole patches wanders; its patches' vectors, and no others', point one way."""
    made = make_store(images=6, sites=("value",), heads=2, layers=(0, 1))
    path = [0, 1, 5, 6, 10, 9]  # patches of the 4 x 3
    frames = [{7: box(p % 4 * 10, p // 4 * 10, p % 4 * 10 + 10, p // 4 * 10 + 10)} for p in path]
    add_clips(made, {"one": frames})
    values = made.vectors["run"]["value"].copy()
    values[:, 1, 0] = [-8, 0, 0, 0, 0, 0, 0, 0]
    for image, patch in enumerate(path):
        values[image, 1, 0, patch] = [8, 0, 0, 0, 0, 0, 0, 0]
    replace(made, values)
    tracking.predict(made.store, Request("run"))
    places = found(made)
    for number, patch in enumerate(path[1:], 1):
        centre = places["value", 1, 0]["one", number, 7]["mask"]
        labels = np.eye(12)[patch]
        np.testing.assert_array_equal(centre, paint(np.stack([1 - labels, labels])) == 1)
    figures = scores(made)
    # Maps meet halfway between the centres of two patches: that leaves the object's square but its corners.
    assert figures["j", "value", 1, 0][0] > 0.75
    assert figures["f", "value", 1, 0][0] > 0.75
    assert figures["j", "position", 0, None][0] < 0.2
    best = run_analysis(made.store, "best_layer", {"run": "run", "probe": "tracking"}).to_pylist()
    assert {(row["layer"], row["head"]) for row in best if row["site"] == "value"} == {(1, 0)}


def test_positions_leave_the_mask_of_the_first_frame_where_it_was(make_store: Make) -> None:
    made = make_store(images=10, sites=("value",), layers=(0,), heads=1)
    frames = [{1: box(3 * n, n, 3 * n + 13, n + 12)} for n in range(10)]
    add_clips(made, {"one": frames})
    tracking.predict(made.store, Request("run"))
    position = found(made)["position", 0, None]
    first = position["one", 1, 1]["mask"]
    assert first.any()
    assert measure(first, frames[0][1])[0] > 0.5
    for number in range(2, 10):
        assert measure(position["one", number, 1]["mask"], first)[0] > 0.9


def test_a_grid_that_reaches_beyond_the_image_is_painted_by_its_box(make_store: Make) -> None:
    """Two columns and one row of patches of 24 x 30 pixels on 40 x 30: the maps cross at x = 24."""
    made = make_store(images=3, grid=(3, 4), sites=("value",), layers=(0,), heads=1)
    add_clips(made, {"one": [{1: box(0, 0, 24, 30)}] * 3})
    with made.store.publish() as con:
        con.execute("update token_grid set rows = 1, columns = 2, x1 = 48, y1 = 30")
    values = made.vectors["run"]["value"].copy()
    values[:, 0, 0, 0], values[:, 0, 0, 1] = np.eye(8)[:2]
    replace(made, values)
    tracking.predict(made.store, Request("run"))
    assert (found(made)["value", 0, 0]["one", 1, 1]["mask"] == box(0, 0, 24, 30)).all()


# --------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("probe", ["tracking", "tracking-void-out"])
def test_j_and_f_of_frames_equal_the_definition(make_store: Make, probe: str) -> None:
    """Means over the frames between the first and the last, then over the objects of two clips; with void."""
    made = make_store(images=11, width=3)
    clips = {"one": walk(7), "two": [{31: masks[21]} for masks in walk(4, seed=3)]}
    void = {3: box(0, 0, 20, 12), 6: box(25, 10, 40, 30)}
    add_clips(made, clips, void)
    find(probe).predict(made.store, Request("run", heads="both"))
    figures = scores(made)
    for place, got in found(made, probe).items():
        js, fs = [], []
        for clip, object_id, shift, last in (("one", 21, 1, 6), ("one", 22, 1, 6), ("two", 31, 8, 3)):
            certain = [~void.get(number + shift, NONE) for number in range(last)]
            counted = certain if probe == "tracking-void-out" else [~NONE] * last
            pairs = [
                measure(
                    got[clip, number, object_id]["mask"] & counted[number],
                    clips[clip][number].get(object_id, NONE) & certain[number],
                )
                for number in range(1, last)
            ]
            js.append(np.mean([j for j, _ in pairs]))
            fs.append(np.mean([f for _, f in pairs]))
        assert figures["j", *place] == (pytest.approx(np.mean(js)), 3), place
        assert figures["f", *place] == (pytest.approx(np.mean(fs)), 3), place
        assert figures["jf", *place] == (pytest.approx((np.mean(js) + np.mean(fs)) / 2), 3), place


@pytest.mark.parametrize(
    ("probe", "counts", "contours"),
    [
        # Void is background: 20 columns of 30 are predicted, of which 15 are true. Columns 19 and 14 differ
        # from their right neighbours, 5 pixels apart, and 1 is in reach.
        ("tracking", [20 * 30, 15 * 30, 15 * 30, 40 * 30], [30, 30, 0, 0]),
        # The strip is neither right nor wrong: all 15 columns are right, and both contours are column 14.
        ("tracking-void-out", [15 * 30, 15 * 30, 15 * 30, 35 * 30], [30, 30, 30, 30]),
    ],
)
def test_counts_by_hand_where_there_is_void(
    make_store: Make, probe: str, counts: list[int], contours: list[int]
) -> None:
    """Left and right half of the image are told apart exactly; a strip of 5 columns is void."""
    made = make_store(images=3, sites=("value",), layers=(0,), heads=1)
    add_clips(made, {"one": [{1: box(0, 0, 20, 30)}] * 3}, {2: box(15, 0, 20, 30)})
    values = made.vectors["run"]["value"].copy()
    for patch in range(12):
        values[:, 0, 0, patch] = np.eye(8)[patch % 4 // 2]
    replace(made, values)
    find(probe).predict(made.store, Request("run"))
    row = found(made, probe)["value", 0, 0]["one", 1, 1]
    assert (row["mask"] == box(0, 0, 20, 30)).all()
    assert [row[name] for name in ("predicted", "truth", "shared", "valid")] == counts
    names = ("contour", "true_contour", "contour_hits", "true_contour_hits")
    assert [row[name] for name in names] == contours
    assert (row["x0"], row["y0"], row["x1"], row["y1"]) == (0, 0, 20, 30)  # of the mask, void or not


def test_figures_of_counts_by_hand(make_store: Make) -> None:
    """Frames 0 and 4 are the ends. Object 1: J 1/3 and F 0.6, then both empty; object 2: one of the two."""
    made = make_store(images=5)
    add_clips(made, {"one": [{1: box(0, 0, 5, 5)}] * 5})
    counts = {
        (1, 1): (20, 20, 10, 8, 10, 6, 5),  # precision 3/4, recall 1/2
        (1, 2): (0, 0, 0, 0, 0, 0, 0),
        (1, 3): (9, 9, 0, 8, 8, 0, 0),
        (1, 4): (100, 100, 100, 9, 9, 9, 9),  # the last
        (2, 1): (7, 0, 0, 8, 0, 0, 0),
        (2, 2): (0, 7, 0, 0, 8, 0, 0),
        (2, 3): (6, 8, 6, 4, 0, 0, 0),  # a truth without contour
    }
    with made.store.publish() as con:
        for site, head in (("value", 1), ("position", None)):
            for (object_id, number), (p, t, s, c, tc, ch, tch) in counts.items():
                con.execute(
                    "insert into mask values ('run', 'tracking', ?, 'one', ?, ?, ?, 0, ?, '{}',"
                    " null, null, null, null, ?, ?, ?, 1200, ?, ?, ?, ?)",
                    [number + 1, object_id, number, site, head, p, t, s, c, tc, ch, tch],
                )
        tracked = con.execute("select site, object_id, j, f from tracked('run') order by all").fetchall()
    one, two = (1 / 3 + 1 + 0) / 3, (0 + 0 + 6 / 8) / 3
    assert [row for row in tracked if row[0] == "value"] == [
        ("value", 1, pytest.approx(one), pytest.approx((0.6 + 1 + 0) / 3)),
        ("value", 2, pytest.approx(two), 0.0),
    ]
    # Chance takes all of 1200 pixels and has no contour: F is 1 where the truth has none either.
    assert [row for row in tracked if row[0] == "chance"] == [
        ("chance", 1, pytest.approx((20 + 0 + 9) / 1200 / 3), pytest.approx(1 / 3)),
        ("chance", 2, pytest.approx((0 + 7 + 8) / 1200 / 3), pytest.approx(2 / 3)),
    ]


def test_a_frame_shown_twice_is_counted_twice(make_store: Make) -> None:
    """A clip may hold one image at two places; J is a mean over places."""
    made = make_store(images=4, sites=("value",), layers=(0,), heads=1)
    add_clips(made, {"one": walk(4)})
    with made.store.publish() as con:
        con.execute("update frame set number = number + 1 where number > 1")
        con.execute("insert into frame values ('set', 'one', 2, 2)")
    tracking.predict(made.store, Request("run"))
    got = found(made)["value", 0, 0]
    frames = walk(4)
    order = [frames[1], frames[1], frames[2]]
    js = [
        measure(got["one", number, 21]["mask"], masks.get(21, NONE))[0]
        for number, masks in enumerate(order, 1)
    ]
    with made.store.connect() as con:
        (j,) = con.execute("select j from tracked('run') where site = 'value' and object_id = 21").fetchone()
    assert j == pytest.approx(np.mean(js))


# --------------------------------------------------------------------------------- objects, resume, errors


def test_objects_are_those_up_to_the_highest_of_the_first_frame(make_store: Make) -> None:
    """5 and 8 are there at once; 6 comes later and is never found; 9 comes later and is not looked for."""
    made = make_store(images=4, sites=("value",), layers=(0,), heads=1)
    left, right = box(0, 0, 15, 30), box(25, 0, 40, 30)
    middle = box(16, 0, 20, 30)
    later = {5: left, 6: middle, 8: right, 9: box(21, 0, 24, 30)}
    add_clips(made, {"one": [{5: left, 8: right}, later, {8: right}, later]})
    tracking.predict(made.store, Request("run"))
    got = found(made)["value", 0, 0]
    assert set(got) == {("one", number, object_id) for number in (1, 2, 3) for object_id in (5, 6, 8)}
    assert not any(got["one", number, 6]["mask"].any() for number in (1, 2, 3))
    assert got["one", 1, 6]["truth"] == 4 * 30
    assert got["one", 2, 5]["truth"] == 0  # hidden, and yet predicted for
    with made.store.connect() as con:
        j = dict(con.execute("select object_id, j from tracked('run') where site = 'value'").fetchall())
    assert j[6] == 0.5  # missed in frame 1, rightly nowhere in frame 2


def test_again_replaces_nothing_and_an_unfinished_part_is_made_anew(make_store: Make) -> None:
    made = make_store(images=5)
    add_clips(made, {"one": walk(5)})
    request = Request("run", sites=("value",))
    tracking.predict(made.store, request)
    first, catalog = rows(made), made.store.catalog.stat()
    again = tracking.predict(made.store, request)
    assert (again.made, again.kept, again.rows) == (0, 2, 0)
    assert made.store.catalog.stat().st_mtime_ns == catalog.st_mtime_ns
    with made.store.publish() as con:
        con.execute("delete from mask where layer = 1 and head = 0 and number = 3")
        con.execute("update mask set predicted = 0 where layer = 1")
    resumed = tracking.predict(made.store, request)
    assert (resumed.made, resumed.kept) == (1, 1)
    assert rows(made) == first


def test_a_clip_without_its_first_frame_is_left_out_and_a_gap_is_passed_over(make_store: Make) -> None:
    made = make_store(images=9, sites=("value",), layers=(0,), heads=1)
    clips = {"one": walk(5), "two": [{31: masks[21]} for masks in walk(4)]}
    add_clips(made, clips)
    with made.store.publish() as con:
        con.execute("delete from token_grid where image_id in (4, 6)")  # frame 3 of one, frame 0 of two
    tracking.predict(made.store, Request("run"))
    got = found(made)["value", 0, 0]
    assert {(clip, number) for clip, number, _ in got} == {("one", 1), ("one", 2), ("one", 4)}
    kept = [0, 1, 2, 4]
    painted = naive(made.vectors["run"]["value"][kept, 0, 0], [clips["one"][n] for n in kept], (21, 22))
    np.testing.assert_array_equal(got["one", 4, 22]["mask"], painted[-1] == 2)


def test_a_run_without_clips_is_told_where_there_are_some(make_store: Make) -> None:
    made = make_store()
    with pytest.raises(UsageError, match=r"'set' of run 'run' has no clips.*none\..*davis2017, and shapes"):
        tracking.predict(made.store, Request("run"))
    with made.store.publish() as con:
        con.execute(
            "insert into dataset (dataset_id, name, split, fingerprint, images)"
            " values ('film', 'film', '', 'g', 1)"
        )
        con.execute("insert into frame values ('film', 'one', 0, 1)")
        con.execute(
            "insert into run by name select * replace ('other' as run_id, 'x' as fingerprint,"
            " 'film' as dataset_id) from run"
        )
    with pytest.raises(UsageError, match="Runs of this store that have: 'other' of film"):
        tracking.predict(made.store, Request("run"))


def test_a_run_of_too_few_frames_or_of_unlike_ones_is_said_so(make_store: Make) -> None:
    made = make_store(images=3)
    add_clips(made, {"one": walk(3)})
    with made.store.publish() as con:
        con.execute("update image set width = 50 where image_id = 3")
    with pytest.raises(UsageError, match=r"frame 2 of clip 'one' is 50 x 30 pixels .* frame 0 40 x 30"):
        tracking.predict(made.store, Request("run"))
    with made.store.publish() as con:
        con.execute("delete from token_grid where image_id = 3")
    with pytest.raises(UsageError, match=r"no clip a first frame with masks .* --limit"):
        tracking.predict(made.store, Request("run"))
    assert rows(made) == []


# ---------------------------------------------------------------------------------------------- results


def test_a_submission_holds_every_frame_as_davis_has_it(make_store: Make, tmp_path: Path) -> None:
    """Palette images: object 21 is 1, 22 is 2; the first frame is its annotation; colours are DAVIS's."""
    made = make_store(images=7)
    clips = {"one": walk(4), "two": [{31: masks[21]} for masks in walk(3, seed=1)]}
    add_clips(made, clips)
    tracking.predict(made.store, Request("run", heads="both"))
    with made.store.connect() as con:
        files = tracking.submission(con, "run", "tracking", ("value", 1, None), tmp_path / "out")
    names = [f"one/0000{n}.png" for n in range(4)] + [f"two/0000{n}.png" for n in range(3)]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files] == names
    got = found(made)["value", 1, None]
    for name in names:
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.mode, image.size) == ("P", (WIDTH, HEIGHT))
            assert image.getpalette()[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]
            assert image.getpalette()[24:27] == [64, 0, 0]
            painted = np.array(image)
        clip, number = name.split("/")[0], int(name[4:9])
        for index, object_id in enumerate((21, 22) if clip == "one" else (31,), 1):
            expected = got[clip, number, object_id]["mask"] if number else clips[clip][0][object_id]
            np.testing.assert_array_equal(painted == index, expected, name)
        assert painted.max() <= (2 if clip == "one" else 1)


def test_a_submission_of_what_was_not_tracked_is_refused(make_store: Make, tmp_path: Path) -> None:
    made = make_store(images=3)
    add_clips(made, {"one": walk(3)})
    tracking.predict(made.store, Request("run", layers=(0,)))
    with made.store.connect() as con, pytest.raises(UsageError, match=r"no tracking of frame 1 .*'layer': 1"):
        tracking.submission(con, "run", "tracking", ("value", 1, 0), tmp_path)
