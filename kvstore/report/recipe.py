"""A report's file: its docstring, its label, its protocol and its ``build(query)``."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kvstore import recipes
from kvstore.errors import ReportError
from kvstore.report.blocks import Block

#: What a report must say of its figures.
LABELS = ("observational", "interventional")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One report as its file states it; `about` is the docstring after its first line."""

    name: str
    source: bytes
    title: str
    about: str

    @property
    def sha256(self) -> str:
        """Of the file's bytes."""
        return hashlib.sha256(self.source).hexdigest()


def read(name: str) -> Recipe:
    """Read ``reports/<name>.py`` without running it; `UnknownNameError` or `ReportError`."""
    source = recipes.locate("reports", name).read_bytes()
    try:
        doc = ast.get_docstring(ast.parse(source)) or ""
    except (SyntaxError, ValueError) as error:
        raise ReportError(f"report '{name}' is not Python: {error}") from error
    title, _, about = inspect.cleandoc(doc).partition("\n")
    if not title.strip():
        raise ReportError(f"report '{name}' has no docstring; its first line is the report's title")
    return Recipe(name, source, title.strip().rstrip("."), about.strip())


@dataclass(frozen=True, slots=True)
class Loaded:
    """The running part of a report."""

    label: str
    protocol: str
    build: Callable[[Any], Iterable[Block]]


def load(recipe: Recipe) -> Loaded:
    """Run the very bytes that were read, and so hashed: no import cache can hand out older code."""
    module = ModuleType(f"kvstore.recipes.reports.{recipe.name}")
    exec(compile(recipe.source, f"reports/{recipe.name}.py", "exec"), module.__dict__)
    label = getattr(module, "LABEL", None)
    if label not in LABELS:
        raise ReportError(f"report '{recipe.name}' states LABEL = {label!r}; say one of {', '.join(LABELS)}")
    if not callable(getattr(module, "build", None)):
        raise ReportError(f"report '{recipe.name}' has no function build(query)")
    return Loaded(label, getattr(module, "PROTOCOL", ""), module.build)
