"""The program ``kvstore``, also as ``python -m kvstore``.

Loading the command line takes a tenth of a second. Until it hears signals itself, Ctrl-C ends the process as
it ends any other, without Python's traceback.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kvstore import cli

    cli.main()


if __name__ == "__main__":
    main()
