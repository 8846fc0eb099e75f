from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kvstore.cli import main
from kvstore.errors import UnknownNameError, UsageError
from kvstore.search import Query, search
from tests.pairs import write_spans
from tests.stores import Made
from tests.stores import make_store as make

Make = Callable[..., Made]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """5 images of 3 x 4 patches of 10 pixels, all sites."""
    sites = ("value", "key", "input", "encoder")
    made = make(tmp_path_factory.mktemp("search") / "store", images=5, sites=sites, width=16)
    write_spans(made)
    return made


def nearest(vectors: np.ndarray, image: int, patch: int, top: int) -> list[tuple[int, int, float]]:
    """(image_id, patch, cosine) in other images than `image`, in float64, of [images, patches, width]."""
    a = vectors.astype(np.float64)
    cosine = a @ a[image - 1, patch] / np.linalg.norm(a, axis=-1) / np.linalg.norm(a[image - 1, patch])
    cosine[image - 1] = -2
    best = np.argsort(-cosine, axis=None)[:top]
    return [(int(i) // 12 + 1, int(i) % 12, float(cosine.reshape(-1)[i])) for i in best]


@pytest.mark.parametrize(
    ("site", "layer", "head"), [("value", 1, 1), ("key", 0, 0), ("input", 0, None), ("encoder", 1, None)]
)
def test_the_neighbours_are_numpys_at_every_site(made: Made, site: str, layer: int, head: int | None) -> None:
    array = made.vectors["run"][site]
    grid = {"input": lambda: array, "encoder": lambda: array[:, layer]}.get(
        site, lambda: array[:, layer, head]
    )()
    found = search(made.store, Query("2", 7, layer, head, site, top=9))
    expected = nearest(grid, 2, 7, 9)
    assert [(n.image_id, n.patch) for n in found] == [(image, patch) for image, patch, _ in expected]
    assert [n.similarity for n in found] == pytest.approx([cosine for *_, cosine in expected], abs=1e-12)


def test_a_neighbour_says_where_it_lies(made: Made) -> None:
    best = search(made.store, Query("1", 0, 1, 1, top=1))[0]
    row, column = divmod(best.patch, 4)
    assert (best.row, best.column, best.grid, best.run_id) == (row, column, 0, "run")
    assert (best.x0, best.y0, best.x1, best.y1) == (10 * column, 10 * row, 10 * column + 10, 10 * row + 10)
    assert best.name == f"{best.image_id}.png"


def test_the_same_image_takes_part_only_when_asked(made: Made) -> None:
    query = Query("3", 5, 0, 0, same_image=True, top=2)
    first = search(made.store, query)[0]
    assert (first.image_id, first.patch, first.similarity) == (3, 5, pytest.approx(1.0, abs=1e-12))
    assert all(n.image_id != 3 for n in search(made.store, Query("3", 5, 0, 0, top=100)))


def test_all_patches_are_found_when_more_are_wanted_than_there_are(made: Made) -> None:
    assert len(search(made.store, Query("3", 5, 0, 0, top=1000))) == 4 * 12


@pytest.mark.parametrize("image", ["4", "4.png", hashlib.sha256(b"4").hexdigest().upper()])
def test_an_image_is_named_by_id_file_or_content(made: Made, image: str) -> None:
    assert search(made.store, Query(image, 2, 1, 0)) == search(made.store, Query("4", 2, 1, 0))


def test_the_macro_finds_the_same_in_sql(made: Made) -> None:
    found = search(made.store, Query("2", 7, 1, 0, top=6))
    with made.store.connect() as con:
        rows = con.execute("from patch_neighbours('run', 2, 1, 0, 7, 'value', 6)").fetchall()
    assert [(n.image_id, n.patch) for n in found] == [row[:2] for row in rows]
    assert [n.similarity for n in found] == pytest.approx([row[2] for row in rows], abs=1e-6)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query("4.pgn", 0, 0, 0), "no stored image named '4.pgn'; did you mean '4.png'"),
        (Query("1", 12, 0, 0), "--patch must be 0 to 11 .* not 12"),
        (Query("1", 0, 5, 0), "no layer 5 there; the nearest is 1"),
        (Query("1", 0, 0, 2), "--head must be 0 to 1"),
        (Query("1", 0, 0, None), "--head must be 0 to 1"),
        (Query("1", 0, 0, 0, "input"), "'input' has no heads"),
        (Query("1", 0, 0, 0, "vlaue"), "did you mean 'value'"),
        (Query("1", 0, 0, 0, run_id="rum"), "did you mean 'run'"),
    ],
)
def test_a_wrong_name_or_number_is_answered_in_a_line(made: Made, query: Query, message: str) -> None:
    with pytest.raises((UnknownNameError, UsageError), match=message):
        search(made.store, query)


def test_a_store_of_many_runs_wants_a_choice(make_store: Make) -> None:
    made = make_store(runs=("a", "b"))
    write_spans(made)
    with pytest.raises(UsageError, match="2 runs; choose with --run: a, b"):
        search(made.store, Query("1", 0, 0, 0))
    assert {n.run_id for n in search(made.store, Query("1", 0, 0, 0, run_id="b"))} == {"b"}


def test_images_that_the_catalog_does_not_have_yet_are_left_out(make_store: Make) -> None:
    made = make_store(images=5)
    write_spans(made)
    with made.store.publish() as con:
        con.execute("delete from token_grid where image_id = 5")
    assert {n.image_id for n in search(made.store, Query("3", 5, 0, 0, top=1000))} == {1, 2, 4}


def test_the_command_prints_rows(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--image", "2.png", "--patch", "7", "--layer", "1", "--head", "1"]
    with pytest.raises(SystemExit) as exit_:
        main(["search", *place, "--top", "3", "--format", "json", "--store", str(made.store.root)])
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    expected = nearest(made.vectors["run"]["value"][:, 1, 1], 2, 7, 3)
    assert exit_.value.code == 0
    assert [(row["image_id"], row["patch"]) for row in rows] == [e[:2] for e in expected]
    columns = ["run_id", "image_id", "name", "patch", "grid", "row", "column", "x0", "y0", "x1", "y1"]
    assert list(rows[0]) == [*columns, "similarity"]
