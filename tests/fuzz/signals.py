"""Signals at random moments of small commands: ``python -m tests.fuzz.signals [TRIALS] [SEED] [COMMAND...]``.

Each trial starts a command, sends SIGINT, SIGTERM or SIGHUP at a moment within its usual time (one in five a
second time soon after; all but SIGTERM to its children, too, as terminals do), and looks at what is left:
exit code, seconds to the end, state of the run, temporary files and tickets, `check`, and then whether the
same command ends well and with the rows of an undisturbed one. Prints a line a trial and a table; exit code 1
when one was not as it should be.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstore.store import Store

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RUN = "shapes-test-tiny-onevision"


@dataclass(frozen=True)
class Command:
    """A command's words, in which STORE and DIR are folders, and what of the trial's folder shows its work.

    begins  the store that it is started on: ``whole``, ``broken``, or none
    reads   it changes nothing, so that one of it is tried as well as two
    """

    words: tuple[str, ...]
    shows: str | None = None  # SQL; None: the pages of reports, the files of an export
    begins: str | None = "whole"
    reads: bool = False


INGEST = ("ingest", "shapes", "--limit", "8", "--layers", "0", "--sites", "value,key", "--store", "STORE")
_SUM = "select sum(list_sum(value)), sum(list_sum(key)) from patch_kv, range(5)"
_ROWS = "select count(*) as rows, count(distinct image_id) as images from patch_kv"
_SEARCH = ("--image", "1", "--patch", "3", "--layer", "0", "--head", "0")
COMMANDS = {
    "ingest": Command(INGEST, _ROWS, None),
    "probe": Command(
        ("probe", "correspondence", "--store", "STORE"), "select count(*), count(distinct head) from score"
    ),
    "eval": Command(("eval", "shapes-qa", "--limit", "8", "--store", "STORE"), "select count(*) from answer"),
    "report": Command(("report", "build", "overview", "--store", "STORE")),
    "optimize": Command(("optimize", "--store", "STORE"), _ROWS),
    "drop": Command(("drop", RUN, "--yes", "--store", "STORE"), "select count(*) from run"),
    "repair": Command(("repair", RUN, "--store", "STORE"), _ROWS, "broken"),
    "export": Command(("export", "shapes", "coco", "DIR/new", "--limit", "40")),
    "backup": Command(("backup", "STORE", "DIR/new"), None),
    "search": Command(("search", *_SEARCH, "--store", "STORE"), _ROWS, reads=True),
    "sql": Command(("sql", _SUM, "--store", "STORE"), _ROWS, reads=True),
    "check": Command(("check", "--deep", "--store", "STORE"), _ROWS, reads=True),
}
#: Seconds from the signal to the end that are in order: 5 and the batch at hand, on a busy machine.
LONGEST = 8.0


@dataclass
class Trial:
    """What one signal led to."""

    command: str
    number: signal.Signals
    twice: bool
    code: int
    seconds: float
    faults: list[str]


def start(command: Command, folder: Path) -> subprocess.Popen[str]:
    """The command line, in a process that does not ignore Ctrl-C."""
    here = {"STORE": str(folder / "store"), "DIR": str(folder)}
    words = [word.replace("STORE", here["STORE"]).replace("DIR", here["DIR"]) for word in command.words]
    return subprocess.Popen(
        [sys.executable, "-m", "kvstore", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
        start_new_session=True,
    )


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """A signal as `kill` sends it, or a terminal."""
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _heed_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def shown(folder: Path, sql: str | None) -> list[Any]:
    """What a query finds; else the pages of reports and the files of an export that are there."""
    if sql is None:
        return sorted(
            path.name for path in (*folder.glob("store/reports/*.html"), *folder.glob("new/**/*.*"))
        )
    with Store.open(folder / "store").connect() as con:
        return con.execute(sql).fetchall()


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders, and tickets of those who wait for the catalog."""
    places = [*folder.rglob("*.tmp*"), *folder.glob("store/locks/*.queue/*"), *folder.glob(".*")]
    return [str(path.relative_to(folder)) for path in places]


class Bench:
    """A store to begin with for each command, how long it takes, and what it leaves when undisturbed."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.ended(start(COMMANDS["ingest"], folder / "whole"))
        shutil.copytree(folder / "whole", folder / "broken", symlinks=True)
        flip(folder / "broken" / "store")
        self.seconds: dict[str, float] = {}
        self.wanted: dict[str, list[Any]] = {}
        for name in names:
            command, root = COMMANDS[name], self.fresh(name)
            begun = time.monotonic()
            self.ended(start(command, root))
            self.seconds[name] = time.monotonic() - begun
            self.wanted[name] = shown(root, command.shows)

    @staticmethod
    def ended(process: subprocess.Popen[str]) -> None:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said

    def fresh(self, name: str) -> Path:
        """The folder in which a command is started."""
        root, begins = self.folder / "trial", COMMANDS[name].begins
        shutil.rmtree(root, ignore_errors=True)
        if begins:
            shutil.copytree(self.folder / begins, root, symlinks=True)
        else:
            root.mkdir()
        return root

    def trial(self, name: str, chance: random.Random) -> Trial:
        """One signal, or two, and what they leave."""
        root, number, twice = self.fresh(name), chance.choice(SIGNALS), chance.random() < 0.2
        process = start(COMMANDS[name], root)
        time.sleep(chance.uniform(0, self.seconds[name]))
        if process.poll() is not None:  # the machine is less busy than it was: the next comes sooner
            self.seconds[name] *= 0.6
        send(process, number)
        sent = time.monotonic()
        if twice:
            time.sleep(chance.uniform(0, 0.3))
            send(process, number)
        _, said = process.communicate(timeout=120)
        done = Trial(name, number, twice, process.returncode, time.monotonic() - sent, [])
        done.faults = [*self.at_once(done, said, root), *self.afterwards(done, root)]
        return done

    def at_once(self, done: Trial, said: str, root: Path) -> list[str]:
        """What is wrong with how the command ended and what it left."""
        faults = []
        if done.code not in (0, 128 + done.number, -done.number):
            faults.append(f"exit code {done.code}")
        if done.seconds > LONGEST:
            faults.append(f"{done.seconds:.1f} s")
        if done.code and ("Traceback" in said or "kvstore: " in said):
            faults.append("said: " + said.strip().splitlines()[-1][:150])
        if not done.twice:
            faults += [f"left over {name}" for name in leftovers(root) if name != ".new.backup"]
        if COMMANDS[done.command].reads or not (root / "store" / "catalog.duckdb").exists():
            return faults
        store = Store.open(root / "store")
        if not done.twice:
            faults += ["still running" for run in store.runs() if run["state"] == "running"]
        return faults + [f"check {found.check}: {found.first}" for found in store.check() if not found.ok]

    def afterwards(self, done: Trial, root: Path) -> list[str]:
        """What is wrong after the same command again (what is dropped or exported is so once)."""
        command, once = COMMANDS[done.command], self.wanted[done.command]
        if command.reads:
            return []
        if done.command not in ("drop", "export", "backup") or shown(root, command.shows) != once:
            self.ended(start(command, root))
        found = shown(root, command.shows)
        faults = [] if found == once else [f"{found}, not {once}"]
        return faults + [f"left over at last {name}" for name in leftovers(root)]


def flip(store: Path) -> None:
    """Change 64 bytes in the middle of the largest file of vectors."""
    path = max(store.glob("lance/*.patch_kv.lance/data/*"), key=lambda path: path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(64))


def main(trials: int, seed: int, commands: list[str]) -> int:
    """Run the trials and print what they led to."""
    chance, made = random.Random(seed), []
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), commands)
        print("undisturbed:", {name: f"{seconds:.1f} s" for name, seconds in bench.seconds.items()})
        for turn in range(trials):
            trial = bench.trial(commands[turn % len(commands)], chance)
            made.append(trial)
            print(
                f"{trial.command:9} {trial.number.name}{' twice' if trial.twice else '':6} {trial.code:4}"
                f" {trial.seconds:5.1f} s {'; '.join(trial.faults)}",
                flush=True,
            )
    for key, count in sorted(Counter((t.command, t.number.name, t.code) for t in made).items()):
        print(*key, count)
    wrong, longest = sum(bool(trial.faults) for trial in made), max(trial.seconds for trial in made)
    late = sum(trial.code == 0 for trial in made)
    print(f"{len(made)} signals, {late} after the end, {wrong} wrong, the longest took {longest:.1f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    given = sys.argv[1:]
    number = int(given[0]) if given else 100
    raise SystemExit(
        main(number, int(given[1]) if given[1:] else int(time.time()), given[2:] or list(COMMANDS))
    )
