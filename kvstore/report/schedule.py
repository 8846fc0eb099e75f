"""Text to paste for a nightly build: a cron line and a systemd timer. Nothing is installed."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def schedule(store: Path, recipes: Path | None = None) -> str:
    """A cron line and two systemd units, with absolute paths, that build the store's reports each night."""
    parts = [*_program(), "report", "build", "--quiet", "--store", str(store.resolve())]
    parts += ["--recipes", str(recipes.resolve())] if recipes else []
    # cron ends a command at a bare per cent sign; systemd reads it, and a dollar, as its own.
    cron = shlex.join(parts).replace("%", r"\%")
    unit = " ".join(_quoted(part) for part in parts)
    return f"""\
# cron: add with `crontab -e`; every night at 03:17, which mails only failures
17 3 * * * {cron}

# systemd: ~/.config/systemd/user/kvstore-reports.service
[Unit]
Description=Build the kvstore reports

[Service]
Type=oneshot
ExecStart={unit}

# systemd: ~/.config/systemd/user/kvstore-reports.timer
# then: systemctl --user daemon-reload && systemctl --user enable --now kvstore-reports.timer
[Unit]
Description=Build the kvstore reports every night

[Timer]
OnCalendar=*-*-* 03:17:00
Persistent=true

[Install]
WantedBy=timers.target"""


def _program() -> list[str]:
    """The `kvstore` of this environment, or this Python with the package."""
    beside = Path(sys.executable).with_name("kvstore")
    found = str(beside) if beside.is_file() else shutil.which("kvstore")
    return [found] if found else [sys.executable, "-m", "kvstore.cli"]


def _quoted(part: str) -> str:
    r"""One word of ExecStart: quoted where needed, ``%`` and ``$`` doubled, ``\`` and ``"`` escaped."""
    text = part.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(c.isspace() or c in "'\";" for c in part) else text
