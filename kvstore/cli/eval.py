"""`kvstore eval`: a run's model answers a benchmark's questions."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption, TrustOption


def command(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="A name of `kvstore ls benchmarks`.")],
    run: Annotated[str | None, typer.Option(help="Run; the only one when left out.")] = None,
    method: Annotated[
        str,
        typer.Option(help="greedy (generated text) and likelihood (of each option, its end token included)."),
    ] = "greedy,likelihood",
    limit: Annotated[int | None, typer.Option(help="Only the first so many questions.")] = None,
    view: Annotated[
        str, typer.Option(help="all: images as the model's own processor gives them; base: overviews only.")
    ] = "all",
    batch: Annotated[int, typer.Option(help="Most prompts in one forward pass.")] = 32,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a generated answer.")] = 16,
    device: Annotated[
        str | None, typer.Option(help="cuda, cuda:1, mps, cpu; default the best there is.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default the run's.")
    ] = None,
    trust_remote_code: TrustOption = False,
    format: FormatOption = "table",  # noqa: A002
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> int:
    """Ask a run's model the questions of a benchmark.

    The prompt is the model's own, with the run's prefix before the first image. Prints the accuracy of all
    answers of the run. The same command continues what was interrupted; an answer that is there stays, even
    if it was given with another view, dtype or number of tokens.

    Example: kvstore eval shapes-qa --run shapes-test-tiny-onevision --limit 100
    """
    from kvstore.cli import output
    from kvstore.eval import BEST, Request, method_list, questions, view_of
    from kvstore.query import run_analysis
    from kvstore.store import Store
    from kvstore.stored import only_run

    questions.find(benchmark)
    methods, seen = method_list(method), view_of(view)
    opened = Store.open(store)
    with opened.tables() as con:
        run_id = only_run(con, run)
    request = Request(
        benchmark, run_id, methods, seen, limit, batch, max_tokens, device, dtype, trust_remote_code
    )
    from kvstore.eval.answering import answer

    outcome = answer(opened, request)
    for line in outcome.tell():
        print(line, file=sys.stderr)
    output.write(run_analysis(opened, BEST, {"run": run_id}), format)
    return 1 if outcome.faults else 0
