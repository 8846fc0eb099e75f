"""Benchmarks: a model answers a data set's questions, in words and by how likely it finds each option.

`kvstore.eval.answering.answer` does it: it reads what is still to be asked (`questions`), the images
(`pictures`) and the prompts (`prompts`), lets the model answer (`forward`), and stores the answers chunk by
chunk. What is right, and how often, is SQL: sql/analyses/answer_accuracy.sql.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kvstore.contracts import VIEWS, View
from kvstore.errors import UnknownNameError, UsageError

__all__ = ["BEST", "METHODS", "Outcome", "Request", "method_list", "view_of"]

#: greedy: the text that the model generates; likelihood: the option that it finds most likely.
METHODS = ("greedy", "likelihood")
#: Analysis shown at the end.
BEST = "answer_accuracy"


def method_list(text: str) -> tuple[str, ...]:
    """The methods of a comma separated list, each once; `UnknownNameError` for what is none."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in METHODS:
            raise UnknownNameError("method", name, METHODS)
    if not names:
        raise UsageError(f"--method names none; give some of {','.join(METHODS)}")
    return tuple(method for method in METHODS if method in names)


def view_of(text: str) -> View:
    """A view; `UnknownNameError` for what is none."""
    for view in VIEWS:
        if text == view:
            return view
    raise UnknownNameError("view", text, VIEWS)


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask: a benchmark's questions of a run, by which methods.

    view         all (default): images as the model's own processor gives them; base: LLaVA's overview only
    limit        only the first so many questions
    batch        most prompts in one forward pass
    max_tokens   most tokens of a generated answer
    dtype        default the run's
    trusted      code of the model's folder may run, as `kvstore.models.load_config` says
    """

    benchmark: str
    run_id: str
    methods: tuple[str, ...] = METHODS
    view: View = "all"
    limit: int | None = None
    batch: int = 32
    max_tokens: int = 16
    device: str | None = None
    dtype: str | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "batch", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1; got {value}")


@dataclass(slots=True)
class Outcome:
    """What was done.

    questions   questions of the benchmark that the run can be asked
    made, kept  answers given now, and found already there; `prompts` of them were read (each option is one)
    prefills    how often images were prefilled for them
    closed      questions left out of likelihood: they have no options
    faults      image name -> why its questions could not be asked
    """

    questions: int = 0
    made: int = 0
    kept: int = 0
    prompts: int = 0
    prefills: int = 0
    closed: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def tell(self) -> Iterable[str]:
        """Lines for people."""
        yield f"{self.questions} questions: {self.made} answers made, {self.kept} there already"
        if self.prefills:
            saved = self.prompts - self.prefills
            yield f"{self.prompts} prompts from {self.prefills} prefills of images: {saved} saved"
        if self.closed:
            yield f"{self.closed} questions have no options, and no likelihoods"
        for name, fault in list(self.faults.items())[:3]:
            yield f"not asked about {name}: {fault}"
        if len(self.faults) > 3:
            yield f"... and {len(self.faults) - 3} images more"
