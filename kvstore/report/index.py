"""The index page: every report with its first chart, when it was built, and whether it is fresh."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from kvstore import __version__
from kvstore.report import html
from kvstore.report.freshness import Status, status
from kvstore.report.published import Published, replace

if TYPE_CHECKING:
    from kvstore.store import Store

_WORDS = {
    "fresh": "",
    "stale": " · the store has changed since",
    "missing": "not built yet",
    "failed": " · the last attempt failed",
}


def write_index(store: Store, published: Published) -> None:
    """Write ``reports/index.html``; it states freshness as of its own writing."""
    now = datetime.now(UTC)
    command = f"kvstore report build --store {store.root}"
    entries = "\n".join(_entry(published, state) for state in status(store, published))
    body = (
        f"<header><h1>Reports</h1>\n"
        f'<p class="byline">Store {escape(str(store.root.resolve()))} · as of {now:%Y-%m-%d %H:%M} UTC · '
        f"kvstore {escape(__version__)}</p></header>\n"
        f'<ul class="reports">\n{entries}\n</ul>\n'
        f'<footer><p class="soft">Rebuild what changed: <code>{escape(command)}</code></p></footer>'
    )
    replace(published.root / "index.html", html.document("kvstore reports", body).encode())


def _entry(published: Published, state: Status) -> str:
    record = published.build(state.report)
    link = f'<a href="{escape(quote(state.report))}.html">' if record else ""
    title = f"{link}{escape(state.title)}{'</a>' if link else ''}"
    words = " · what is there is not whole" if state.state == "stale" and not record else _WORDS[state.state]
    when = f"Built {datetime.fromisoformat(state.built_at):%Y-%m-%d %H:%M} UTC" if state.built_at else ""
    marked = " failed" if state.state == "failed" else ""
    error = f'<p class="soft failed">{escape(state.error)}</p>' if state.error else ""
    picture = (
        _picture(record.get("thumbnail"), record.get("missing", []), link)
        if record
        else _blank("Not built yet" if state.state == "missing" else "To be built again")
    )
    return f'<li>{picture}<h2>{title}</h2><p class="soft{marked}">{when}{words}</p>{error}</li>'


def _picture(thumbnail: str | None, missing: list[str], link: str) -> str:
    if thumbnail is None:
        return _blank(missing[0] if missing else "No chart")
    return f'{link}<img src="{escape(thumbnail)}" alt=""></a>'


def _blank(words: str) -> str:
    return f'<div class="blank">{escape(words)}</div>'
