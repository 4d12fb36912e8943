"""InHand: the attempts that one worker carries, and how far each of them is.

Owns the count of rows and of calls; refuses to know what is done for an attempt. The invariant: an attempt is in hand
from its beginning to its end, whatever ends it, and the oldest one speaks for the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from connectors.store.calls import WAITS
from runner.worker.spec import Progress


def waits() -> str:
    """For which call on a store this process has waited for long; for the `Progress` that leaves it."""
    return WAITS.said


class InHand:
    """Attempts are numbered in the order in which they were given out. Several threads may count."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[str, int]] = {}  # number -> id, rows done
        self._calls = 0
        self._changed = threading.Condition()

    @contextmanager
    def attempt(self, number: int, id: str) -> Iterator[None]:
        self._rows[number] = id, 0
        try:
            yield
        finally:
            with self._changed:
                del self._rows[number]
                self._changed.notify_all()

    def count(self, number: int, rows: int) -> None:
        with self._changed:  # two calls of the model may be in flight
            id, done = self._rows[number]
            self._rows[number] = id, done + rows

    def count_call(self) -> None:
        """A call of a model that may take minutes to find one row: it is no stall while they go on."""
        self._calls += 1

    def await_earlier(self, number: int, at_most_s: float) -> None:
        """Wait until no earlier attempt is in hand."""
        with self._changed:
            self._changed.wait_for(lambda: min(self._rows) == number, at_most_s)

    @property
    def progress(self) -> Progress:
        in_hand = [rows for _, rows in sorted(self._rows.copy().items())]
        beside = sum(rows for _, rows in in_hand[1:])
        return Progress(*in_hand[0], beside, self._calls) if in_hand else Progress()
