"""The key of a build: SQL texts, report code, kvstore, and the versions of the data read."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kvstore import __version__
from kvstore.report.recipe import Recipe


def key_of(recipe: Recipe, calls: list[dict[str, Any]]) -> str:
    """sha256 over everything that a build depends on; `calls` are `Answer.state` in order."""
    return fingerprint({"engine": engine(), "report": recipe.sha256, "calls": calls})


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
