from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from kvstore.errors import UnknownNameError, UsageError
from kvstore.pairs import read_points
from kvstore.probes import (
    Request,
    _matches,
    _predictions,
    correspondence,
    correspondence_bilinear,
    find,
    listing,
)
from kvstore.query import run_analysis
from tests.intervals import Found, check
from tests.pairs import Pair, add_pairs
from tests.stores import Made, name_versions, write_tables
from tests.stores import make_store as make

Make = Callable[..., Made]
# The stores' images are 4 columns x 3 rows of patches of 10 pixels.
FOUND = ("value", "low", "high", "n", "units")
CENTRES = [(5 + 10 * (patch % 4), 5 + 10 * (patch // 4)) for patch in range(12)]


def matches(made: Made, *, floor: bool = False) -> list[tuple[Any, ...]]:
    """The rows of `match` by stored vectors, or those of the position-only floor."""
    with made.store.connect() as con:
        return con.execute(
            "select * exclude (run_id, probe) from match where run_id = 'run' and (site = 'position') = ?"
            " order by all",
            [floor],
        ).fetchall()


def scores(made: Made) -> dict[tuple[Any, ...], Found]:
    with made.store.connect() as con:
        rows = con.execute(
            "select metric, site, layer, head, value, low, high, n, units from score"
        ).fetchall()
    return {row[:4]: row[4:] for row in rows}


def images_of(pairs: list[Pair]) -> Any:
    """The two images of each pair [pairs, 2]."""
    return np.array([(pair.source, pair.target) for pair in pairs])


def random_pairs(n: int, images: int, seed: int = 1) -> list[Pair]:
    rng = np.random.default_rng(seed)
    point = lambda: (float(rng.uniform(0, 40)), float(rng.uniform(0, 30)))  # noqa: E731
    return [
        Pair(
            *(int(i) + 1 for i in rng.choice(images, 2, replace=False)),
            points={f"p{k}": (point(), point()) for k in range(rng.integers(1, 5))},
            target_box=(0, 0, float(rng.uniform(20, 200)), float(rng.uniform(20, 200))),
        )
        for _ in range(n)
    ]


def test_every_match_equals_numpys(make_store: Make) -> None:
    made = make_store(images=4, sites=("value", "key", "input", "encoder"))
    pairs = random_pairs(9, 4)
    add_pairs(made, pairs)
    outcome = correspondence.predict(made.store, Request("run", heads="both"))
    expected = set()
    for number, pair in enumerate(pairs, 1):
        for name, ((x, y), _) in pair.points.items():
            patch = int(y // 10) * 4 + int(x // 10)
            for site, layer, head, grid in all_grids(made):
                source, target = (grid[i - 1].astype(np.float64) for i in (pair.source, pair.target))
                one = source[patch] / np.linalg.norm(source[patch])
                best = int(np.argmax(target @ one / np.linalg.norm(target, axis=1)))
                expected.add((number, name, site, layer, head, best, *CENTRES[best]))
    rows = matches(made)
    assert {row[:-1] for row in rows} == expected
    assert len(rows) == len(expected)
    assert outcome.rows == len(rows) + len(matches(made, floor=True))


def all_grids(made: Made) -> list[tuple[str, int, int | None, np.ndarray]]:
    """(site, layer, head, vectors [images, patches, width]) of all image values, concatenations included."""
    vectors = made.vectors["run"]
    found: list[tuple[str, int, int | None, np.ndarray]] = [("input", 0, None, vectors["input"])]
    for index, layer in enumerate(made.layers):
        found.append(("encoder", layer, None, vectors["encoder"][:, index]))
        for site in ("value", "key"):
            heads = vectors[site][:, index]
            found += [(site, layer, head, heads[:, head]) for head in range(heads.shape[1])]
            found.append(
                (site, layer, None, np.concatenate([heads[:, h] for h in range(heads.shape[1])], -1))
            )
    return found


def test_blocks_and_publishes_of_any_size_give_the_same_rows(
    make_store: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=5)
    add_pairs(made, random_pairs(12, 5))
    correspondence.predict(made.store, Request("run", sites=("value",)))
    whole = [row for row in matches(made) if row[2] == "value"]
    monkeypatch.setattr(_matches, "BLOCK_BYTES", 1)
    monkeypatch.setattr(_predictions, "PUBLISH_BYTES", 1)
    with made.store.publish() as con:
        con.execute("delete from match")
    correspondence.predict(made.store, Request("run", sites=("value",)))
    assert matches(made) == whole


def test_an_image_with_itself_has_pck_1_everywhere(make_store: Make) -> None:
    made = make_store()
    add_pairs(made, [Pair(2, 2, {f"k{p}": (CENTRES[p], CENTRES[p]) for p in range(12)})])
    correspondence.predict(made.store, Request("run"))
    found = {place: figures for place, figures in scores(made).items() if place[1] != "chance"}
    assert len(found) == 6 * (2 * 2 * 2 + 1)  # metrics x (sites x layers x heads, and position)
    assert set(found.values()) == {(1.0, None, None, 1, 1)}


def test_planted_vectors_are_found_across_two_different_grids(make_store: Make) -> None:
    """Source 27 x 27 over 270 x 54 pixels, target 14 x 10 (columns x rows) over 28 x 100."""
    made = make_store(images=2, layers=(3,), heads=1, width=16)
    rng = np.random.default_rng(5)
    source, target = (rng.standard_normal((patches, 16)).astype(np.float16) for patches in (729, 140))
    target[137] = source[26 * 27 + 1] * 3
    target[0] = source[13]
    write_two_grids(made, source, target)
    points = {"low": ((15.0, 53.9), (0.0, 0.0)), "top": ((139.9, 0.0), (0.0, 0.0))}
    add_pairs(made, [Pair(1, 2, points)])
    correspondence.predict(made.store, Request("run", sites=("value",)))
    # Patch 137 of 14 columns: row 9, column 11; cells are 2 wide and 10 high.
    assert [row[:8] for row in matches(made)] == [
        (1, "low", "value", 3, 0, 137, 23.0, 95.0),
        (1, "top", "value", 3, 0, 0, 1.0, 5.0),
    ]


def write_two_grids(made: Made, source: np.ndarray, target: np.ndarray) -> None:
    """Replace the store's vectors: image 1 with `source`, image 2 with `target`, one layer and head."""
    import shutil

    for table in ("patch_kv", "pooled_kv", "patch_span"):
        shutil.rmtree(made.store.lance / f"run.{table}.lance", ignore_errors=True)
    write_tables(made.store.lance, "run", {"value": source[None, None, None]}, (3,), (1,))
    second = made.store.lance / "second"
    write_tables(second, "run", {"value": target[None, None, None]}, (3,), (2,))
    more = lance.dataset(str(second / "run.patch_kv.lance")).to_table()
    lance.write_dataset(more, str(made.store.lance / "run.patch_kv.lance"), mode="append")
    shutil.rmtree(second)
    span = pa.table(
        {
            "image_id": pa.array([1, 2], pa.int64()),
            "first_patch": pa.array([0, 729], pa.int64()),
            "patches": pa.array([729, 140], pa.int32()),
        }
    ).replace_schema_metadata(
        {b"kvstore.layers": b"3", b"kvstore.heads": b"1", b"kvstore.encoder_layers": b""}
    )
    lance.write_dataset(span, str(made.store.lance / "run.patch_span.lance"))
    paths = {kind: str(made.store.lance / f"run.{kind}.lance") for kind in ("patch_kv", "patch_span")}
    name_versions(made.store, "run", {kind: lance.dataset(path).version for kind, path in paths.items()})
    with made.store.publish() as con:
        for image, rows, columns, x1, y1 in ((1, 27, 27, 270, 54), (2, 10, 14, 28, 100)):
            con.execute(
                "update token_grid set rows = ?, columns = ?, x1 = ?, y1 = ? where image_id = ?",
                [rows, columns, x1, y1, image],
            )


def test_only_grid_0_is_matched_and_patches_keep_their_stored_numbers(make_store: Make) -> None:
    """The image's 12 patches made into a tile grid (first 8) and, after it, an overview of 2 x 2."""
    made = make_store(images=2, layers=(0,), heads=1, sites=("value",))
    add_pairs(made, [Pair(1, 2, {"a": ((35.0, 5.0), (0.0, 0.0))})])
    with made.store.publish() as con:
        con.execute("update token_grid set grid = 1, rows = 2, columns = 4")
        con.execute(
            "insert into token_grid select run_id, image_id, 0, 2, 2, x0, y0, x1, y1, 8, 8, 2, 1, 1"
            " from token_grid"
        )
    correspondence.predict(made.store, Request("run"))
    value = made.vectors["run"]["value"][:, 0, 0].astype(np.float64)
    target = value[1, 8:] / np.linalg.norm(value[1, 8:], axis=1, keepdims=True)
    best = int(np.argmax(target @ value[0, 9]))  # column 1, row 0 of the overview
    assert [row[5:8] for row in matches(made)] == [(8 + best, 10 + 20 * (best % 2), 7.5 + 15 * (best // 2))]


def test_again_replaces_nothing_and_an_unfinished_part_is_made_anew(make_store: Make) -> None:
    made = make_store(images=4)
    add_pairs(made, random_pairs(6, 4))
    request = Request("run", sites=("value",))
    correspondence.predict(made.store, request)
    first, catalog = matches(made), made.store.catalog.stat()
    again = correspondence.predict(made.store, request)
    assert (again.made, again.kept, again.rows) == (0, 2, 0)
    assert made.store.catalog.stat().st_mtime_ns == catalog.st_mtime_ns
    with made.store.publish() as con:
        con.execute("delete from match where layer = 1 and head = 0 and pair_id > 3")
        con.execute("update match set patch = 0, x = 0 where layer = 1")
    resumed = correspondence.predict(made.store, request)
    assert (resumed.made, resumed.kept) == (1, 1)
    assert matches(made) == first


def test_a_kill_between_layers_loses_no_finished_layer(
    make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(images=4, layers=(0, 1, 2))
    add_pairs(made, random_pairs(6, 4))
    monkeypatch.setattr(_predictions, "PUBLISH_BYTES", 1)
    with monkeypatch.context() as broken:
        calls = iter(range(10))
        real = correspondence.nearest
        targets = len({pair.target for pair in random_pairs(6, 4)})

        def dies(*args: Any) -> Any:
            if next(calls) >= 2 * targets:
                raise KeyboardInterrupt
            return real(*args)

        broken.setattr(correspondence, "nearest", dies)
        with pytest.raises(KeyboardInterrupt):
            correspondence.predict(made.store, Request("run", sites=("value",)))
    assert {row[3] for row in matches(made)} == {0, 1}
    outcome = correspondence.predict(made.store, Request("run", sites=("value",)))
    assert (outcome.made, outcome.kept) == (1, 2)
    assert {row[3] for row in matches(made)} == {0, 1, 2}


def test_pairs_of_images_that_come_later_are_matched_later(make_store: Make) -> None:
    made = make_store(images=4)
    points = {"a": ((1.0, 1.0), (2.0, 2.0))}
    add_pairs(made, [Pair(1, 2, points), Pair(3, 4, points)])
    with made.store.publish() as con:
        con.execute("create temp table later as from token_grid where image_id = 4")
        con.execute("delete from token_grid where image_id = 4")
        later = con.execute("from later").fetchall()
    assert correspondence.predict(made.store, Request("run")).items == 1
    with made.store.publish() as con:
        con.executemany(f"insert into token_grid values ({', '.join('?' * 14)})", later)
    outcome = correspondence.predict(made.store, Request("run"))
    assert (outcome.made, outcome.kept, outcome.items) == (4, 0, 2)
    assert len(matches(made)) == 2 * 2 * 2 * 2


def test_pck_and_its_interval_equal_numpys(make_store: Make) -> None:
    made = make_store(images=30, layers=(0,), heads=2, sites=("value",))
    pairs = random_pairs(60, 30, seed=3)
    add_pairs(made, pairs)
    correspondence.predict(made.store, Request("run"))
    found = scores(made)
    for head in range(2):
        rows = [row for row in matches(made) if row[4] == head]
        for alpha in (0.05, 0.10, 0.15):
            hits, points = hits_by_pair(pairs, rows, alpha)
            units = images_of(pairs)
            check(found[f"pck@{alpha:.2f}", "value", 0, head], hits, points, units)
            check(found[f"pck_image@{alpha:.2f}", "value", 0, head], hits / points, np.ones(60), units)


def test_the_best_layer_is_chosen_on_one_half_of_the_images_and_scored_on_the_other(make_store: Make) -> None:
    """Pairs of two images of a half are on that half, those of one of each on none."""
    made = make_store(images=40, layers=(0, 1), heads=2, sites=("value",))
    pairs = random_pairs(160, 40, seed=4)
    add_pairs(made, pairs)
    correspondence.predict(made.store, Request("run"))
    with made.store.connect() as con:
        odd = np.array([con.execute("select hash(?::bigint) % 2", [n]).fetchone()[0] for n in range(41)])
    odd_images = odd[images_of(pairs)].sum(1)
    choosing, scoring, mixed = (odd_images == n for n in (0, 2, 1))
    units = images_of(pairs)[scoring]
    places = [(layer, head) for layer in (0, 1) for head in (0, 1)]
    rows = run_analysis(made.store, "best_layer", {"run": "run"}).to_pylist()
    rows = [row for row in rows if not row["metric"].startswith("pck_image")]
    alphas = ("0.05", "0.10", "0.15")
    sites = ("value", "chance", "position")
    assert [(r["metric"], r["site"]) for r in rows] == [(f"pck@{a}", site) for a in alphas for site in sites]
    for row in (row for row in rows if row["site"] == "value"):
        of = {p: [r for r in matches(made) if (r[3], r[4]) == p] for p in places}
        alpha = float(row["metric"].removeprefix("pck@"))
        counted = {p: hits_by_pair(pairs, found, alpha) for p, found in of.items()}
        chosen_on = {
            p: hits[choosing].sum() / points[choosing].sum() for p, (hits, points) in counted.items()
        }
        best = max(places, key=lambda p: (chosen_on[p], -p[0], -p[1]))
        assert (row["layer"], row["head"], row["n"]) == (*best, scoring.sum())
        assert row["left_out"] == mixed.sum() > 60
        assert row["chosen_on"] == pytest.approx(chosen_on[best])
        hits, points = (figure[scoring] for figure in counted[best])
        check(tuple(row[name] for name in FOUND), hits, points, units)
    for row in (row for row in rows if row["site"] == "position"):  # beside them, on the same other half
        assert (row["layer"], row["head"], row["chosen_on"]) == (None, None, None)
        alpha = float(row["metric"].removeprefix("pck@"))
        hits, points = (f[scoring] for f in hits_by_pair(pairs, matches(made, floor=True), alpha))
        check(tuple(row[name] for name in FOUND), hits, points, units)


def test_position_only_takes_the_patch_at_the_same_relative_place(make_store: Make) -> None:
    """Source 40 x 30 pixels; target 100 x 60 in a grid of 4 rows x 5 columns: cells 20 wide, 15 high."""
    made = make_store(images=2, sites=("value",))
    with made.store.publish() as con:
        con.execute("update image set width = 100, height = 60 where image_id = 2")
        con.execute(
            "update token_grid set rows = 4, columns = 5, x1 = 100, y1 = 60, first_patch = 7"
            " where image_id = 2"
        )
    # (10, 15) -> (25, 30): column 1, row 2; (39, 1) -> (97.5, 2): column 4, row 0
    points = {"a": ((10.0, 15.0), (0.0, 0.0)), "b": ((39.0, 1.0), (0.0, 0.0))}
    add_pairs(made, [Pair(1, 2, points)])
    with made.store.connect() as con:
        placed = read_points(con, "run")
    assert placed.same_place.tolist() == [11, 4]
    centres = correspondence.Patches(placed)
    x, y, number = centres.places(placed.same_place)
    assert (x.tolist(), y.tolist(), number.tolist()) == ([30, 90], [37.5, 7.5], [18, 11])


def test_position_only_is_matched_and_scored_beside_what_was_asked_for(make_store: Make) -> None:
    made = make_store()
    # Between equal images: patches 0 (5, 5) and 6 (25, 15); box of longer side 40, so that 0.10 is 4 pixels.
    points = {"near": ((1.0, 9.0), (5.0, 9.0)), "far": ((29.0, 10.0), (25.0, 11.0 - 0.1))}
    add_pairs(made, [Pair(1, 2, points)])
    correspondence.predict(made.store, Request("run", sites=("key",), layers=(1,)))
    assert matches(made, floor=True) == [
        (1, "far", "position", 0, None, 6, 25.0, 15.0, 0.0),
        (1, "near", "position", 0, None, 0, 5.0, 5.0, 0.0),
    ]
    found = scores(made)
    assert found["pck@0.10", "position", 0, None][0] == 0.5  # at 4.0 exactly, and at 4.1
    assert found["pck@0.05", "position", 0, None][0] == 0.0
    assert found["pck@0.15", "position", 0, None][0] == 1.0


def test_chance_is_the_mean_over_all_patches_of_the_target(make_store: Make) -> None:
    made = make_store(images=30, sites=("value",), layers=(0,), heads=1)
    pairs = random_pairs(60, 30, seed=8)
    add_pairs(made, pairs)
    correspondence.predict(made.store, Request("run"))
    found = scores(made)
    for alpha in (0.05, 0.10, 0.15):
        hits, points = np.zeros(60), np.zeros(60)
        for n, pair in enumerate(pairs):
            reach = alpha * max(pair.target_box[2:])
            for _, (x, y) in pair.points.values():
                hits[n] += np.mean([np.hypot(cx - x, cy - y) <= reach for cx, cy in CENTRES])
                points[n] += 1
        units = images_of(pairs)
        check(found[f"pck@{alpha:.2f}", "chance", 0, None], hits, points, units)
        check(found[f"pck_image@{alpha:.2f}", "chance", 0, None], hits / points, np.ones(60), units)


def test_a_store_matched_before_there_were_floors_gets_them(make_store: Make) -> None:
    made = make_store()
    add_pairs(made, random_pairs(3, 3))
    correspondence.predict(made.store, Request("run"))
    whole = scores(made)
    with made.store.publish() as con:
        for table in ("match", "score"):
            con.execute(f"delete from {table} where site in ('position', 'chance')")
    outcome = correspondence.predict(made.store, Request("run"))
    assert (outcome.made, outcome.rows) == (0, len(matches(made, floor=True)))
    assert {place: pytest.approx(figures) for place, figures in whole.items()} == scores(made)


def test_bilinear_stands_beside_patches_and_neither_is_taken_for_the_other(make_store: Make) -> None:
    made = make_store(images=4, layers=(0,), sites=("value",))
    pairs = random_pairs(8, 4, seed=2)
    add_pairs(made, pairs)
    points = sum(len(pair.points) for pair in pairs)
    correspondence.predict(made.store, Request("run"))
    before, figures = matches(made), scores(made)
    outcome = find("correspondence-bilinear").predict(made.store, Request("run"))
    assert (outcome.made, outcome.kept, outcome.rows) == (1, 0, points * 3)  # two heads, and position
    with made.store.connect() as con:
        rows = con.execute("select probe, count(*) from match group by all order by all").fetchall()
        patches = con.execute(
            "select x, y, patch from match where probe = 'correspondence-bilinear'"
        ).fetchall()
        kept = con.execute(
            "select * exclude (run_id, probe) from match where probe = 'correspondence'"
            " and site <> 'position' order by all"
        ).fetchall()
        told = con.execute(
            "select probe, count(*), count(value) from score group by all order by all"
        ).fetchall()
    assert rows == [("correspondence", points * 3), ("correspondence-bilinear", points * 3)]
    assert kept == before
    assert told == [("correspondence", 24, 24), ("correspondence-bilinear", 24, 24)]  # 6 x 2 heads and floors
    assert all(patch == int(y // 10) * 4 + int(x // 10) for x, y, patch in patches)
    assert all(x == int(x) and y == int(y) for x, y, _ in patches)
    assert any((x - 5) % 10 or (y - 5) % 10 for x, y, _ in patches)
    again = find("correspondence-bilinear").predict(made.store, Request("run"))
    assert (again.made, again.kept, again.rows) == (0, 1, 0)
    assert len(figures) == 24


def test_chance_of_bilinear_is_the_mean_over_all_pixels_of_the_target(make_store: Make) -> None:
    made = make_store(images=5, sites=("value",), layers=(0,), heads=1)
    pairs = random_pairs(20, 5, seed=8)
    add_pairs(made, pairs)
    find("correspondence-bilinear").predict(made.store, Request("run"))
    found = scores(made)
    xs, ys = np.meshgrid(np.arange(40), np.arange(30))
    for alpha in (0.05, 0.10, 0.15):
        hits, points = np.zeros(20), np.zeros(20)
        for n, pair in enumerate(pairs):
            for _, (x, y) in pair.points.values():
                hits[n] += (np.hypot(xs - x, ys - y) <= alpha * max(pair.target_box[2:])).mean()
                points[n] += 1
        check(found[f"pck@{alpha:.2f}", "chance", 0, None], hits, points, images_of(pairs))


def test_position_of_bilinear_is_the_pixel_at_the_same_relative_place(make_store: Make) -> None:
    """Source 40 x 30 pixels, target 100 x 60 in 4 rows x 5 columns: (39.9, 1) is at (99.75, 2)."""
    made = make_store(images=2, sites=("value",), layers=(0,), heads=1)
    with made.store.publish() as con:
        con.execute("update image set width = 100, height = 60 where image_id = 2")
        con.execute(
            "update token_grid set rows = 4, columns = 5, x1 = 100, y1 = 60, first_patch = 7"
            " where image_id = 2"
        )
    add_pairs(made, [Pair(1, 2, {"a": ((10.5, 15.0), (0.0, 0.0)), "b": ((39.9, 1.0), (0.0, 0.0))})])
    with made.store.connect() as con:
        way = correspondence_bilinear.Pixels(read_points(con, "run"))
    x, y, number = way.places(way.same_place)
    assert (x.tolist(), y.tolist(), number.tolist()) == ([26, 99], [30, 2], [7 + 2 * 5 + 1, 7 + 4])


def hits_by_pair(
    pairs: list[Pair], rows: list[tuple[Any, ...]], alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    hits, points = np.zeros((2, len(pairs)))
    for number, name, _, _, _, _, x, y, _ in rows:
        pair = pairs[number - 1]
        truth = pair.points[name][1]
        x0, y0, x1, y1 = pair.target_box
        hits[number - 1] += np.hypot(x - truth[0], y - truth[1]) <= alpha * max(x1 - x0, y1 - y0)
        points[number - 1] += 1
    return hits, points


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"run_id": "rum"}, "no run named 'rum'; did you mean 'run'"),
        ({"run_id": "run", "sites": ("valeu",)}, "no site named 'valeu'; did you mean 'value'"),
        ({"run_id": "run", "sites": ("input",)}, "no stored site named 'input'"),
        ({"run_id": "run", "layers": (0, 7)}, "no layer 7 .* nearest is 1"),
        ({"run_id": "run", "heads": "bot"}, "did you mean 'both'"),
        ({"run_id": "run", "device": "cudo"}, "device 'cudo' cannot be used"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(
    three: Made, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises((UnknownNameError, UsageError), match=message):
        correspondence.predict(three.store, Request(**request_))
    assert matches(three) == []


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three images and three pairs, not matched."""
    made = make(tmp_path_factory.mktemp("three") / "store")
    add_pairs(made, random_pairs(3, 3))
    return made


def test_a_data_set_without_pairs_names_one_that_has(make_store: Make) -> None:
    made = make_store()
    with made.store.publish() as con:
        con.execute(
            "insert into dataset (dataset_id, name, split, fingerprint, images) values ('o','birds','','g',0)"
        )
        con.execute("insert into pair values ('o', 1, 'crow', 1, 2, 0, 0, 1, 1, 0, 0, 1, 1)")
    with pytest.raises(
        UsageError, match="'set' of run 'run' has no pairs of keypoints; use a run of 'birds'"
    ):
        correspondence.predict(made.store, Request("run"))


def test_pairs_of_images_that_are_not_in_the_run_are_said_to_be_missing(make_store: Make) -> None:
    made = make_store()
    add_pairs(made, [Pair(1, 99, {"a": ((1.0, 1.0), (1.0, 1.0))})])
    with pytest.raises(UsageError, match=r"none of the 1 pairs .* --limit"):
        correspondence.predict(made.store, Request("run"))


def test_probes_are_the_files_of_their_folder_and_each_has_its_symbol() -> None:
    assert "correspondence" in listing()
    assert all(callable(find(name).predict) for name in listing())
    with pytest.raises(UnknownNameError, match="did you mean 'correspondence'"):
        find("corespondence")
