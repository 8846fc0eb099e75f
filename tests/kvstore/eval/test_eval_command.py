"""`kvstore eval` over a small store: what is asked, kept, refused and printed."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvstore import cli, recipes
from kvstore.eval import answering
from kvstore.store import Store
from tests.ingesting import assert_clean, ingest, pictures, query
from tests.tiny import noise

KVSTORE = Path(sys.executable).parent / "kvstore"
QUIZ = '"""A quiz about a folder of pictures."""\n\nDATASET = "folder"\nKINDS = {kinds}\n'
Run = Callable[..., tuple[int, str, str]]
#: number, kind, text, answer, options, images
Asked = tuple[int, str, str, str, list[str], list[int]]
QUESTIONS: list[Asked] = [
    (0, "color", "What color is the fish?", "red", ["red", "blue", "green"], [0]),
    (1, "existence", "Is there a fish?", "yes", ["yes", "no"], [0]),
    (2, "existence", "Is there a house?", "no", ["yes", "no"], [1]),
    (3, "style", "Which image is flat?", "second", ["first", "second"], [2, 0]),
    (4, "free", "Describe the picture", "a red fish", [], [1]),
]


def ask(store: Store, questions: Sequence[Asked] = QUESTIONS, dataset: str = "folder") -> None:
    """Put questions into the catalog, as an ingest does; images by their place in the data set."""
    with store.publish() as con:
        images = dict(con.execute("select position, image_id from dataset_image").fetchall())
        for number, kind, text, answer, options, shown in questions:
            con.execute(
                "insert into question values (?, ?, ?, ?, ?, ?)",
                [dataset, number, kind, text, answer, options],
            )
            for place, image in enumerate(shown):
                con.execute(
                    "insert into question_image values (?, ?, ?, ?)", [dataset, number, place, images[image]]
                )


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder of recipes with the benchmark `my-quiz`, laid over the shipped ones."""
    folder = tmp_path / "mine"
    (folder / "ingest/benchmarks").mkdir(parents=True)
    (folder / "ingest/benchmarks/my_quiz.py").write_text(QUIZ.format(kinds="()"))
    monkeypatch.setenv("KVSTORE_RECIPES", str(folder))
    before = list(recipes.__path__)
    recipes.lay_over(folder)
    yield folder
    recipes.__path__[:] = before
    for name in [name for name in sys.modules if name.startswith("kvstore.recipes.ingest.benchmarks")]:
        del sys.modules[name]


@pytest.fixture
def store(tmp_path: Path, mine: Path) -> Store:
    made, _ = ingest(
        tmp_path / "s", pictures(tmp_path / "pictures", [(60, 60), (90, 50), (40, 70)]), run="run", layers="1"
    )
    ask(made)
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run("my-quiz", ...)`: `kvstore eval` in this process on the store; exit code, stdout, stderr."""
    monkeypatch.setenv("KVSTORE_STORE", str(tmp_path / "s"))

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["eval", *map(str, args)])
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err

    return call


def answers(store: Store) -> list[tuple[Any, ...]]:
    return query(store, "select question_id, method, text, option_likelihoods from answer order by all")


def test_every_question_is_answered_by_both_methods_and_once(store: Store, run: Run) -> None:
    code, out, err = run("my-quiz", "--format", "csv", "--max-tokens", "4")
    assert code == 0
    assert "5 questions: 9 answers made, 0 there already" in err
    # 5 greedy prompts and 3 + 2 + 2 + 2 options; images (0), (1), (2, 0)
    assert "14 prompts from 3 prefills of images: 11 saved" in err
    assert "1 questions have no options" in err
    made = answers(store)
    assert [row[:2] for row in made] == sorted(
        (n, method)
        for n, *_, options, _ in QUESTIONS
        for method in answering._METHODS
        if options or method == "greedy"
    )
    for number, method, text, likelihoods in made:
        options = QUESTIONS[number][4]
        if method == "likelihood":
            assert len(likelihoods) == len(options)
            assert text == options[likelihoods.index(max(likelihoods))]
        else:
            assert likelihoods is None
    assert query(store, "select condition, sql from condition") == [("none", None)]
    assert_clean(store)
    totals = [row for row in csv.DictReader(io.StringIO(out)) if row["kind"] == ""]
    assert [(row["method"], row["n"]) for row in totals] == [("greedy", "5"), ("likelihood", "4")]

    code, again, err = run("my-quiz", "--format", "csv")
    assert (code, again) == (0, out)
    assert "0 answers made, 9 there already" in err
    assert answers(store) == made


def test_what_is_asked_can_be_narrowed_and_completed_later(store: Store, run: Run) -> None:
    assert run("my-quiz", "--limit", "2", "--method", "likelihood")[0] == 0
    assert [row[:2] for row in answers(store)] == [(0, "likelihood"), (1, "likelihood")]
    assert "2 questions: 2 answers made, 2 there already" in run("my-quiz", "--limit", "2")[2]
    assert "5 questions: 5 answers made, 4 there already" in run("my-quiz")[2]


def test_kinds_choose_a_benchmarks_questions(store: Store, run: Run, mine: Path) -> None:
    (mine / "ingest/benchmarks/yes_no.py").write_text(QUIZ.format(kinds='("existence",)'))
    assert "2 questions: 4 answers made" in run("yes-no")[2]


def test_a_question_whose_images_are_not_all_stored_is_not_asked(store: Store, run: Run) -> None:
    with store.publish() as con:
        con.execute("delete from token_grid where image_id = (select max(image_id) from token_grid)")
    assert "4 questions:" in run("my-quiz", "--method", "greedy")[2]
    assert 3 not in [row[0] for row in answers(store)]


def test_an_image_that_has_changed_costs_its_questions_only(store: Store, run: Run, tmp_path: Path) -> None:
    noise((60, 60), 99).save(tmp_path / "pictures/00.png")
    code, _, err = run("my-quiz", "--method", "greedy")
    assert code == 1
    assert "'00.png' has changed since it was ingested" in err
    assert [row[0] for row in answers(store)] == [2, 4]
    (tmp_path / "pictures/01.png").unlink()
    assert "has no '01.png' any more" in run("my-quiz")[2]


def test_the_prefix_and_the_view_change_what_is_read(tmp_path: Path, mine: Path, run: Run) -> None:
    folder = pictures(tmp_path / "pictures", [(60, 60), (90, 50), (40, 70)])
    likelihoods = []
    for name, prefix in (("plain", ""), ("prefix", "Look at the fish. ")):
        store, _ = ingest(tmp_path / "s", folder, run=name, layers="1", prefix=prefix)
        if not prefix:
            ask(store)
        assert run("my-quiz", "--run", name, "--limit", "1", "--method", "likelihood")[0] == 0
    with store.publish() as con:
        con.execute("create temp table kept as from answer")
        likelihoods = con.execute("select option_likelihoods from answer order by run_id").fetchall()
        con.execute("delete from answer where run_id = 'plain'")
    run("my-quiz", "--run", "plain", "--limit", "1", "--method", "likelihood", "--view", "base")
    base = query(store, "select option_likelihoods from answer where run_id = 'plain'")
    assert len({tuple(row[0]) for row in [*likelihoods, *base]}) == 3


def test_a_killed_eval_loses_a_chunk_and_goes_on_to_the_same_answers(
    store: Store, run: Run, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "ANSWERS_PER_PUBLISH", 1)
    real, calls = answering._Work._save, []

    def killed(self: Any, rows: Any) -> None:
        real(self, rows)
        calls.append(len(rows))
        raise KeyboardInterrupt

    monkeypatch.setattr(answering._Work, "_save", killed)
    assert run("my-quiz")[0] == 130
    half = answers(store)
    assert len(half) == calls[0] == 4  # the two questions about the first image, twice
    monkeypatch.setattr(answering._Work, "_save", real)
    assert "5 answers made, 4 there already" in run("my-quiz")[2]
    whole = answers(store)
    assert [row for row in whole if row in half] == half
    with store.publish() as con:
        con.execute("delete from answer")
    run("my-quiz")
    assert answers(store) == whole


def test_mistakes_are_one_line_with_the_nearest_name(store: Store, run: Run) -> None:
    for args, told in (
        (["my-quizz"], "no benchmark named 'my-quizz'; did you mean 'my_quiz'"),
        (["my-quiz", "--run", "rum"], "did you mean 'run'"),
        (["my-quiz", "--method", "greedy,likely"], "did you mean 'likelihood'"),
        (["my-quiz", "--view", "al"], "did you mean 'all'"),
        (["my-quiz", "--limit", "0"], "--limit must be at least 1; got 0"),
        (["my-quiz", "--max-tokens", "0"], "--max-tokens must be at least 1"),
        (["my-quiz", "--dtype", "float61"], "did you mean 'float16'"),
        (
            ["shapes-qa"],
            "shapes-qa asks about shapes, but run 'run' is of folder; make one: kvstore ingest shapes",
        ),
    ):
        code, out, err = run(*args)
        assert (code, out) == (2, "")
        assert told in err
        assert len(err.splitlines()) == 1
    assert answers(store) == []


def test_a_store_without_runs_or_questions_names_the_ingest(
    tmp_path: Path, mine: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "kvstore ingest" in run("my-quiz")[2]  # no store at all
    Store.open(tmp_path / "s", create=True)
    code, _, err = run("my-quiz")
    assert code == 2
    assert "the store has no run yet; `kvstore ingest" in err
    ingest(tmp_path / "s", pictures(tmp_path / "pictures", [(60, 60)]), run="run", layers="1")
    code, _, err = run("my-quiz")
    assert code == 2
    assert "no question whose images it stores (data set folder)" in err


def test_a_model_that_is_another_by_now_is_refused(store: Store, run: Run) -> None:
    with store.publish() as con:
        con.execute("update model set revision = repeat('0', 64)")
    code, _, err = run("my-quiz")
    assert code == 2
    assert "was made with revision 000000000000 of 'tiny-onevision'" in err
