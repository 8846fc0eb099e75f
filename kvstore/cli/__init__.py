"""The command line: ``kvstore COMMAND``, one file a command.

Exit codes: 0 done; 1 done, but something was quarantined, left out of a data set, is stale or failed a check;
2 a user's mistake, told in one line; 70 a fault of kvstore itself; 141 the reader of stdout left; else ended
by a signal: 129 the terminal closed, 130 Ctrl-C, 143 `kill`. Data goes to stdout, all else to stderr.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from kvstore import confined, interrupts
from kvstore.cli import ending
from kvstore.errors import UnknownNameError, UsageError
from kvstore.lines import one_line, printable, shortened

#: Commands in the order of the help. Each is ``kvstore/cli/<name>.py`` with a function `command`, or with a
#: typer `app` when it has commands of its own. Only the one that is called is imported.
COMMANDS = (
    "ingest",
    "export",
    "probe",
    "eval",
    "search",
    "sql",
    "shell",
    "report",
    "ls",
    "runs",
    "check",
    "repair",
    "backup",
    "optimize",
    "drop",
)


def main(args: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; without `args`, as the program with its own."""
    if args is None:
        confined.program()
    ending.open_streams()  # first: what is opened next would get a closed stream's number
    code = interrupts.run(lambda: _run(list(sys.argv[1:] if args is None else args)), ends=args is None)
    raise SystemExit(code)


def _run(args: list[str]) -> int:
    given = _debugged(args)
    with ending.quiet_libraries() as left_out:
        code = _guarded(given)
    return ending.flush(code or int(bool(left_out)))


def _debugged(args: list[str]) -> list[str]:
    """The arguments without ``--debug``, which may stand anywhere before ``--``."""
    own = args[: args.index("--")] if "--" in args else args
    if "--debug" not in own:
        return args
    os.environ["KVSTORE_DEBUG"] = "1"
    return [word for word in own if word != "--debug"] + args[len(own) :]


def _guarded(args: list[str]) -> int:
    """Run; whatever is raised ends as a line on stderr and an exit code."""
    called = args[0] if args else "--help"
    try:
        _check_text(args)
        if _names_dataset(args):
            called, args = "export", ["export", called, *args[2:]]
        if not called.startswith("-") and called not in COMMANDS:
            raise UnknownNameError("command", called, COMMANDS, "See `kvstore --help`.")
        result = _application(called)(args or ["--help"], prog_name="kvstore", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Abort:
        ending.say("aborted")
        return 130
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except typer.TyperException as error:
        told = error.format_message() if hasattr(error, "format_message") else str(error)
        help_ = f" See `kvstore {called} --help`." if called in COMMANDS else ""
        ending.say(one_line(told, 290 - len(help_)) + help_)
        return ending.MISTAKE
    except SystemExit as error:  # of a reader that left
        return error.code if isinstance(error.code, int) else ending.MISTAKE
    except BaseException as error:  # a panic of Rust is no Exception
        if interrupts.received() is not None:  # what fails since a signal came fails for it
            raise
        return ending.tell(error)


def _check_text(args: list[str]) -> None:
    """`UsageError` for an argument that is no UTF-8 text and names no file either."""
    for word in args:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            value = word.partition("=")[2] if word.startswith("--") else word
            if not os.path.lexists(value):
                raise UsageError(f"{shortened(printable(word), 100)} is not UTF-8 text, nor a file's name")


def _names_dataset(args: list[str]) -> bool:
    """Whether it is ``DATASET export ...``, which stands for ``export DATASET ...``.

    Raises `UsageError` for a data set with nothing, or with anything else, to be done with it.
    """
    if not args or args[0].startswith("-") or args[0] in COMMANDS:
        return False
    if args[1:2] == ["export"]:  # a name that is no data set's is told by the command, which knows --recipes
        return True
    from kvstore import recipes

    if args[0] in recipes.listing("ingest/datasets"):
        raise UsageError(
            f"'{args[0]}' is a data set: `kvstore ingest {args[0]}` or `kvstore {args[0]} export` uses it"
        )
    return False


def _application(called: str) -> Any:
    app = typer.Typer(
        help="A feature store and SQL warehouse for the visual key-value vectors inside multimodal language"
        " models.\n\nExample: kvstore ingest shapes --model tiny-onevision --limit 20 --store ./s",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for name in (called,) if called in COMMANDS else COMMANDS:
        if importlib.util.find_spec(f"kvstore.cli.{name}") is None:
            continue
        module = importlib.import_module(f"kvstore.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name, **getattr(module, "SETTINGS", {}))(module.command)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from kvstore import __version__

        print(f"kvstore {__version__}")
        raise typer.Exit()


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks and the words of libraries; also KVSTORE_DEBUG=1."),
    ] = False,
) -> None:
    pass  # both are done by then: see `_debugged`
