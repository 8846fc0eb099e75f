"""Reports: SQL results as Altair charts, in self-contained pages, rebuilt only when their inputs change.

A report is ``reports/<name>.py``: a docstring (its title, then what it shows and how to read it),
``LABEL = "observational"`` or ``"interventional"``, optionally ``PROTOCOL``, and ``build(query)``, which
yields `Chart`, `Table`, `Gallery`, `Note` and `Missing`; ``query(analysis, **params)`` is a polars DataFrame,
``query.thumbnail(sha256)`` an image of the store.
"""

from __future__ import annotations

from kvstore.report.blocks import (
    MAX_ROWS,
    Block,
    Box,
    Chart,
    Gallery,
    Missing,
    Note,
    Ring,
    Shade,
    Strip,
    Table,
    Thumbnail,
    Tile,
)
from kvstore.report.building import Outcome, build
from kvstore.report.charts import BLUE, GREEN, GREY, ORANGE, RED
from kvstore.report.freshness import Status, status
from kvstore.report.html import size
from kvstore.report.reading import Query
from kvstore.report.schedule import schedule

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "MAX_ROWS",
    "ORANGE",
    "RED",
    "Block",
    "Box",
    "Chart",
    "Gallery",
    "Missing",
    "Note",
    "Outcome",
    "Query",
    "Ring",
    "Shade",
    "Status",
    "Strip",
    "Table",
    "Thumbnail",
    "Tile",
    "build",
    "schedule",
    "size",
    "status",
]
