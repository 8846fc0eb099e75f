"""The public API, and the one way in which imports point, read from the sources."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import kvstore
from kvstore import errors

ROOT = Path(__file__).parents[1]
HEAVY = "{'torch', 'transformers', 'duckdb', 'lance', 'altair', 'pyarrow', 'numpy', 'polars'}"


# ------------------------------------------------------------------------------------------ public API


def test_the_public_api_is_sorted_and_whole():
    assert kvstore.__all__ == sorted(kvstore.__all__)
    assert [name for name in kvstore.__all__ if not hasattr(kvstore, name)] == []
    made = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception)
    }
    assert made <= set(kvstore.__all__)


def test_every_public_class_and_function_has_a_docstring():
    public = [getattr(kvstore, name) for name in kvstore.__all__ if not name.startswith("_")]
    assert [thing.__name__ for thing in public if not inspect.getdoc(thing)] == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Stoer'"):
        kvstore.Stoer  # noqa: B018


def test_the_package_and_its_errors_load_nothing_heavy():
    code = (
        "import sys, kvstore, kvstore.contracts, kvstore.recipes; kvstore.UsageError, kvstore.__version__\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------------- imports


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules that a file imports when it runs, wherever in it; those for type checking only left out."""
    return frozenset(_imports(ast.parse(path.read_text(encoding="utf-8"))))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needs() -> dict[str, set[str]]:
    """Module of the engine -> modules of the engine that it imports; a package stands for its own file."""
    files = {module(path): path for path in sources("kvstore")}
    return {
        name: {other for other in imported(path) if other in files and other not in (name, "kvstore")}
        for name, path in files.items()
    }


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def strays(module_: str, *allowed: str) -> dict[str, list[str]]:
    """Imports of the engine in a module or package beyond itself and what is allowed."""
    known = tuple(f"kvstore.{name}" for name in (module_, *allowed))
    found = {
        name: sorted(other for other in others if not within(other, known))
        for name, others in needs().items()
        if within(name, (f"kvstore.{module_}",))
    }
    assert found, f"no module kvstore.{module_}"
    return {name: others for name, others in found.items() if others}


def test_imports_point_one_way():
    told = ("errors", "lines", "names", "outside")
    ground = ("contracts", *told)
    assert strays("lines") == {}
    assert strays("errors", "lines") == {}
    assert strays("outside", "errors", "lines") == {}
    assert strays("contracts", "errors") == {}
    assert strays("recipes", *told) == {}
    assert strays("names", "errors", "lines") == {}
    assert strays("seals") == {}
    assert strays("durable") == {}
    assert strays("pins", *told, "durable", "seals") == {}
    assert strays("left_out", *told) == {}
    assert strays("received", *told, "recipes") == {}
    assert strays("confined") == {}
    assert strays("terminal", "lines") == {}
    assert strays("progress", "lines", "terminal") == {}
    assert strays("statements", *told) == {}
    reading = ("left_out", "pins", "seals")
    assert strays("warehouse", *ground, *reading, "recipes") == {}
    assert strays("vectors", *ground, *reading, "disk", "durable", "received", "warehouse") == {}
    publishing = ("disk", "durable", "interrupts", "locks")
    assert (
        strays("report", *ground, *publishing, "recipes", "query", "datasets", "images", "masks", "left_out")
        == {}
    )
    stored = (
        "boundary",
        "geometry",
        "masks",
        "matching",
        "pairs",
        "pixels",
        "stored",
        "text_values",
        "upsampling",
        "vectors",
        "devices",
        "models",
        "recipes",
        "progress",
        "query",
    )
    assert strays("probes", *ground, *stored) == {}
    asking = ("datasets", "images", "models", "progress", "prompting", "recipes")
    assert strays("eval", *ground, *asking) == {}


def test_only_the_command_line_knows_the_command_line():
    users = {
        name
        for name, others in needs().items()
        if not within(name, ("kvstore.cli", "kvstore.__main__"))
        and any(within(o, ("kvstore.cli",)) for o in others)
    }
    assert users == set()


def test_no_module_needs_itself_by_way_of_others():
    graph = needs()
    # `from package import module` names both, and needs the module
    edges = {
        name: {o for o in others if not any(other.startswith(o + ".") for other in others)}
        for name, others in graph.items()
    }

    def reach(name: str, seen: set[str]) -> set[str]:
        for other in edges[name] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    assert [name for name in edges if name in reach(name, set())] == []


def test_the_engine_imports_no_recipe_and_no_recipe_another():
    recipes = (
        "kvstore.recipes.ingest",
        "kvstore.recipes.reports",
        "kvstore.recipes.sql",
        "ingest",
        "reports",
    )
    for path in (*sources("kvstore"), *sources("ingest"), *sources("reports")):
        assert [name for name in imported(path) if within(name, recipes)] == [], path


def test_recipes_stand_on_the_engine_alone():
    for folder in ("ingest", "reports"):
        for path in sources(folder):
            above = ("kvstore.cli", "kvstore.prefill", "kvstore.store", "kvstore.probes", "kvstore.warehouse")
            assert [name for name in imported(path) if within(name, above)] == [], path


def test_torch_and_charts_are_loaded_only_by_who_needs_them():
    def top(path: Path) -> set[str]:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        return {
            n.partition(".")[0]
            for node in body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for n in _imports(node)
        }

    loads = {name: {module(p) for p in sources("kvstore") if name in top(p)} for name in ("torch", "altair")}
    assert loads["altair"] == set()
    assert all(within(name, ("kvstore.eval", "kvstore.prefill")) for name in loads["torch"])
    assert loads["torch"]  # else this test reads nothing
