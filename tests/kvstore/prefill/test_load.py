"""The report of a load: what is in the catalog, and notes that are neither lost nor told twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvstore import cli, datasets, query
from kvstore.contracts import (
    Annotations,
    Clip,
    Dataset,
    Expression,
    ImageRecord,
    Keypoint,
    Note,
    Object,
    Pair,
    PairKeypoint,
    Question,
)
from kvstore.export import export
from kvstore.masks import from_array
from kvstore.prefill import across
from kvstore.prefill import ingest as engine
from kvstore.prefill.ingest import Meter, Outcome
from kvstore.store import Store
from tests import ingesting
from tests.ingesting import assert_clean, pictures
from tests.tiny import noise

BOX = (0.0, 0.0, 9.0, 9.0)


def thing(number: int, **instead: Any) -> Object:
    return dataclasses.replace(Object(number, "cat", BOX, 81.0), **instead)


def dataset(folder: Path, said: dict[str, Annotations], **more: Any) -> Dataset:
    """A data set of the pictures in `folder`, of which `said` says something."""

    def record(name: str) -> ImageRecord:
        return ImageRecord(
            name, datasets.read_file(folder, name), lambda w, h, o: said.get(name, Annotations())
        )

    names = sorted(path.name for path in folder.iterdir())
    return Dataset("made", "", [record(name) for name in names], folder, **more)


def ingest(root: Path, made: Dataset, limit: int | None = None) -> tuple[Store, Outcome]:
    """Ingest a data set made by hand, as `datasets.load` would give it."""
    store, meter = Store.open(root, create=True), Meter()
    asked = engine.plan(ingesting.options(made.root, sites=("input",), layers=None, limit=limit))
    if limit:
        made = dataclasses.replace(made, images=datasets.First(made.images, limit))
    plan = dataclasses.replace(asked, dataset=made, dataset_fingerprint=datasets.fingerprint(made))
    return store, engine.ingest(store, plan, engine.look(plan, meter), meter)


def notes(store: Store) -> list[tuple[Any, ...]]:
    rows = query.run_analysis(store, "load_notes").to_pylist()
    return [
        (r["outcome"], r["kind"], r["count"], r["images"], r["first_place"])
        for r in rows
        if r["outcome"] != "read"
    ]


def read(store: Store) -> dict[str, int]:
    rows = query.run_analysis(store, "load_notes").to_pylist()
    return {row["kind"]: row["count"] for row in rows if row["outcome"] == "read"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return pictures(tmp_path / "images", [(60, 60), (80, 50), (50, 80)])


def test_notes_of_images_stay_and_are_not_doubled_when_more_is_read(images: Path, tmp_path: Path) -> None:
    said = {
        "00.png": Annotations((thing(1),), notes=(Note("bad masks", "a.json, 1", 2),)),
        "02.png": Annotations(notes=(Note("bad masks", "a.json, 7"), Note("flat masks", "b", lost=False))),
    }
    made = dataset(images, said, notes=[Note("rows of no image", "a.json, 9", 4)])
    store, outcome = ingest(tmp_path / "s", made, limit=2)
    few = [("left out", "rows of no image", 4, 0, "a.json, 9"), ("left out", "bad masks", 2, 1, "a.json, 1")]
    assert notes(store) == few
    assert outcome.load.lost
    for _ in range(2):  # the second time nothing is annotated again
        store, outcome = ingest(tmp_path / "s", made)
        assert notes(store) == [
            few[0],
            ("left out", "bad masks", 3, 2, "a.json, 1"),
            ("mended", "flat masks", 1, 1, "b"),
        ]
        assert outcome.load.lost
        assert outcome.load.read == read(store) == {"images": 3, "objects": 1}
    assert_clean(store)


def test_notes_of_the_files_as_a_whole_replace_the_former_ones(images: Path, tmp_path: Path) -> None:
    made = dataset(images, {}, notes=[Note("null captions", "a.json, 9", 4)])
    ingest(tmp_path / "s", made)
    store, outcome = ingest(tmp_path / "s", dataclasses.replace(made, notes=[Note("x", "y", lost=False)]))
    assert notes(store) == [("mended", "x", 1, 0, "y")]
    assert not outcome.load.lost


def test_what_is_dropped_takes_its_notes_along(images: Path, tmp_path: Path) -> None:
    store, outcome = ingest(tmp_path / "s", dataset(images, {}, notes=[Note("null captions", "a", 4)]))
    store.drop(outcome.run_id)
    assert ingesting.query(store, "from load_note") == []


def test_what_a_recipe_gives_twice_in_an_image_goes_in_once_and_is_noted(
    images: Path, tmp_path: Path
) -> None:
    points = (Keypoint("ear", 1, 1), Keypoint("ear", 2, 2))
    objects = (thing(1, keypoints=points), thing(1, category="dog"), thing(2))
    words = (Expression(2, "the cat"), Expression(3, "the cow"))
    store, outcome = ingest(
        tmp_path / "s", dataset(images, {"00.png": Annotations(objects, expressions=words)})
    )
    assert ingesting.query(store, "select object_id, category from object order by all") == [
        (1, "cat"),
        (2, "cat"),
    ]
    assert ingesting.query(store, "select name, x from keypoint") == [("ear", 1)]
    assert ingesting.query(store, "select text from expression") == [("the cat",)]
    assert sorted(row[1:3] for row in notes(store)) == [
        ("expressions of an object that their image does not have", 1),
        ("keypoints met twice in an image", 1),
        ("objects met twice in an image", 1),
    ]
    assert outcome.load.lost
    assert_clean(store)


@pytest.mark.parametrize("limits", [(None,), (1, None)])
def test_two_names_of_one_picture_say_what_both_say(tmp_path: Path, limits: tuple[int | None, ...]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        noise((60, 60), 1).save(folder / name)
    left = from_array([[1, 0]] * 2)
    right = from_array([[0, 1]] * 2)
    said = {
        "a.png": Annotations((thing(1), thing(2)), ("one", "two", "one"), (Expression(1, "it"),), left),
        "b.png": Annotations((thing(1), thing(3)), ("two", "three"), (Expression(1, "that"),), left),
        "c.png": Annotations((thing(2, area=5.0),), (), (), right),
    }
    for limit in limits:
        store, _ = ingest(tmp_path / "s", dataset(folder, said), limit)
    assert ingesting.query(store, "select object_id, area from object order by all") == [
        (1, 81.0),
        (2, 81.0),
        (3, 81.0),
    ]
    captions = ingesting.query(store, "select number, text from caption order by number")
    assert captions == [(0, "one"), (1, "two"), (2, "one"), (3, "three")]
    assert ingesting.query(store, "select number, text from expression order by all") == [
        (0, "it"),
        (1, "that"),
    ]
    assert notes(store) == [
        ("left out", "objects of a copy of an image, other than the first copy's", 1, 1, "c.png"),
        ("left out", "voids of a copy of an image, other than the first copy's", 1, 1, "c.png"),
    ]
    assert_clean(store)


def test_what_spans_images_and_can_never_go_in_is_noted(images: Path, tmp_path: Path) -> None:
    ear = PairKeypoint("ear", (1, 1), (2, 2))
    pair = Pair(1, "00.png", "01.png", "cat", BOX, BOX, (ear, ear))
    replace = dataclasses.replace
    questions = [Question(5, ("00.png",), "free", "What?", "that"), Question(6, ("x.png",), "free", "?", "!")]
    made = dataset(
        images,
        {},
        pairs=[pair, replace(pair, category="dog"), replace(pair, pair_id=2, target="x.png")],
        questions=[*questions, replace(questions[0], text="Where?")],
        clips=[Clip("walk", ("00.png", "x.png", "y.png")), Clip("walk", ("02.png",))],
    )
    store, _ = ingest(tmp_path / "s", made)
    assert read(store) == {"images": 3, "pairs": 1, "questions": 1, "clips": 1}
    assert sorted(row[1:] for row in notes(store)) == [
        ("clips met twice", 1, 0, "clip walk"),
        ("frames of clips that the data set does not list as images", 2, 0, "clip walk: x.png"),
        ("keypoints met twice in a pair", 1, 0, "pair 1: ear"),
        ("pairs met twice", 1, 0, "pair 1"),
        ("pairs of images that the data set does not list", 1, 0, "pair 2: x.png"),
        ("questions met twice", 1, 0, "question 5"),
        ("questions of images that the data set does not list", 1, 0, "question 6: x.png"),
    ]
    assert ingesting.query(store, "select category from pair") == [("cat",)]
    assert ingesting.query(store, "select text from question") == [("What?",)]


def test_a_limit_is_no_reason_for_a_note(images: Path, tmp_path: Path) -> None:
    pair = Pair(1, "00.png", "01.png", "cat", BOX, BOX, ())
    made = dataset(images, {}, pairs=[pair], clips=[Clip("walk", ("00.png", "01.png"))])
    store, _ = ingest(tmp_path / "s", made, limit=1)
    assert notes(store) == []
    assert read(store) == {"images": 1, "clips": 1}


def test_texts_with_half_a_character_are_written_out(images: Path, tmp_path: Path) -> None:
    half = "a cat \ud83d"
    said = Annotations((thing(1, category=half, keypoints=(Keypoint(half, 1, 1),)),), (half, "größer"))
    asked = Question(5, ("00.png",), "free", half, half, (half, "b"))
    made = dataset(images, {"00.png": said}, questions=[asked], categories={1: half})
    store, outcome = ingest(tmp_path / "s", made)
    written = "a cat \\ud83d"
    assert ingesting.query(store, "select text from caption order by number") == [(written,), ("größer",)]
    for column in ("object.category", "category.name", "keypoint.name", "question.text", "question.answer"):
        assert ingesting.query(store, f"select {column} from {column.partition('.')[0]}") == [(written,)]
    assert ingesting.query(store, "select options from question") == [([written, "b"],)]
    assert [(note.count, note.lost) for note in outcome.load.notes] == [(7, False)]


# ------------------------------------------------------------------------------------------ as it is typed


@pytest.fixture
def run(monkeypatch: Any, capsys: Any, images: Path) -> Callable[..., tuple[int, str]]:
    """`run(said, "--dry-run")`: exit code and stderr of an ingest of a data set that loses something."""
    said = {"00.png": Annotations((thing(1),), notes=(Note("bad masks", "a.json,\n1", 2),))}
    made = dataset(images, said, notes=[Note("null captions", "a.json, 9", 4)])
    monkeypatch.setattr(datasets, "load", lambda *a, **k: made)

    def call(*typed: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([*map(str, typed)])
        return int(caught.value.code or 0), capsys.readouterr().err

    return call


def test_a_load_that_loses_something_is_told_each_time_with_exit_code_1(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    typed = ("ingest", "folder", "--model", "tiny-onevision", "--layers", "0", "--sites", "value")
    typed += ("--store", str(tmp_path / "s"))
    code, said = run(*typed, "--dry-run")
    assert code == 0
    assert said.splitlines()[-1] == "left out   4 null captions (first: a.json, 9)"
    for _ in range(2):
        code, said = run(*typed)
        assert code == 1
        assert said.splitlines()[-2:] == [
            f"read       3 images, 1 objects; kvstore sql --store {tmp_path / 's'} load_notes",
            "left out   4 null captions (first: a.json, 9), 2 bad masks (first: a.json, 1)",
        ]


def test_an_export_tells_what_is_not_in_it(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, said = run("export", "folder", "coco", str(tmp_path / "out"))
    assert code == 1
    assert "left out   4 null captions (first: a.json, 9), 2 bad masks" in said
    assert list(export("folder", "folder", tmp_path / "plain").notes) == [
        Note("null captions", "a.json, 9", 4)
    ]


def test_notes_across_images_follow_from_the_data_set_alone(images: Path) -> None:
    assert across.sift(dataset(images, {})).notes == []


def test_pairs_are_drawn_before_the_catalog_is_held(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, drawn = [False], list[bool]()
    publish = Store.publish

    @contextmanager
    def watched(store: Store) -> Iterator[Any]:
        with publish(store) as con:
            held[0] = True
            yield con
            held[0] = False

    class Drawn(list[Pair]):
        def __iter__(self) -> Iterator[Pair]:
            drawn.append(held[0])
            return super().__iter__()

    monkeypatch.setattr(Store, "publish", watched)
    shared = (PairKeypoint("eye", (1.0, 2.0), (3.0, 4.0)),)
    store, _ = ingest(
        tmp_path / "s",
        dataset(images, {}, pairs=Drawn([Pair(7, "00.png", "01.png", "cat", BOX, BOX, shared)])),
    )
    assert drawn
    assert not any(drawn)
    assert read(store) == {"images": 3, "pairs": 1}
