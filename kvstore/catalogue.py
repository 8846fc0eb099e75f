"""What a user can name: recipes and the like, found by their files, described by their first line.

Nothing is imported for it: a docstring and a constant are read from the source.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from kvstore import model_files, probes, query, recipes
from kvstore.errors import ModelError, UnknownNameError

COLUMNS = ("kind", "name", "about", "file")
Entry = dict[str, str]


def entries(kind: str | None = None) -> list[Entry]:
    """All entries of one kind, or of every kind; `UnknownNameError` for a kind that is not there."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    return [entry for name in ([kind] if kind else KINDS) for entry in KINDS[name](name)]


def _python(folder: str) -> Callable[[str], Iterator[Entry]]:
    def listed(kind: str) -> Iterator[Entry]:
        for name, path in recipes.listing(folder).items():
            yield _entry(kind, name, _summary(_parse(path)), path)

    return listed


def _probes(kind: str) -> Iterator[Entry]:
    for name, path in probes.listing().items():
        yield _entry(kind, name, _summary(_parse(path)), path)


def _analyses(kind: str) -> Iterator[Entry]:
    for name, path in recipes.listing(query.ANALYSES, ".sql").items():
        yield _entry(kind, name, query.grain(path.read_text(encoding="utf-8")), path)


def _models(kind: str) -> Iterator[Entry]:
    """Every family's aliases and untrained tiny model, then the trained models that come as folders."""
    read: set[str] = set()
    for family, path in recipes.listing("ingest/models").items():
        constants = _constants(_parse(path))
        types = constants.get("MODEL_TYPES", ())
        read.update(map(str, types) if isinstance(types, (tuple, list, set)) else ())
        aliases = constants.get("ALIASES", {})
        for alias, hub_id in aliases.items() if isinstance(aliases, dict) else ():
            yield _entry(kind, alias, f"{hub_id} ({family})", path)
        if isinstance(constants.get("TINY"), str):
            yield _entry(kind, f"{constants['TINY']}-untrained", f"built in, untrained ({family})", path)
    for name, folder in sorted(model_files.shipped().items()):
        yield _entry(kind, name, _trained(folder, read), folder)


def _trained(folder: Path, read: set[str]) -> str:
    """What a trained model's folder holds; `read` are the model types that some family reads."""
    try:
        model_type = model_files.read_config(folder).get("model_type")
    except ModelError as error:  # one damaged folder must not hide the other models
        return str(error)
    if str(model_type) not in read:
        return f"no family reads its model type ({model_type})"
    return f"built in, trained on shapes ({model_type})"


KINDS: dict[str, Callable[[str], Iterator[Entry]]] = {
    "datasets": _python("ingest/datasets"),
    "models": _models,
    "benchmarks": _python("ingest/benchmarks"),
    "probes": _probes,
    "analyses": _analyses,
    "reports": _python("reports"),
    "exports": _python("ingest/exports"),
}


def _entry(kind: str, name: str, about: str, path: Path) -> Entry:
    return {"kind": kind, "name": name, "about": about, "file": str(path)}


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:  # a user's half-written recipe must not hide the others
        return ast.Module(
            body=[ast.Expr(ast.Constant(f"does not parse: line {error.lineno}"))], type_ignores=[]
        )


def _summary(module: ast.Module) -> str:
    return (ast.get_docstring(module) or "").partition("\n")[0]


def _constants(module: ast.Module) -> dict[str, object]:
    """Module-level constants that are literals, by name."""
    found: dict[str, object] = {}
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(targets[0], ast.Name) and isinstance(value, ast.expr):
            try:
                found[targets[0].id] = ast.literal_eval(value)
            except ValueError:
                continue
    return found
