"""Signals: when they raise, when they wait, and how the process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvstore.store import Store

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A command that begins, works, and says how it ended.
WORK = """
import sys, threading, time
from kvstore import interrupts

def work():
    print("begins", flush=True)
    {body}
    print("worked on", flush=True)
    return 0

threading.Thread(target=time.sleep, args=(30,)).start()  # would hold the process at its end
print("ended", interrupts.run(work, ends=True), flush=True)
"""
BODIES = {
    "sleep": "time.sleep(30)",
    "publish": """
    with interrupts.shielded():
        time.sleep(1)
        print("published", flush=True)
    time.sleep(30)""",
    "swallowed": """
    try:
        time.sleep(30)
    except BaseException:
        print("swallowed", flush=True)
    time.sleep(30)""",
    "query": """
    import duckdb
    try:
        duckdb.sql("select sum(i * random()) from range(1000000000000) t(i)").fetchall()
    except Exception:  # what DuckDB makes of an exception of a signal
        raise""",
    "stuck": """
    with interrupts.shielded():
        time.sleep(30)""",
}


def started(body: str, ignored: signal.Signals | None = None) -> subprocess.Popen[str]:
    def before() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", WORK.format(body=BODIES[body])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )
    assert process.stdout
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("body", "said"),
    [("sleep", ""), ("publish", "published\n"), ("swallowed", "swallowed\n"), ("query", "")],
)
def test_a_signal_ends_a_command_with_its_code_and_without_a_word(
    body: str, said: str, number: signal.Signals
) -> None:
    """Also where a library made another exception of it or lost it; threads do not hold the process."""
    process = started(body)
    begun = time.monotonic()
    process.send_signal(number)
    assert process.communicate(timeout=25) == (said, "")
    assert process.returncode == 128 + number
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_what_does_not_hear_the_first(number: signal.Signals) -> None:
    process = started("stuck")
    process.send_signal(number)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=15)
    assert process.returncode == 128 + number


def test_a_signal_that_was_ignored_from_the_start_stays_ignored() -> None:
    """As `nohup` has it."""
    process = started("sleep", ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=15)
    assert process.returncode == 128 + signal.SIGTERM


PUBLISHER = """
import itertools, sys
from kvstore import interrupts
from kvstore.store import Store

def work():
    store = Store.open(sys.argv[1])
    for turn in itertools.count():
        with store.publish() as con:
            con.execute("insert into t select $turn from range(1000)", {"turn": turn})
        print(turn, flush=True)

interrupts.run(work, ends=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_amid_publishes_leaves_whole_ones_and_nothing_else(
    tmp_path: Path, number: signal.Signals
) -> None:
    store = Store.open(tmp_path, create=True)
    with store.publish() as con:
        con.execute("create table t (turn integer)")
    for delay in (0.0, 0.05, 0.13):
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (128 + number, "")
        with store.tables() as con:
            assert con.execute("select distinct count(*) % 1000 from t group by turn").fetchall() == [(0,)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.duckdb", "lance", "locks"]
        assert not list(tmp_path.glob("locks/*.queue/*"))
        assert not list(tmp_path.glob("locks/*.json"))


def test_ctrl_c_while_the_command_line_is_loaded_ends_without_a_traceback():
    code = """
import os, signal, sys
import kvstore.__main__ as program

class Loading:
    def find_spec(self, name, path=None, target=None):
        if name == "kvstore.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Loading())
program.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


APART = """
import time
from kvstore import apart, interrupts

def work():
    print("begins", flush=True)
    list(apart.messages(time.sleep, 60))
    return 0

if __name__ == "__main__":
    interrupts.run(work, ends=True)
"""


@pytest.mark.parametrize("delay", [0.05, 2.0])  # while the other process begins, and while it works
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_a_process_apart_says_nothing_at_a_terminals_signals_and_ends_with_its_parent(
    number: signal.Signals, code: int, delay: float, tmp_path: Path
) -> None:
    """Ctrl-C reaches all processes of a terminal; a kill -9 only the one."""
    (tmp_path / "apart.py").write_text(APART)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "apart.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "begins\n"
    time.sleep(delay)
    if number == signal.SIGKILL:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)
    said = process.communicate(timeout=30)
    assert said == ("", "") or number == signal.SIGKILL  # amid the start of the other, which tells
    assert process.returncode == code
    until = time.monotonic() + 30
    while is_there(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_there(process.pid)


def is_there(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
