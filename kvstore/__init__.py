"""A feature store and SQL warehouse for the visual key-value vectors inside multimodal language models.

The names in `__all__` are the public API, and are loaded when first used: ``import kvstore`` loads neither
torch nor DuckDB. What recipes and reports are written with lies in `kvstore.contracts`, `kvstore.datasets`
and `kvstore.report`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.errors import (
        DatasetError,
        ImageError,
        KvstoreError,
        LeftOutWarning,
        ModelError,
        NoSpaceError,
        QueryError,
        ReportError,
        StoreBusyError,
        StoreError,
        StoreVersionError,
        UnknownNameError,
        UsageError,
    )
    from kvstore.query import run_analysis, run_sql
    from kvstore.store import Store
    from kvstore.vectors import read_layer, read_site

__version__ = "0.1.0"

__all__ = [
    "DatasetError",
    "ImageError",
    "KvstoreError",
    "LeftOutWarning",
    "ModelError",
    "NoSpaceError",
    "QueryError",
    "ReportError",
    "Store",
    "StoreBusyError",
    "StoreError",
    "StoreVersionError",
    "UnknownNameError",
    "UsageError",
    "__version__",
    "read_layer",
    "read_site",
    "run_analysis",
    "run_sql",
]

#: Where the names that are no errors live.
_HOMES = {
    "Store": "kvstore.store",
    "read_layer": "kvstore.vectors",
    "read_site": "kvstore.vectors",
    "run_analysis": "kvstore.query",
    "run_sql": "kvstore.query",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'kvstore' has no attribute '{name}'")
    found: object = getattr(importlib.import_module(_HOMES.get(name, "kvstore.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
