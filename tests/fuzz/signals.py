"""Signals at random moments of small commands: ``python -m tests.fuzz.signals [TRIALS] [SEED] [COMMAND...]``.

Each trial starts a command, sends SIGINT, SIGTERM or SIGHUP at a moment within its usual time (one in five a
second time soon after), and looks at what is left: exit code, seconds to the end, state of the run, temporary
files and tickets, `check`, and then whether the same command ends well and with the rows of an undisturbed
one. Prints a line a trial and a table; exit code 1 when one was not as it should be.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstore.store import Store

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INGEST = ("ingest", "shapes", "--limit", "12", "--layers", "0", "--sites", "value,key")
#: Command -> its words, and the rows that an undisturbed one leaves.
COMMANDS = {
    "ingest": (INGEST, "select count(*) as rows, count(distinct image_id) as images from patch_kv"),
    "probe": (
        ("probe", "correspondence"),
        "select count(*) as rows, count(distinct head) as heads from score",
    ),
    "report": (("report", "build"), None),
    "optimize": (("optimize",), "select count(*) as rows from patch_kv"),
    "drop": (("drop", "shapes-test-tiny-onevision", "--yes"), "select count(*) as rows from run"),
    "eval": (("eval", "shapes-qa", "--limit", "20"), "select count(*) as rows from answer"),
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


def start(words: tuple[str, ...], store: Path) -> subprocess.Popen[str]:
    """The command line, in a process that does not ignore Ctrl-C."""
    program = [sys.executable, "-c", "from kvstore.cli import main; main()", *words, "--store", str(store)]
    return subprocess.Popen(
        program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_signals
    )


def _heed_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def rows(root: Path, sql: str | None) -> list[Any]:
    """What a query finds; of reports the pages that are there."""
    if sql is None:
        return sorted(path.name for path in (root / "reports").glob("*.html"))
    with Store.open(root).connect() as con:
        return con.execute(sql).fetchall()


def leftovers(root: Path) -> list[str]:
    """Temporary files, and tickets of those who wait for the catalog."""
    places = [*root.rglob("*.tmp*"), *root.glob("locks/*.queue/*")]
    return [str(path.relative_to(root)) for path in places]


class Bench:
    """A store to begin with for each command, how long it takes, and what it leaves when undisturbed."""

    def __init__(self, folder: Path, commands: list[str]) -> None:
        self.folder = folder
        self.ended(start(INGEST, folder / "whole"))
        self.seconds: dict[str, float] = {}
        self.wanted: dict[str, list[Any]] = {}
        for name in commands:
            root, begun = self.fresh(name), time.monotonic()
            self.ended(start(COMMANDS[name][0], root))
            self.seconds[name] = time.monotonic() - begun
            self.wanted[name] = rows(root, COMMANDS[name][1])

    @staticmethod
    def ended(process: subprocess.Popen[str]) -> None:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said

    def fresh(self, name: str) -> Path:
        """The store that a command is started on."""
        root = self.folder / "trial"
        shutil.rmtree(root, ignore_errors=True)
        if name != "ingest":
            shutil.copytree(self.folder / "whole", root, symlinks=True)
        return root

    def trial(self, name: str, chance: random.Random) -> Trial:
        """One signal, or two, and what they leave."""
        root, number, twice = self.fresh(name), chance.choice(SIGNALS), chance.random() < 0.2
        words, sql = COMMANDS[name]
        process = start(words, root)
        time.sleep(chance.uniform(0, self.seconds[name]))
        process.send_signal(number)
        sent = time.monotonic()
        if twice:
            time.sleep(chance.uniform(0, 0.3))
            process.send_signal(number)
        _, said = process.communicate(timeout=120)
        done = Trial(name, number, twice, process.returncode, time.monotonic() - sent, [])
        done.faults = [*self.at_once(done, said, root), *self.afterwards(done, root, words, sql)]
        return done

    def at_once(self, done: Trial, said: str, root: Path) -> list[str]:
        """What is wrong with how the command ended and what it left."""
        faults = []
        if done.code not in (0, 128 + done.number, -done.number):
            faults.append(f"exit code {done.code}")
        if done.seconds > LONGEST:
            faults.append(f"{done.seconds:.1f} s")
        if done.code and "Traceback" in said and "kvstore/" in said:
            faults.append("a traceback: " + said.strip().splitlines()[-1][:100])
        if not (root / "catalog.duckdb").exists():
            return faults
        if not done.twice:
            faults += [f"left over {name}" for name in leftovers(root)]
            faults += ["still running" for run in Store.open(root).runs() if run["state"] == "running"]
        return faults + [
            f"check {found.check}: {found.first}" for found in Store.open(root).check() if not found.ok
        ]

    def afterwards(self, done: Trial, root: Path, words: tuple[str, ...], sql: str | None) -> list[str]:
        """What is wrong after the same command again (a run that is dropped can be dropped once)."""
        if done.command == "drop" and not Store.open(root).runs():
            return []
        self.ended(start(words, root))
        found = rows(root, sql)
        faults = [] if found == self.wanted[done.command] else [f"{found}, not {self.wanted[done.command]}"]
        return faults + [f"left over at last {name}" for name in leftovers(root)]


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
    print(f"{len(made)} signals, {wrong} wrong, the longest took {longest:.1f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    given = sys.argv[1:]
    number = int(given[0]) if given else 100
    raise SystemExit(
        main(number, int(given[1]) if given[1:] else int(time.time()), given[2:] or list(COMMANDS))
    )
