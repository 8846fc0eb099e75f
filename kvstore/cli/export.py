"""`kvstore export`, typed as `kvstore DATASET export`, too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kvstore.cli.options import (
    AnnotationsOption,
    FollowLinksOption,
    ImagesOption,
    RecipesOption,
    RootOption,
    SplitOption,
)
from kvstore.outside import local_path


def command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A name of `kvstore ls datasets`.")],
    format: Annotated[  # noqa: A002
        str, typer.Argument(metavar="FORMAT", help="A name of `kvstore ls exports`.")
    ],
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Where to write it: a new or empty folder.", parser=local_path),
    ],
    root: RootOption = None,
    split: SplitOption = None,
    annotations: AnnotationsOption = None,
    images: ImagesOption = None,
    follow_links: FollowLinksOption = False,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    recipes: RecipesOption = None,
) -> int:
    """Write a data set in the layout of another.

    What is written is read by the recipe of that name, and by other tools. Images keep their bytes. The
    folder appears when all of it is written, or not at all. It may be typed as
    `kvstore DATASET export FORMAT DIR`, too.

    Example: kvstore shapes export coco data/shapes-coco --split test --limit 20
    """
    from kvstore.export import export
    from kvstore.notes import told

    written = export(
        dataset,
        format,
        folder,
        root=root,
        split=split,
        limit=limit,
        annotations=annotations,
        images=images,
        follow_links=follow_links,
    )
    name = " ".join(part for part in (dataset, written.split) if part)
    print(f"{name}: {len(written.images)} images written to {folder} as {format}", file=sys.stderr)
    for line in told(written.notes):
        print(line, file=sys.stderr)
    return 1 if any(note.lost for note in written.notes) else 0
