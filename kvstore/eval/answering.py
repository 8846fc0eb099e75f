"""Asking a run's model a benchmark's questions, and storing its answers.

Answers are keyed by run, question, condition and method. View, dtype and the most tokens of an answer are
not: what was answered with others stays as it is. (`delete from answer` in a publish is the way to begin
again.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from kvstore.errors import ImageError, UnknownNameError, UsageError
from kvstore.eval import Outcome, Request, questions
from kvstore.eval.pictures import Pictures
from kvstore.eval.prompts import Group, Prompt, expanded, groups, option_ids
from kvstore.eval.questions import Asked, Subject
from kvstore.progress import track

if TYPE_CHECKING:
    from kvstore.eval.forward import Context
    from kvstore.models import Loaded
    from kvstore.store import Store

#: Answers that wait for one publish of the catalog; a kill loses no more, and those of one group of images.
ANSWERS_PER_PUBLISH = 200
#: The condition under which the model is as it is.
CONDITION, ABOUT = "none", "the model as it is"

_SCHEMA = pa.schema(
    {
        "run_id": pa.string(),
        "question_id": pa.int32(),
        "condition": pa.string(),
        "method": pa.string(),
        "text": pa.string(),
        "option_likelihoods": pa.list_(pa.float64()),
    }
)
Row = dict[str, Any]


def answer(store: Store, request: Request) -> Outcome:
    """Answer what is not answered yet; doing it again changes nothing.

    Raises `UnknownNameError` for the benchmark, `UsageError` when it does not fit the run or has no question,
    `ModelError` when the run's model cannot be had.
    """
    benchmark = questions.find(request.benchmark)
    with store.tables() as con:
        who = questions.subject(con, request.benchmark, benchmark.DATASET, request.run_id)
        asked = questions.read(con, who, request.run_id, CONDITION, benchmark.KINDS, request.limit)
    done = [(method, question) for question in asked for method in request.methods if question.can(method)]
    todo = [(method, question) for method, question in done if question.wants(method)]
    outcome = Outcome(len(asked), kept=len(done) - len(todo))
    outcome.closed = sum(not question.options for question in asked) if "likelihood" in request.methods else 0
    if todo:
        _Work(store, request, who, outcome).run([question for question in asked if _any(question, request)])
    return outcome


def _any(question: Asked, request: Request) -> bool:
    return any(question.wants(method) for method in request.methods)


class _Work:
    """The asking of one request; counts what it does in `outcome`."""

    def __init__(self, store: Store, request: Request, who: Subject, outcome: Outcome) -> None:
        from kvstore.eval.forward import Answerer

        self.store, self.request, self.who, self.outcome = store, request, who, outcome
        self.loaded = _load(request, who)
        self.answerer = Answerer(self.loaded, request.batch)

    def run(self, asked: Sequence[Asked]) -> None:
        """Answer group after group, publishing whenever enough answers wait."""
        pictures = Pictures(self.who.images, {image.name for question in asked for image in question.images})
        waiting: list[Row] = []
        with track(self.request.benchmark, len(asked), "question") as advance:
            for group in groups(self.loaded, asked, self.who.prefix):
                waiting += self._group(group, pictures)
                advance(len(group.prompts))
                if len(waiting) >= ANSWERS_PER_PUBLISH:
                    self._save(waiting)
                    waiting = []
        if waiting:
            self._save(waiting)

    def _group(self, group: Group, pictures: Pictures) -> list[Row]:
        """The rows of the questions about one set of images; none where an image cannot be had."""
        try:
            inputs = pictures.inputs(self.loaded, group.images, self.request.view)
        except ImageError as fault:
            self.outcome.faults[", ".join(image.name for image in group.images)] = str(fault)
            return []
        context = self.answerer.read(expanded(self.loaded, group.start, inputs), inputs)
        self.outcome.prefills += 1
        made: list[Row] = []
        for method in self.request.methods:
            wanted = [prompt for prompt in group.prompts if prompt.question.wants(method)]
            made += _METHODS[method](self, context, wanted) if wanted else []
        return made

    def greedy(self, context: Context, prompts: Sequence[Prompt]) -> list[Row]:
        """What the model writes, special tokens left out."""
        tails = [prompt.tail for prompt in prompts]
        made = self.answerer.generate(context, tails, self.request.max_tokens)
        self.outcome.prompts += len(tails)
        decode = self.loaded.tokenizer.decode
        texts = [decode(ids, skip_special_tokens=True) for ids in made]
        return [self._row(p, "greedy", text) for p, text in zip(prompts, texts, strict=True)]

    def likelihood(self, context: Context, prompts: Sequence[Prompt]) -> list[Row]:
        """The option whose log-likelihood is highest: a sum over its tokens and the end token, no mean."""
        pairs = [
            (prompt.tail, option_ids(self.loaded, option))
            for prompt in prompts
            for option in prompt.question.options
        ]
        self.outcome.prompts += len(pairs)
        found = iter(self.answerer.log_likelihoods(context, pairs))
        made = []
        for prompt in prompts:
            options = prompt.question.options
            each = [next(found) for _ in options]
            made.append(self._row(prompt, "likelihood", options[each.index(max(each))], each))
        return made

    def _row(self, prompt: Prompt, method: str, text: str, each: list[float] | None = None) -> Row:
        return {
            "run_id": self.request.run_id,
            "question_id": prompt.question.question_id,
            "condition": CONDITION,
            "method": method,
            "text": text,
            "option_likelihoods": each,
        }

    def _save(self, rows: list[Row]) -> None:
        run = {"run": self.request.run_id}
        with self.store.publish() as con:
            if not con.execute("select count(*) from run where run_id = $run", run).fetchall()[0][0]:
                raise UnknownNameError("run", run["run"], [], "It was dropped while it was asked.")
            con.execute(
                "insert or ignore into condition (condition, about) values ($name, $about)",
                {"name": CONDITION, "about": ABOUT},
            )
            con.register("made", pa.Table.from_pylist(rows, _SCHEMA))
            con.execute("insert or ignore into answer by name select * from made")
            con.unregister("made")
        self.outcome.made += len(rows)


_METHODS: dict[str, Callable[[_Work, Context, Sequence[Prompt]], list[Row]]] = {
    "greedy": _Work.greedy,
    "likelihood": _Work.likelihood,
}


def _load(request: Request, who: Subject) -> Loaded:
    """The run's model, as `models.load_again` gives it; `UsageError` for an encoder alone."""
    from kvstore import models

    if models.load_config(who.model, trusted=request.trusted).is_encoder:
        raise UsageError(
            f"run '{request.run_id}' is of '{who.model}', a vision encoder alone, which answers no question; "
            "choose a --run of a multimodal model"
        )
    return models.load_again(
        who.model,
        who.revision,
        request.run_id,
        request.device,
        request.dtype or who.dtype,
        whole=True,
        trusted=request.trusted,
    )
