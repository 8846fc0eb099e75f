"""Parts of a page: every text of the store escaped, every script named by its hash in the page's policy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore.errors import ReportError
from kvstore.report.blocks import MAX_ROWS

if TYPE_CHECKING:
    import polars as pl

_HERE = Path(__file__).parent
_LONG = 28  # characters beyond which a cell may wrap


def asset(name: str) -> str:
    """A file that lies beside this one."""
    return (_HERE / name).read_text(encoding="utf-8")


def document(title: str, body: str, scripts: tuple[str, ...] = ()) -> str:
    """A whole page. Its policy allows these scripts and no other, inline styles, and no address at all."""
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts) or "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"
    tail = "\n".join(f"<script>{text}</script>" for text in scripts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{asset('page.css')}</style>\n</head>\n"
        f"<body>\n{body}\n{tail}\n</body>\n</html>\n"
    )


def _digest(script: str) -> str:
    if "</script" in script.lower() or "<!--" in script:
        raise ReportError("a script of the page holds a tag that would end it")
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def data(value: Any, name: str = "") -> str:
    """JSON in a block that no browser runs, and that no text in it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    safe = text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    marked = f' id="{escape(name)}"' if name else ""
    return f'<script type="application/json"{marked}>{safe}</script>'


def paragraphs(text: str) -> str:
    """Plain text; an empty line parts paragraphs."""
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n".join(f"<p>{escape(part)}</p>" for part in parts if part)


def table(rows: pl.DataFrame, headings: Mapping[str, str]) -> str:
    """Rows as an HTML table; `ReportError` beyond `MAX_ROWS` rows."""
    if rows.height > MAX_ROWS:
        raise ReportError(f"a table holds {rows.height} rows, more than {MAX_ROWS}: aggregate in SQL")
    numeric = [dtype.is_numeric() for dtype in rows.dtypes]
    head = "".join(
        _cell("th", headings.get(c, c.replace("_", " ")), n)
        for c, n in zip(rows.columns, numeric, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(map(_cell, ["td"] * len(row), _texts(rows.columns, row), numeric)) + "</tr>"
        for row in rows.iter_rows()
    )
    return (
        f'<div class="rows"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _texts(columns: list[str], row: tuple[Any, ...]) -> list[str]:
    """Every cell in words; a column named `bytes` as a size."""
    return [size(v) if c.endswith("bytes") else shown(v) for c, v in zip(columns, row, strict=True)]


def _cell(tag: str, text: str, number: bool) -> str:
    kind = "number" if number else "long" if len(text) > _LONG else ""
    marked = f' class="{kind}"' if kind else ""
    return f"<{tag}{marked}>{escape(text)}</{tag}>"


def shown(value: Any) -> str:
    """A value for reading: thousands parted, four digits of a fraction, times to the minute, null a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return str(value)


def size(count: int | None) -> str:
    """Bytes for reading, in powers of ten as disks are sold: ``1.5 GB``."""
    if count is None:
        return "–"
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.3g} {unit}"
