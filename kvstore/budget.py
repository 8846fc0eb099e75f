"""So much of something at a time, over all threads of the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, local


class Budget:
    """What all threads together hold at most `most` of; who asks for more waits until others give back.

    What is larger than the whole budget gets it all. A thread that holds some is let through when it asks
    again, so it never waits for itself.
    """

    def __init__(self, most: int) -> None:
        self.most, self._left = most, most
        self._changed, self._held = Condition(), local()

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Within, `amount` is this thread's."""
        if getattr(self._held, "some", False):
            yield
            return
        amount = min(amount, self.most)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        self._held.some = True
        try:
            yield
        finally:
            self._held.some = False
            with self._changed:
                self._left += amount
                self._changed.notify_all()
