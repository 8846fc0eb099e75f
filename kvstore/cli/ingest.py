"""``kvstore ingest``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvstore import terminal
from kvstore.cli.options import (
    STORE,
    AnnotationsOption,
    FollowLinksOption,
    ImagesOption,
    RecipesOption,
    RootOption,
    SplitOption,
    StoreOption,
    TrustOption,
)
from kvstore.lines import printable

if TYPE_CHECKING:
    from kvstore.prefill.forecast import Forecast
    from kvstore.prefill.ingest import Meter, Outcome

#: What is taken without --model, unless the data set's recipe names another as its `MODEL`.
DEFAULT_MODEL = "llava-onevision-7b"


def command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A name of `kvstore ls datasets`.")],
    root: RootOption = None,
    split: SplitOption = None,
    annotations: AnnotationsOption = None,
    images: ImagesOption = None,
    follow_links: FollowLinksOption = False,
    model: Annotated[
        str | None, typer.Option(help="Alias, hub id, folder, or a tiny model (`kvstore ls models`).")
    ] = None,
    trust_remote_code: TrustOption = False,
    store: StoreOption = STORE,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many images; more can follow later.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Language model layers, e.g. 0-27 or 0,9,18; default all.")
    ] = None,
    encoder_layers: Annotated[
        str | None,
        typer.Option(
            help="Hidden states of the vision encoder, 0 the embeddings; default the last (alone: all)."
        ),
    ] = None,
    sites: Annotated[
        str, typer.Option(help="What to store, of value,key,input,encoder; of an encoder alone: encoder.")
    ] = "value,key,input",
    pool: Annotated[int, typer.Option(help="Average blocks of N x N patches before storing.")] = 1,
    prefix: Annotated[str, typer.Option(help="Text right before the image, verbatim.")] = "",
    view: Annotated[str, typer.Option(help="base: the overview only; all: with AnyRes tiles.")] = "base",
    batch: Annotated[int | None, typer.Option(help="Most images in one forward pass.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cuda, cuda:1, mps, cpu; default the best there is.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default bfloat16 on cuda, else float32.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run; default made of its inputs.")] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding threads.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the forecast and stop.")] = False,
    recipes: RecipesOption = None,
) -> int:
    """Prefill a data set's images and store their keys and values.

    The same command continues what was interrupted, and does nothing when all is there.

    Example: kvstore ingest coco --root data/coco --model tiny-onevision
    """
    from kvstore.contracts import View
    from kvstore.errors import UnknownNameError
    from kvstore.notes import told
    from kvstore.prefill.options import Options, site_list
    from kvstore.store import Store

    if view not in ("base", "all"):
        raise UnknownNameError("view", view, ("base", "all"))
    chosen: View = "all" if view == "all" else "base"
    options = Options(
        dataset=dataset, model=model or _default_model(dataset), root=root, split=split,
        annotations=annotations, images=images, follow_links=follow_links,
        limit=limit, layers=layers, encoder_layers=encoder_layers, sites=site_list(sites), pool=pool,
        prefix=prefix, view=chosen, batch=batch, device=device, dtype=dtype, run=run, workers=workers,
        trusted=trust_remote_code,
    )  # fmt: skip
    with _loading():  # torch and transformers take seconds
        from kvstore import models
        from kvstore.prefill import across
        from kvstore.prefill import ingest as engine

        plan = engine.plan(options)
    if not dry_run:
        models.check_usable(plan.model, plan.device, asked=device is not None)
    opened = None if dry_run and not store.exists() else Store.open(store, create=not dry_run)
    with _bar() as meter:
        seen = engine.look(plan, meter)
        known = engine.stored(opened, plan) if opened else set()
        expected = engine.expect(plan, seen, known, store)
        _tell(expected, len(known))
        if dry_run:
            _print(told(across.sift(plan.dataset).notes))
            return 0
        assert opened is not None
        outcome = engine.ingest(opened, plan, seen, meter)
    _report(outcome, meter, store)
    return 1 if outcome.quarantined or outcome.load.lost else 0


def _default_model(dataset: str) -> str:
    from kvstore import recipes

    return str(getattr(recipes.load("ingest/datasets", dataset), "MODEL", DEFAULT_MODEL))


def _tell(expected: Forecast, already: int) -> None:
    hours, rest = divmod(round(expected.seconds), 3600)
    duration = f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
    lines = [
        f"images     {expected.images}" + (f" (and {already} stored already)" if already else ""),
        f"tokens     {expected.tokens:,}",
        f"rows       {expected.rows:,}",
        f"disk       {expected.bytes / 1e9:.3f} GB of {expected.free / 1e9:.1f} GB free",
        f"time       about {duration}",
    ]
    if expected.refused:
        lines.append(
            f"refused    {expected.refused} images cannot be used (see `kvstore sql quarantine` afterwards)"
        )
    _print(lines)


def _report(outcome: Outcome, meter: Meter, store: Path) -> None:
    from kvstore.notes import told

    speeds = meter.speeds() if meter.images else {}
    lines = [f"run {outcome.run_id}: {outcome.images} images stored"]
    if outcome.already:
        lines[0] += f", {outcome.already} were there already"
    if lost := outcome.salvaged:
        lines.append(f"{len(lost.gone)} of them were lost, as by a power cut, and made again ({lost.why})")
    if speeds:
        lines.append(
            f"{speeds['images_per_s']:.1f} images/s, {speeds['tokens_per_s']:,.0f} tokens/s, "
            f"{speeds['mb_per_s']:.0f} MB/s; {speeds['limiting_stage']} limits"
        )
    lines.append("read       " + ", ".join(f"{count} {kind}" for kind, count in outcome.load.read.items()))
    if outcome.load.notes:
        lines[-1] += f"; kvstore sql --store {store} load_notes"
    lines += told(outcome.load.notes)
    if outcome.quarantined:
        lines.append(f"{outcome.quarantined} images in quarantine: kvstore sql --store {store} quarantine")
    _print(lines)


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(printable(line), file=sys.stderr)


def _loading() -> AbstractContextManager[object]:
    """A spinner on stderr, where that is a terminal."""
    console = terminal.console()
    return console.status("loading") if console.is_terminal else nullcontext()


@contextmanager
def _bar() -> Iterator[Meter]:
    """A meter drawn as a progress bar on stderr, where that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from kvstore.prefill.ingest import Meter

    console = terminal.console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[speeds]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, speeds="")

        def changed(meter: Meter) -> None:
            progress.update(
                task, description=meter.phase, total=meter.total, completed=meter.done, speeds=_speeds(meter)
            )

        yield Meter(changed)


def _speeds(meter: Meter) -> str:
    if not meter.images:
        return ""
    now = meter.speeds()
    told = (
        f"{now['images_per_s']:.1f} images/s  {now['tokens_per_s']:,.0f} tokens/s  {now['mb_per_s']:.0f} MB/s"
    )
    return told + (f"  {meter.stage} limits" if meter.stage else "")
