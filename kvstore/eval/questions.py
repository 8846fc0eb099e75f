"""What a run is to be asked: a benchmark's questions whose images it stores, less what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from kvstore import datasets, recipes
from kvstore.contracts import BenchmarkRecipe, ImageRecord
from kvstore.errors import UsageError

if TYPE_CHECKING:
    import duckdb

KIND = "ingest/benchmarks"

_RUN = """
select d.name, d.dataset_id, r.prefix, r.dtype, m.source, m.revision
from run r join dataset d using (dataset_id) join model m using (model_id)
where r.run_id = $run
"""
#: An image may stand under several names; any will do, for its content is the same.
_QUESTIONS = """
with stored as (
    select distinct image_id from token_grid where run_id = $run
),
named as (
    select image_id, min(name) as name from dataset_image where dataset_id = $dataset group by image_id
),
shown as (
    select question_id, list(name order by number) as names, list(sha256 order by number) as digests
    from question_image
    join image using (image_id)
    left join named using (image_id)
    where dataset_id = $dataset
    group by question_id
    having bool_and(image_id in (from stored) and name is not null)
),
answered as (
    select question_id, list(method) as methods
    from answer
    where run_id = $run and condition = $condition
    group by question_id
)
select q.question_id, q.text, q.options, s.names, s.digests, coalesce(a.methods, [])
from question q
join shown s using (question_id)
left join answered a using (question_id)
where q.dataset_id = $dataset and (len($kinds::varchar[]) = 0 or list_contains($kinds::varchar[], q.kind))
order by q.question_id
limit $limit
"""
_RUNS_OF = "select run_id from run join dataset using (dataset_id) where dataset.name = $name order by run_id"


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is asked: the run's model and prefix, and the data set that its images come from."""

    dataset: str
    images: Sequence[ImageRecord]
    dataset_id: str
    prefix: str
    dtype: str
    model: str
    revision: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image by name, and the sha256 of the content that the run stores."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its images in order, and the methods by which it is answered already."""

    question_id: int
    text: str
    options: tuple[str, ...]
    images: tuple[Picture, ...]
    answered: frozenset[str]

    def wants(self, method: str) -> bool:
        """Whether it is to be answered by this method; without options there is no likelihood."""
        return method not in self.answered and self.can(method)

    def can(self, method: str) -> bool:
        """Whether it can be answered by this method."""
        return method != "likelihood" or bool(self.options)


def find(name: str) -> BenchmarkRecipe:
    """A benchmark by the name of its file, dashes or underscores; `UnknownNameError` names the nearest."""
    return cast(BenchmarkRecipe, recipes.load(KIND, name))


def subject(con: duckdb.DuckDBPyConnection, benchmark: str, dataset: str, run_id: str) -> Subject:
    """The run's model and data set; `UsageError` when the benchmark is about another data set."""
    name, dataset_id, *rest = con.execute(_RUN, {"run": run_id}).fetchall()[0]
    if name != dataset:
        fitting = [str(run) for (run,) in con.execute(_RUNS_OF, {"name": dataset}).fetchall()]
        what = f"runs of it: {', '.join(fitting)}" if fitting else f"make one: kvstore ingest {dataset}"
        raise UsageError(f"{benchmark} asks about {dataset}, but run '{run_id}' is of {dataset_id}; {what}")
    return Subject(name, datasets.again(con, dataset_id).images, dataset_id, *rest)


def read(
    con: duckdb.DuckDBPyConnection,
    who: Subject,
    run_id: str,
    condition: str,
    kinds: Sequence[str],
    limit: int | None,
) -> list[Asked]:
    """The questions by number; `UsageError` when there is none."""
    given = {
        "run": run_id,
        "dataset": who.dataset_id,
        "condition": condition,
        "kinds": list(kinds),
        "limit": limit,
    }
    found = [
        Asked(
            number,
            text,
            tuple(options),
            tuple(Picture(*pair) for pair in zip(names, digests, strict=True)),
            frozenset(answered),
        )
        for number, text, options, names, digests, answered in con.execute(_QUESTIONS, given).fetchall()
    ]
    if not found:
        raise UsageError(
            f"run '{run_id}' has no question whose images it stores (data set {who.dataset_id}); "
            f"more images may have: kvstore ingest {who.dataset}"
        )
    return found
