"""A process that answers one question after another, and is replaced where it dies or is silent for long."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar

Question = TypeVar("Question")

_SPAWN = multiprocessing.get_context("spawn")


class Worker(Generic[Question]):
    """Asks a function of a module, which returns what is wrong or None, in a process of its own.

    patience   seconds that an answer may take, the start of the process among them
    """

    def __init__(self, function: Callable[[Question], str | None], patience: float) -> None:
        self._function, self._patience = function, patience
        self._start()

    def _start(self) -> None:
        self._pipe, other = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_answer, args=(other, self._function), daemon=True)
        self._process.start()
        other.close()

    def ask(self, question: Question) -> str | None:
        """The function's answer; that the process died or did not answer is one, too."""
        self._pipe.send(question)
        try:
            if self._pipe.poll(self._patience):
                found: str | None = self._pipe.recv()
                return found
            fault = f"no answer in {self._patience:.0f} s"
            self._process.kill()
            self._process.join()
        except EOFError:
            self._process.join()
            fault = f"the process died, exit code {self._process.exitcode}"
        self._start()
        return fault


def _answer(pipe: Connection, function: Callable[[Question], str | None]) -> None:
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - what libraries say all the time; open to the end
    while True:
        pipe.send(function(pipe.recv()))
