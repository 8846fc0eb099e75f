"""The key of a build: SQL texts, report code, kvstore, and the versions of the data read."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore import __version__
from kvstore.errors import KvstoreError
from kvstore.report.reading import asking, replay
from kvstore.report.recipe import Recipe

if TYPE_CHECKING:
    from kvstore.report.published import Published
    from kvstore.store import Store


def key_of(recipe: Recipe, calls: list[dict[str, Any]]) -> str:
    """sha256 over everything that a build depends on; `calls` are `Query.state`."""
    return fingerprint({"engine": engine(), "report": recipe.sha256, "calls": calls})


def current_key(store: Store, published: Published, recipe: Recipe) -> str | None:
    """The key of the last good build when its inputs are unchanged, else None.

    The same code on the same answers asks the same questions, so asking what it asked then is enough.
    """
    record = published.build(recipe.name)
    if record is None:
        return None
    try:
        with asking(store) as query:
            calls = replay(query, record["calls"])
    except (KvstoreError, TypeError):
        return None  # an analysis that is gone or fails now, or asks otherwise: build, and say so there
    return record["key"] if key_of(recipe, calls) == record["key"] else None


@cache
def engine() -> str:
    """sha256 over this package's files and the libraries that draw."""
    files = sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".css", ".js"))
    drawn_by = [(name, version(name)) for name in ("altair", "vl-convert-python")]
    return fingerprint(
        [__version__, drawn_by, [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]]
    )


def fingerprint(value: Any) -> str:
    """sha256 of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
