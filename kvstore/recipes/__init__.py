"""Where recipes are found: the user's folder laid over the shipped one, both of the repository's shape.

A recipe is a file: ``ingest/datasets/<name>.py``, ``ingest/models/<family>.py``,
``ingest/benchmarks/<name>.py``, ``ingest/exports/<format>.py``, ``sql/analyses/<name>.sql``,
``sql/checks/<name>.sql``, ``reports/<name>.py``. The user's folder is ``--recipes DIR`` or
``$KVSTORE_RECIPES``; a file there hides the shipped file of the same path.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

from kvstore.errors import UnknownNameError

_HERE = Path(__file__).parent
#: In a wheel the recipes lie beside this file; in a checkout, at the repository's root.
SHIPPED = _HERE if (_HERE / "ingest").is_dir() else _HERE.parents[1]

__path__ = [str(SHIPPED)]


def lay_over(folder: Path | str) -> None:
    """Put a user's folder of recipes before the shipped one, for this process and those it starts."""
    path = str(Path(folder).expanduser().resolve())
    os.environ["KVSTORE_RECIPES"] = path
    __path__[:] = [path, str(SHIPPED)]
    importlib.invalidate_caches()


if os.environ.get("KVSTORE_RECIPES"):
    lay_over(os.environ["KVSTORE_RECIPES"])


def listing(kind: str, suffix: str = ".py") -> dict[str, Path]:
    """The recipes of one kind (``ingest/datasets``, ``sql/analyses``, ...) by name, sorted."""
    found: dict[str, Path] = {}
    for root in reversed(__path__):
        for path in sorted(Path(root, kind).glob(f"[!_.]*{suffix}")):
            found[path.name.removesuffix(suffix)] = path
    return dict(sorted(found.items()))


def locate(kind: str, name: str, suffix: str = ".py") -> Path:
    """The file of one recipe; `UnknownNameError` names the nearest valid one.

    A dash stands for an underscore too: ``shapes-qa`` is ``shapes_qa.py``.
    """
    known = listing(kind, suffix)
    path = known.get(name) or known.get(name.replace("-", "_"))
    if path is None:
        raise UnknownNameError(kind.rpartition("/")[2].rstrip("s"), name, known)
    return path


def load(kind: str, name: str) -> ModuleType:
    """Import the recipe ``<kind>/<name>.py``."""
    file = locate(kind, name)
    return importlib.import_module(f"{__name__}.{kind.replace('/', '.')}.{file.stem}")
