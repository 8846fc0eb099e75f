"""Train the tiny models anew: ``python -m kvstore.recipes.ingest.tiny --work DIR`` (or ``make tiny-models``).

Every stage goes on where it was stopped; the weights appear beside this file when a stage is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import loop, sheets, stages

STAGES = ("draw", "encoder", "onevision", "next", "qwen")


def main(
    work: Annotated[Path, typer.Option(help="Where drawn scenes, states and curves are kept.")],
    stage: Annotated[list[str] | None, typer.Option(help=f"Only these of {', '.join(STAGES)}.")] = None,
    workers: Annotated[int, typer.Option(help="Processes of one thread that share each step.")] = 2,
    scenes: Annotated[int, typer.Option(help="Drawn scenes to train on.")] = stages.Plan.scenes,
    steps: Annotated[int, typer.Option(help="Steps of the longest stage.")] = stages.Plan.steps,
    encoder_steps: Annotated[int, typer.Option(help="Steps of the encoder.")] = stages.Plan.encoder_steps,
) -> None:
    """Train the tiny models; everything follows from the seed."""
    plan = stages.Plan(scenes=scenes, steps=steps, encoder_steps=encoder_steps)
    wanted = stage or list(STAGES)
    work.mkdir(parents=True, exist_ok=True)
    if "draw" in wanted:
        for split, count in (("val", stages.HELD_OUT), ("train", plan.scenes)):
            sheets.draw(work / "scenes", split, count, stages.FAMILIES, workers)
    for name in STAGES[1:]:
        if name in wanted:
            loop.spread(stages.run, workers, name, plan, work)


if __name__ == "__main__":
    typer.run(main)
