"""Train the tiny models anew: ``python -m kvstore.recipes.ingest.tiny --work DIR`` (or ``make tiny-models``).

Every stage goes on where it was stopped. At the end the weights stand in --out, by default beside this file.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from . import encoder, loop, sheets, stages
from .whole import replacing

_HERE = Path(__file__).parent
#: Steps of the first family's training that are shipped as checkpoints.
CHECKPOINTS = (150, 500, 1500, 2500, 3000, 3500)


def main(
    work: Annotated[Path, typer.Option(help="Where drawn scenes, states and curves are kept.")],
    out: Annotated[Path, typer.Option(help="Where the trained models are written.")] = _HERE,
    stage: Annotated[
        list[str] | None, typer.Option(help=f"Only these of {', '.join(stages.STAGES)}.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that share each step; 0: 2, or 1 on a GPU.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the weights and of what is drawn by lot.")] = stages.Plan.seed,
) -> None:
    """Train the tiny models.

    Example: python -m kvstore.recipes.ingest.tiny --work /tmp/tiny
    """
    for name in stage or ():
        if name not in stages.STAGES:
            raise typer.BadParameter(f"no stage '{name}'; there are {', '.join(stages.STAGES)}")
    plan = replace(stages.Plan(), seed=seed)
    spread = workers or (1 if torch.cuda.is_available() else 2)
    work.mkdir(parents=True, exist_ok=True)
    for split, count in (("val", plan.held_out), ("train", plan.scenes)):
        sheets.draw(work / "scenes", split, count, stages.FAMILIES, os.cpu_count() or 1)
    for name in stages.STAGES:
        if not stage or name in stage:
            loop.spread(stages.run, spread, name, plan, work)
            ship(name, plan, work, out)


def ship(name: str, plan: stages.Plan, work: Path, out: Path) -> None:
    """Put what a stage made where it is found, with its training curve."""
    if name == "encoder":
        encoder.keep(work, out / "tiny-encoder")
    else:
        kept = {plan.steps[name]: f"tiny-{name}"}
        if name == stages.FIRST:
            kept |= {step: f"tiny-{name}-step-{step:05d}" for step in CHECKPOINTS}
        for step, model in kept.items():
            with replacing(out / model) as aside:
                shutil.copytree(work / "snapshots" / f"tiny-{name}-step-{step:05d}", aside)
    (out / "curves").mkdir(parents=True, exist_ok=True)
    for curve in work.glob(f"{name}*.jsonl"):
        shutil.copy(curve, out / "curves" / curve.name)


if __name__ == "__main__":
    typer.run(main)
