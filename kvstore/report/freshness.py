"""How fresh each report is: whether its last good build still answers to the store and the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvstore import recipes
from kvstore.errors import KvstoreError
from kvstore.report.keys import current_key
from kvstore.report.published import Published
from kvstore.report.recipe import read

if TYPE_CHECKING:
    from kvstore.store import Store


@dataclass(frozen=True, slots=True)
class Status:
    """One report. `built_at` and `key` are of the last good build, null without one.

    fresh    built from the inputs as they are now
    stale    inputs changed since, or what was built is not whole any more
    missing  never built
    failed   the last attempt failed; `error` says why
    """

    report: str
    title: str
    state: Literal["fresh", "stale", "missing", "failed"]
    built_at: str | None
    key: str | None
    page: str | None
    error: str | None


def status(store: Store, published: Published | None = None) -> list[Status]:
    """The state of every report, by name; reads, and builds nothing."""
    published = published or Published(store.root)
    return [_status(store, published, name) for name in recipes.listing("reports")]


def _status(store: Store, published: Published, name: str) -> Status:
    record = published.build(name)
    failure = published.failure(name)
    title, error = name, failure["error"] if failure else None
    fresh = False
    try:
        recipe = read(name)
        title = recipe.title
        fresh = current_key(store, published, recipe) is not None
    except KvstoreError as told:
        error = str(told)
    return Status(
        report=name,
        title=title,
        state="fresh" if fresh else "failed" if error else "stale" if published.is_begun(name) else "missing",
        built_at=record["built_at"] if record else None,
        key=record["key"] if record else None,
        page=str(published.page(name)) if record else None,
        error=None if fresh else error,
    )
