"""Locks between processes and threads: who waits, in which order, and when waiting is given up."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore import locks
from kvstore.errors import StoreBusyError
from kvstore.store import Store

#: Waits for the lock, says that it has it, and keeps it until it is told to go on.
WAITER = """
import sys
from pathlib import Path
from kvstore import locks
with locks.hold(Path(sys.argv[1]), "the catalog", 60):
    print("held", flush=True)
    sys.stdin.readline()
"""
Process = subprocess.Popen[str]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "catalog.lock"


@pytest.fixture
def start(lock: Path) -> Iterator[Callable[[], Process]]:
    """Start a process that waits for a lock that is held."""
    started: list[Process] = []

    def begin() -> Process:
        waiting = len(tickets(lock))
        command = [sys.executable, "-c", WAITER, str(lock)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        until(lambda: len(tickets(lock)) > waiting)
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def tickets(lock: Path) -> list[str]:
    queue = lock.with_suffix(".queue")
    return sorted(path.name for path in queue.iterdir()) if queue.is_dir() else []


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_it(process: Process) -> bool:
    assert process.stdout
    return process.stdout.readline() == "held\n"


def let_go(process: Process) -> None:
    process.communicate("\n", timeout=30)


def test_first_come_first_served_among_threads_too(lock: Path) -> None:
    served: list[int] = []

    def wait(number: int) -> None:
        with locks.hold(lock, "the catalog", 60):
            served.append(number)
            time.sleep(0.02)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(8)]
    with locks.hold(lock, "the catalog"):
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: len(tickets(lock)) > number)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert served == list(range(8))
    assert tickets(lock) == []


def test_who_is_killed_while_waiting_stands_in_nobodys_way(lock: Path, start: Any) -> None:
    with locks.hold(lock, "the catalog"):
        first, second = start(), start()
        first.kill()
        first.wait()
    assert has_it(second)
    let_go(second)
    assert tickets(lock) == []


def test_the_lock_of_a_killed_holder_goes_to_the_next(lock: Path, start: Any) -> None:
    with locks.hold(lock, "the catalog"):
        first, second = start(), start()
    assert has_it(first)
    first.kill()
    assert has_it(second)


def test_who_is_stopped_while_waiting_is_passed_by_and_served_later(lock: Path, start: Any) -> None:
    with locks.hold(lock, "the catalog"):
        first = start()
        first.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    with locks.hold(lock, "the catalog", 60):
        assert locks.STILL <= time.monotonic() - begun < locks.STILL + 5
    first.send_signal(signal.SIGCONT)
    assert has_it(first)


def test_one_holder_for_too_long_is_an_error_that_names_it(lock: Path, start: Any) -> None:
    with locks.hold(lock, "the catalog"):
        holder = start()
    assert has_it(holder)
    begun = time.monotonic()
    named = rf"the catalog is held by process {holder.pid} on .+ since 20.+; wait for it, or end it"
    with pytest.raises(StoreBusyError, match=named), locks.hold(lock, "the catalog", 0.5):
        pass
    assert 0.5 <= time.monotonic() - begun < 5
    assert tickets(lock) == []


def test_who_comes_again_at_once_stands_behind_who_waits(lock: Path) -> None:
    """Two that follow each other without a pause take turns, one by one: neither starves the other."""
    served: list[str] = []
    turns = 10

    def follow(name: str) -> None:
        for _ in range(turns):
            with locks.hold(lock, "the catalog", 60):
                served.append(name)
                until(lambda: bool(tickets(lock)) or len(served) >= 2 * turns - 1)

    threads = [threading.Thread(target=follow, args=(name,)) for name in "ab"]
    with locks.hold(lock, "the catalog"):
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda number=number: len(tickets(lock)) == number)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert "".join(served) == "ab" * turns


# ------------------------------------------------------------------------------------ twelve publishers

PUBLISHERS, HELD, PATIENCE = 12, 0.5, 5.0


def publish(root: Path, number: int) -> None:
    """A publish that takes its time; patience is shorter than all of them together."""
    locks.PATIENCE = PATIENCE
    store = Store.open(root)
    asked = time.monotonic()
    with store.publish() as con:
        con.execute("insert into served select ?, ?, ?", [number, asked, time.monotonic()])
        time.sleep(HELD)


def test_twelve_publishers_wait_longer_than_their_patience_and_all_end_well(tmp_path: Path) -> None:
    """Each waits for the others, who come and go; nobody is passed by who came half a second earlier."""
    store = Store.open(tmp_path, create=True)
    with store.publish() as con:
        con.execute("create table served (number integer, asked double, begun double)")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kvstore.store", "tests.kvstore.test_locks"])
    processes = [context.Process(target=publish, args=(tmp_path, number)) for number in range(PUBLISHERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PUBLISHERS
    with store.tables() as con:
        served = con.execute("select number, asked, begun from served order by begun").fetchall()
    assert sorted(number for number, _, _ in served) == list(range(PUBLISHERS))
    assert max(begun - asked for _, asked, begun in served) > PATIENCE
    for number, asked, begun in served:
        passed = [other for other, later, taken in served if later > asked + 0.5 and taken < begun]
        assert passed == [], f"{number} came first"
    assert tickets(tmp_path / "locks" / "catalog.lock") == []
    assert not list(tmp_path.glob("*.tmp*"))
