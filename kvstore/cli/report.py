"""`kvstore report`: list, build and schedule reports, and tell how fresh they are."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvstore.cli.options import STORE, FormatOption, RecipesOption, StoreOption
from kvstore.lines import in_json

if TYPE_CHECKING:
    from kvstore.report import Outcome

app = typer.Typer(
    help="Build reports from the store, and tell how fresh they are.\n\n"
    "Example: kvstore report build --store ./s"
)


@app.command("list")
def listing(
    format: FormatOption = "table",  # noqa: A002
    recipes: RecipesOption = None,
) -> None:
    """List the reports by name.

    Example: kvstore report list --format json
    """
    from kvstore.cli import output
    from kvstore.recipes import listing as known
    from kvstore.report.recipe import read

    found = [{"report": name, "title": read(name).title} for name in known("reports")]
    output.write_records(found, ("report", "title"), format)


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="All when none is named.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but failures.")] = False,
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Build reports whose inputs changed, in <store>/reports.

    Exit code 1 when one fails; its last good build is kept.

    Example: kvstore report build keys --store ./s
    """
    from kvstore import report
    from kvstore.store import Store

    opened = Store.open(store)
    failed = False
    for outcome in report.build(opened, names or ()):
        failed |= outcome.result == "failed"
        if outcome.result == "failed" or not quiet:
            print(_told(outcome), file=sys.stderr)
        if outcome.page and not quiet:
            print(outcome.page)
    if not quiet:
        print(opened.root / "reports" / "index.html")
    if failed:
        raise typer.Exit(1)


def _told(outcome: Outcome) -> str:
    if outcome.result == "failed":
        kept = "the last good build is kept" if outcome.page else "there is no earlier build"
        return f"{outcome.report}: failed, {kept}: {outcome.error}"
    took = f" in {outcome.seconds:.1f} s" if outcome.result == "built" else ""
    return f"{outcome.report}: {outcome.result}{took}"


@app.command()
def schedule(store: StoreOption = STORE, recipes: RecipesOption = None) -> None:
    """Print a cron line and a systemd timer; nothing is installed.

    Example: kvstore report schedule --store ./s
    """
    from kvstore import report

    print(report.schedule(Path(store), recipes))


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="All fields, for programs.")] = False,
    store: StoreOption = STORE,
    recipes: RecipesOption = None,
) -> None:
    """Tell which reports are fresh; exit code 1 unless all are.

    Example: kvstore report status --store ./s --json
    """
    from kvstore import report
    from kvstore.cli import output
    from kvstore.store import Store

    found = [asdict(state) for state in report.status(Store.open(store))]
    if as_json:
        text = json.dumps(found, indent=2, ensure_ascii=False)
        print("\n".join(map(in_json if sys.stdout.isatty() else str, text.split("\n"))))
    else:
        output.write_records(found, ("report", "state", "built_at", "page", "error"), "table")
    if any(state["state"] != "fresh" for state in found):
        raise typer.Exit(1)
