"""Altair charts as the pages and pictures show them: one theme, no network, at most `MAX_ROWS` rows each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvstore.errors import ReportError
from kvstore.report.blocks import MAX_ROWS, Chart

#: Marks must read on white, on black and in print, so hues are mid-tone; words take the page's colour.
BLUE, ORANGE, RED, GREY, GREEN = "#2f7fc1", "#d9822b", "#d64545", "#8a8f98", "#3f9b6d"

THEME: dict[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "view": {"stroke": None, "continuousHeight": 280, "discreteHeight": {"step": 26}},
    "axis": {
        "labelColor": "#4a4f57",
        "titleColor": "#1b1e23",
        "titleFontWeight": "normal",
        "titleFontSize": 12.5,
        "labelFontSize": 11.5,
        "gridColor": "#e4e6ea",
        "domainColor": "#9aa0a8",
        "tickColor": "#9aa0a8",
        "titlePadding": 8,
        "labelOverlap": True,
    },
    "legend": {
        "labelColor": "#4a4f57",
        "titleColor": "#1b1e23",
        "titleFontWeight": "normal",
        "labelFontSize": 11.5,
        "titleFontSize": 12,
        "labelLimit": 400,
        "gradientLength": 220,
    },
    "header": {"labelColor": "#1b1e23", "titleColor": "#1b1e23", "labelFontSize": 12},
    "title": {
        "color": "#1b1e23",
        "fontSize": 14,
        "anchor": "start",
        "fontWeight": 600,
        "offset": 12,
        "subtitleColor": "#4a4f57",
    },
    "range": {"category": [BLUE, ORANGE, GREEN, RED, "#8465c4", GREY]},
    "line": {"strokeWidth": 2.2},
}
_COMPOSED = ("facet", "concat", "hconcat", "vconcat", "repeat")


def specification(chart: Chart) -> dict[str, Any]:
    """The Vega-Lite of a chart, as wide as its place allows; `ReportError` beyond `MAX_ROWS` rows."""
    import altair as alt

    with alt.data_transformers.enable("default", max_rows=None, consolidate_datasets=True):
        spec: dict[str, Any] = chart.chart.to_dict()
    rows = sum(len(values) for values in _values(spec))
    if rows > MAX_ROWS:
        raise ReportError(
            f"chart '{chart.name}' embeds {rows} rows, more than {MAX_ROWS}: aggregate in SQL"
            " (nothing is cut silently)"
        )
    if next(_addresses(spec), None):
        raise ReportError(f"chart '{chart.name}' reads an address; a report's page reads nothing: use rows")
    if not any(key in spec for key in _COMPOSED):
        spec.setdefault("width", "container")
    if not spec.get("config"):
        spec.pop("config", None)
    return spec


def _values(spec: dict[str, Any]) -> Iterator[list[Any]]:
    yield from spec.get("datasets", {}).values()
    yield from (found["values"] for found in _data(spec) if isinstance(found.get("values"), list))


def _addresses(spec: dict[str, Any]) -> Iterator[str]:
    yield from (found["url"] for found in _data(spec) if "url" in found)


def _data(node: Any) -> Iterator[dict[str, Any]]:
    """Every ``data`` of a specification and its parts, without the rows themselves."""
    if isinstance(node, list):
        for part in node:
            yield from _data(part)
    elif isinstance(node, dict):
        if isinstance(node.get("data"), dict):
            yield node["data"]
        for key, part in node.items():
            if key not in ("data", "datasets"):
                yield from _data(part)


def picture(spec: dict[str, Any], chart: Chart) -> bytes:
    """A PNG on white, under its title and group, at two pixels per CSS pixel."""
    import vl_convert

    title = {"text": chart.title, "subtitle": chart.group} if chart.group else chart.title
    still = {**spec, "title": title, "background": "white"}
    if still.get("width") == "container":
        still["width"] = 720
    still.setdefault("padding", 12)
    png: bytes = vl_convert.vegalite_to_png(
        still, vl_version=_version(), scale=2.0, config=THEME, allowed_base_urls=[]
    )
    return png


def scripts() -> str:
    """Vega, Vega-Lite and vega-embed in one script that needs no network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_version())
    return bundle


def _version() -> str:
    import altair as alt

    return ".".join(alt.VEGALITE_VERSION.split(".")[:2])
