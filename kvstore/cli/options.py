"""Options that many commands share.

Every option that takes a path has ``parser=local_path``: typer's own would make a folder `s3:` of a URL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kvstore.outside import local_path

Format = Literal["table", "csv", "json", "arrow"]


def use_recipes(folder: Path | None) -> Path | None:
    """Lay a user's recipes over the shipped ones; done by the option itself, before the command runs."""
    if folder is not None:
        from kvstore import recipes
        from kvstore.errors import UsageError

        if not folder.is_dir():
            raise UsageError(f"--recipes {folder}: no such folder")
        recipes.lay_over(folder)
    return folder


StoreOption = Annotated[
    Path,
    typer.Option(
        "--store", envvar="KVSTORE_STORE", help="Folder of the store.", metavar="DIR", parser=local_path
    ),
]
RecipesOption = Annotated[
    Path | None,
    typer.Option(
        "--recipes",
        envvar="KVSTORE_RECIPES",
        callback=use_recipes,
        is_eager=True,
        metavar="DIR",
        parser=local_path,
        help="A folder of recipes (ingest/, sql/, reports/) laid over the shipped one.",
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        help="The data set's folder; default $KVSTORE_DATA/<dataset>, ./data/<dataset>.",
        metavar="DIR",
        parser=local_path,
    ),
]
SplitOption = Annotated[str | None, typer.Option(help="Split; default the data set's first.")]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=local_path,
        help="Of coco: the file that a tool exported, instead of --root, --split.",
    ),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        help="Read what links in the data set's folders lead to, anywhere on this machine: for folders of "
        "links, and hub snapshots. Without it nothing out of them is read.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let Python code of the model's folder run where transformers has no class for it. It can do "
        "all that you can: read it first. Without this no code of a model runs.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", parser=local_path, help="Folder of that file's images; default the file's own folder."
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="table is for reading and may be cut; the others never are.")
]

#: Default of `StoreOption`.
STORE = Path("kvdata")
