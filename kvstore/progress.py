"""A progress bar on stderr: silent where stderr is no terminal, so that logs stay readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvstore import terminal
from kvstore.lines import printable


@contextmanager
def track(name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar of `total` steps of one `unit`; what it yields advances it by so many."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = terminal.console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(printable(name), total=total)
        yield lambda steps: progress.advance(task, steps)
