"""Building reports: nothing is rebuilt from unchanged inputs, and a failure keeps the last good build."""

from __future__ import annotations

import base64
import io
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kvstore import __version__, disk, interrupts, recipes
from kvstore.errors import KvstoreError, NoSpaceError, ReportError
from kvstore.names import unfit
from kvstore.report import charts, gallery, html, page
from kvstore.report.blocks import Block, Chart, Gallery, Missing, Note, Table
from kvstore.report.index import write_index
from kvstore.report.keys import current_key, engine, fingerprint, key_of
from kvstore.report.published import Published
from kvstore.report.reading import Query, asking
from kvstore.report.recipe import Loaded, Recipe, load, read

if TYPE_CHECKING:
    import polars as pl

    from kvstore.store import Store


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one report: `page` is its last good page, if there is one."""

    report: str
    result: Literal["built", "unchanged", "failed"]
    seconds: float
    page: Path | None
    error: str = ""


def build(store: Store, names: Iterable[str] = ()) -> Iterator[Outcome]:
    """Build the named reports, or all; one that fails does not stop the others.

    Ends by writing the index page. Raises `UnknownNameError` before anything is built.
    """
    known = recipes.listing("reports")
    chosen = list(dict.fromkeys(names)) or list(known)
    for name in chosen:
        recipes.locate("reports", name)
    published = Published(store.root)
    with published.builder():
        for name in chosen:
            yield _attempt(store, published, name)
        write_index(store, published)


def _attempt(store: Store, published: Published, name: str) -> Outcome:
    """Build one report if its inputs changed; any error of its code is its own failure."""
    started = time.monotonic()
    try:
        recipe = read(name)
        if current_key(store, published, recipe) is not None:
            published.forgive(name)
            return Outcome(name, "unchanged", time.monotonic() - started, published.page(name))
        with disk.errors(store.root):
            _build(store, recipe)
    except NoSpaceError:  # no fault of this report, and the next would meet it, too
        raise
    except Exception as error:
        if interrupts.received() is not None:  # DuckDB and others turn a signal into errors of theirs
            raise
        told = explain(name, error)
        published.fail(name, {"error": told, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        last = published.page(name) if published.build(name) else None
        return Outcome(name, "failed", time.monotonic() - started, last, told)
    return Outcome(name, "built", time.monotonic() - started, published.page(name))


def explain(name: str, error: Exception) -> str:
    """One line: kvstore's own errors speak for themselves, others are placed in the report's file."""
    if isinstance(error, KvstoreError):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "reports/" in frame.filename]
    where = f" (line {frames[-1].lineno})" if frames else ""
    return f"report '{name}'{where}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _build(store: Store, recipe: Recipe) -> None:
    started = time.monotonic()
    loaded = load(recipe)
    with asking(store) as query:
        content = _content(store, recipe, loaded, query)
        calls = query.state()
        key = key_of(recipe, calls)
    pictures = _pictures(store, recipe.name, content)
    files = {f"{name}.png": png for name, (_, png) in pictures.items()}
    files |= {f"{answer.name}.parquet": _parquet(answer.rows) for answer in content.answers}
    scripts = _scripts(drawing=bool(pictures))
    files["page.html"] = page.render(content, scripts).encode()
    record = {
        "report": recipe.name,
        "title": recipe.title,
        "key": key,
        "built_at": content.built_at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 3),
        "label": loaded.label,
        "missing": [block.what for block in content.blocks if isinstance(block, Missing)],
        "thumbnail": _thumbnail([png for _, png in pictures.values()]) or _first_image(content.blocks),
        "pictures": {name: sha256 for name, (sha256, _) in pictures.items()},
        "calls": calls,
    }
    public = page.render(content, scripts, f"{recipe.name}/{key}/").encode()
    Published(store.root).publish(recipe.name, record, files, public)


def _content(store: Store, recipe: Recipe, loaded: Loaded, query: Query) -> page.Content:
    blocks = list(loaded.build(query))
    _refuse_strangers(recipe.name, blocks)
    origins = _origins(query)
    drawn = [block for block in blocks if isinstance(block, Chart)]
    return page.Content(
        title=recipe.title,
        about=recipe.about,
        label=loaded.label,
        protocol=loaded.protocol,
        blocks=blocks,
        specs={chart.name: charts.specification(chart) for chart in drawn},
        answers=query.answers,
        origins=origins,
        store=str(store.root),
        version=__version__,
        built_at=datetime.now(UTC),
    )


def _origins(query: Query) -> pl.DataFrame:
    """Provenance of the runs whose rows were read; of all runs where the rows name none."""
    named = [answer.rows["run_id"] for answer in query.answers if "run_id" in answer.rows]
    origins = query("provenance")
    shown = {run for runs in named for run in runs}
    return origins.filter(origins["run_id"].is_in(sorted(shown))) if named else origins


def _refuse_strangers(report: str, blocks: list[Block]) -> None:
    """Only blocks, and chart names that are file names, each once."""
    names: set[str] = set()
    for block in blocks:
        if not isinstance(block, Chart | Table | Gallery | Note | Missing):
            raise ReportError(
                f"report '{report}' gives a {type(block).__name__}:"
                " give Chart, Table, Gallery, Note or Missing"
            )
        if isinstance(block, Chart):
            if block.name.casefold() in names or unfit(block.name):
                raise ReportError(
                    f"report '{report}': chart name '{block.name}' is used twice or is no file name"
                )
            names.add(block.name.casefold())


def _pictures(store: Store, report: str, content: page.Content) -> dict[str, tuple[str, bytes]]:
    """(hash, PNG) of each chart by name; one that the last build drew from the same words is kept."""
    published = Published(store.root)
    last = published.build(report) or {"key": "", "pictures": {}}
    found: dict[str, tuple[str, bytes]] = {}
    for chart in page.charts(content.blocks):
        spec = content.specs[chart.name]
        sha256 = fingerprint([engine(), chart.title, chart.group, spec])
        kept = published.folder(report, last["key"]) / f"{chart.name}.png"
        same = last["pictures"].get(chart.name) == sha256 and kept.is_file()
        found[chart.name] = (sha256, kept.read_bytes() if same else charts.picture(spec, chart))
    return found


def _thumbnail(pictures: list[bytes]) -> str | None:
    """The first chart, small, as a data address; None for a report without charts."""
    from PIL import Image

    for png in pictures[:1]:
        small, buffer = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
        small.thumbnail((520, 400))
        small.save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return None


def _first_image(blocks: list[Block]) -> str | None:
    """The first image of the first gallery, as a data address."""
    strips = [strip for block in blocks if isinstance(block, Gallery) for strip in block.strips]
    return gallery.address(strips[0].tiles[0].image) if strips else None


def _parquet(rows: Any) -> bytes:
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()


@cache
def _scripts(*, drawing: bool) -> tuple[str, ...]:
    """The page's own script, after Vega where there are charts to draw."""
    return (*([charts.scripts()] if drawing else []), html.asset("page.js"))
