"""`kvstore backup`: copy a store while others write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kvstore.outside import local_path


def command(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.", parser=local_path)],
    folder: Annotated[
        Path, typer.Argument(metavar="DEST", help="Where to copy it: a new folder.", parser=local_path)
    ],
) -> int:
    """Copy a store while others write, as one snapshot.

    The copy is a store of its own: to restore it, use it, or copy it back with the same command. It has all
    but the reports, and shares no file with the other. It appears when all of it is there and is held to the
    checksums; ended before, the same command goes on. Exit code 1 where something was broken in the store
    already: it is named, and is so in the copy, too.

    Example: kvstore backup ./s /backups/s-monday
    """
    from kvstore.backup import backup
    from kvstore.store import Store

    done = backup(Store.open(store), folder)
    for verdict in done.verdicts:
        for line in filter(None, (verdict.doubt, verdict.first and f"run {verdict.run_id}: {verdict.first}")):
            print(line, file=sys.stderr)
    images = sum(verdict.images for verdict in done.verdicts)
    print(f"{folder}: {len(done.verdicts)} runs, {images} images, {done.size / 1e9:.3f} GB", file=sys.stderr)
    return int(any(verdict.broken for verdict in done.verdicts))
