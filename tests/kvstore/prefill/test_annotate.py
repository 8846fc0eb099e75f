"""What a data set says of its images, in the catalog: against the data set itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore import datasets, recipes
from kvstore.contracts import Clip, Dataset, ImageRecord, Question
from kvstore.prefill import across
from kvstore.prefill.ingest import Outcome
from kvstore.store import Store
from tests.ingesting import assert_clean, ingest, query
from tests.stores import make_store

TABLES = ("object", "keypoint", "caption", "expression", "frame", "pair", "pair_keypoint", "question")


def shapes(root: Path, limit: int, split: str = "test") -> tuple[Store, Outcome]:
    model = "tiny-onevision-untrained"
    wanted = {"model": model, "sites": ("input",), "layers": None, "limit": limit, "split": split}
    return ingest(root, root, dataset="shapes", **wanted)


def everything(store: Store) -> list[object]:
    return [query(store, f"from {table} order by all") for table in (*TABLES, "question_image")]


def assert_questions(store: Store, limit: int) -> None:
    """The questions in the store are the data set's of which all images are among the first `limit`."""
    dataset = datasets.load("shapes")
    names = {dataset.images[number].name for number in range(limit)}
    found = query(
        store,
        """select question_id, list(name order by number), kind, text, answer, options
        from question join question_image using (dataset_id, question_id)
        join dataset_image using (dataset_id, image_id) group by all order by question_id""",
    )
    assert found == [
        (q.question_id, list(q.images), q.kind, q.text, q.answer, list(q.options))
        for q in dataset.questions
        if names.issuperset(q.images)
    ]
    assert query(store, "select count(*) from question") == [(len(found),)]


def test_a_larger_limit_brings_the_questions_that_it_makes_whole(tmp_path: Path) -> None:
    store, _ = shapes(tmp_path, 3)
    assert_questions(store, 3)
    few = query(store, "select count(*) from question where kind = 'style'")[0][0]
    store, _ = shapes(tmp_path, 12)
    assert_questions(store, 12)
    assert query(store, "select count(*) from question where kind = 'style'")[0][0] >= few + 5
    assert_clean(store)


def test_captions_and_expressions_of_each_image(tmp_path: Path) -> None:
    store, outcome = shapes(tmp_path, 4)
    for record in datasets.load("shapes", limit=4).images:
        said = record.annotate(0, 0, 1)
        of_image = f"join dataset_image using (dataset_id, image_id) where name = '{record.name}'"
        captions = query(store, f"select text from caption {of_image} order by number")
        assert captions == [(text,) for text in said.captions]
        found = query(store, f"select object_id, number, text from expression {of_image} order by all")
        ids = sorted({expression.object_id for expression in said.expressions})
        assert found == [
            (id_, number, text)
            for id_ in ids
            for number, text in enumerate(e.text for e in said.expressions if e.object_id == id_)
        ]
    store.drop(outcome.run_id)
    assert [len(rows) for rows in everything(store)] == [0] * (len(TABLES) + 1)


def test_frames_of_clips_and_an_object_that_is_hidden_for_a_while(tmp_path: Path) -> None:
    store, _ = shapes(tmp_path, 18, "clips")
    found = query(
        store,
        "select clip, number, name from frame join dataset_image using (dataset_id, image_id) order by all",
    )
    assert found == [("00", n, f"clips/00/{n:05d}.png") for n in range(16)] + [
        ("01", n, f"clips/01/{n:05d}.png") for n in range(2)
    ]
    per_object = query(
        store,
        "select object_id, count(*) from object join frame using (dataset_id, image_id)"
        " where clip = '00' group by all order by all",
    )
    frames = datasets.load("shapes", split="clips", limit=16).images
    seen = [thing.object_id for frame in frames for thing in frame.annotate(0, 0, 1).objects]
    assert per_object == [(id_, seen.count(id_)) for id_ in sorted(set(seen))]
    assert min(count for _, count in per_object) < 16  # hidden in between
    assert_clean(store)


@pytest.mark.parametrize(
    ("table", "reference", "wrong"),
    [
        ("expression", "object_id", "insert into expression values ('set', 1, 5, 0, 'the cat')"),
        ("frame", "image_id", "insert into frame values ('set', 'walk', 0, 77)"),
        (
            "question",
            "dataset_id",
            "insert into question values ('lost', 1, 'free', '?', '', []);"
            " insert into question_image values ('lost', 1, 0, 1);"
            " insert into dataset_image values ('lost', '1.png', 1, 0)",
        ),
        ("question", "question_id", "insert into question values ('set', 1, 'free', '?', '', [])"),
        ("question_image", "question_id", "insert into question_image values ('set', 1, 0, 1)"),
        (
            "question_image",
            "image_id",
            "insert into question values ('set', 1, 'free', '?', '', []);"
            " insert into question_image values ('set', 1, 0, 77)",
        ),
        (
            "answer",
            "question_id",
            "insert or ignore into condition values ('none', 'as it is', null);"
            " insert into answer values ('run', 1, 'none', 'greedy', 'yes', null)",
        ),
    ],
)
def test_what_refers_to_nothing_is_found(tmp_path: Path, table: str, reference: str, wrong: str) -> None:
    store = make_store(tmp_path, images=1).store
    with store.publish() as con:
        con.execute(wrong)
    check = Path(recipes.SHIPPED, "sql/checks/no_orphans.sql").read_text()
    found = query(store, check)
    assert (table, reference) in [row[:2] for row in found]
    assert len(found) == 1 + ("'lost'" in wrong)


def test_only_what_has_all_its_images_is_stored_and_a_free_answer_has_no_options(tmp_path: Path) -> None:
    store = make_store(tmp_path, images=2).store  # 1.png and 2.png
    questions = (
        Question(5, ("1.png", "2.png"), "free", "What differs?", "the sky"),
        Question(6, ("2.png", "2.png"), "free", "And here?", "nothing"),
        Question(7, ("1.png", "3.png"), "free", "And there?", "all"),
    )
    clips = (Clip("walk", ("3.png", "1.png", "2.png")), Clip("run", ("3.png",)))
    images = [ImageRecord(f"{number}.png", bytes) for number in (1, 2, 3)]
    dataset = Dataset("set", "", images, questions=questions, clips=clips)
    for _ in range(2):
        with store.publish() as con:
            across.store(con, "set", across.sift(dataset), {"1.png": 1, "2.png": 2})
    assert query(store, "select question_id, answer, options from question order by all") == [
        (5, "the sky", []),
        (6, "nothing", []),
    ]
    shown = query(store, "select question_id, number, image_id from question_image order by all")
    assert shown == [(5, 0, 1), (5, 1, 2), (6, 0, 2), (6, 1, 2)]
    assert query(store, "select clip, number, image_id from frame order by all") == [
        ("walk", 1, 1),
        ("walk", 2, 2),
    ]
