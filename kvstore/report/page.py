"""A report's page: its blocks, then where its figures come from, in one file that reads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kvstore.report import gallery, html
from kvstore.report.blocks import Block, Chart, Gallery, Missing, Note, Table

if TYPE_CHECKING:
    import polars as pl

    from kvstore.report.reading import Answer


@dataclass(frozen=True)
class Content:
    """A report after its ``build`` ran.

    specs     Vega-Lite of each chart, by the chart's name
    origins   analysis `provenance` for the runs that the report shows
    """

    title: str
    about: str
    label: str
    protocol: str
    blocks: list[Block]
    specs: dict[str, dict[str, Any]]
    answers: list[Answer]
    origins: pl.DataFrame
    store: str
    version: str
    built_at: datetime


def render(content: Content, scripts: tuple[str, ...], files: str = "") -> str:
    """The page; `files` is the path from the page to the folder of its pictures and rows."""
    from kvstore.report.charts import THEME

    body = [
        "<header>",
        f"<h1>{escape(content.title)}</h1>",
        f'<p class="byline">{_byline(content)}</p>',
        html.paragraphs(content.about),
        "</header>",
        gallery.images(content.blocks),
        "<main>",
        *_grouped(content, files),
        "</main>",
        _footer(content, files),
        html.data(THEME, "theme"),
    ]
    return html.document(content.title, "\n".join(body), scripts)


def _byline(content: Content) -> str:
    made = f"{content.built_at:%Y-%m-%d %H:%M} UTC"
    return f"{content.label.capitalize()} figures · built {made} · kvstore {escape(content.version)}"


def _grouped(content: Content, files: str) -> list[str]:
    """Blocks of no group as they come; the others under a choice of group where there are several."""
    groups = list(dict.fromkeys(block.group for block in content.blocks if block.group))
    parts, open_group = [], ""
    chooser_due = bool(groups)
    for block in content.blocks:
        if block.group != open_group:
            parts.append("</section>" if open_group else "")
            if block.group and chooser_due:
                parts.append(_chooser(groups))
                chooser_due = False
            parts.append(_section(block.group, len(groups)) if block.group else "")
            open_group = block.group
        parts.append(_block(block, content, files))
    return [*parts, "</section>" if open_group else ""]


def _chooser(groups: list[str]) -> str:
    """What the sections below are of; a choice where there are several."""
    options = "".join(f"<option>{escape(group)}</option>" for group in groups)
    if len(groups) == 1:
        return f'<div class="chooser">Run <strong>{escape(groups[0])}</strong></div>'
    choice = f'<select id="group" autocomplete="off">{options}</select>'
    return f'<div class="chooser"><label>Run {choice}</label></div>'


def _section(group: str, groups: int) -> str:
    chosen = f' data-group="{escape(group)}"' if groups > 1 else ""
    return f"<section{chosen}>"


def _block(block: Block, content: Content, files: str) -> str:
    if isinstance(block, Note):
        return html.paragraphs(block.text)
    if isinstance(block, Missing):
        command = f"{block.command} --store {content.store}"
        return f'<div class="missing"><p>{escape(block.what)}</p><p><code>{escape(command)}</code></p></div>'
    if isinstance(block, Gallery):
        return gallery.figure(block)
    caption = escape(block.caption)
    if isinstance(block, Table):
        shown = html.table(block.rows, block.headings)
        note = f'<p class="soft">{caption}</p>' if caption else ""
        return f"<figure><h2>{escape(block.title)}</h2>\n{shown}{note}</figure>"
    picture = f'<span class="files"><a href="{quote(files + block.name)}.png">PNG</a></span>'
    return (
        f'<figure><h2>{escape(block.title)}</h2>\n<div class="chart"></div>'
        f"{html.data(content.specs[block.name])}\n<figcaption>{caption} {picture}</figcaption></figure>"
    )


def _footer(content: Content, files: str) -> str:
    protocol = f"<p>Protocol: {escape(content.protocol)}</p>" if content.protocol else ""
    origins = "\n".join(_origin(run) for run in content.origins.iter_rows(named=True))
    runs = f'<h2>Runs shown</h2>\n<dl class="origins">\n{origins}\n</dl>' if origins else ""
    queries = "\n".join(_analysis(answer, files) for answer in content.answers)
    return (
        f"<footer>\n<p>All figures are {escape(content.label)}.</p>{protocol}\n{runs}\n"
        f"<h2>SQL and rows</h2>\n{queries}\n</footer>"
    )


def _origin(run: dict[str, Any]) -> str:
    """Where a run's figures come from, revisions and fingerprints whole."""
    prefix = f"prefix “{run['prefix']}”" if run["prefix"] else "no prefix"
    told = (
        f"Model {run['model']} ({run['architecture']}), revision {run['model_revision']}. "
        f"Data set {run['dataset']}, fingerprint {run['dataset_fingerprint']}; "
        f"{run['images']:,} images stored. "
        f"View {run['view']}, {prefix}, pooling {run['pool']}, {run['dtype']} on {run['device']}, "
        f"kvstore {run['code_version']}."
    )
    return f"<dt>{escape(run['run_id'])}</dt><dd>{escape(told)}</dd>"


def _analysis(answer: Answer, files: str) -> str:
    stated = ", ".join(f"{key} = {value}" for key, value in answer.params.items())
    named = f"{answer.analysis} ({stated})" if stated else answer.analysis
    rows = f'<a href="{quote(files + answer.name)}.parquet">{answer.rows.height:,} rows</a>'
    return f"<details><summary>{escape(named)}, {rows}</summary><pre>{escape(answer.sql)}</pre></details>"


def charts(blocks: list[Block]) -> list[Chart]:
    """The charts among blocks."""
    return [block for block in blocks if isinstance(block, Chart)]
