"""Patience with a store: what fails and may pass is tried again, after a pause drawn at random, a bounded time.

Refuses to know which failures may pass: the caller says so. The invariant: every wait ends, and so do all together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from jobs.errors import StorageError

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # PROTOCOL, failure classes: transient I/O


@dataclass(frozen=True)
class Patience:
    """How often and how long.

    tries:    calls in all, the first included.
    total_s:  no try begins later than this after the first.
    sleep, clock, uniform:  None: of the modules `time` and `random`. uniform(a, b) draws the share of a pause.
    """

    tries: int = 12
    total_s: float = 300.0
    sleep: Callable[[float], None] | None = None
    clock: Callable[[], float] | None = None
    uniform: Callable[[float, float], float] | None = None

    def call(self, function: Callable[[], T], may_pass: Callable[[StorageError], bool] = lambda error: True) -> T:
        """What `function` returns. raises: the StorageError of the last try; other errors at once."""
        clock = self.clock or time.monotonic
        began = clock()
        tried = 0
        while True:
            tried += 1
            try:
                return function()
            except StorageError as error:
                pause_s = self.pause_s(tried)
                waited_s = clock() - began
                if not may_pass(error):
                    raise
                if tried >= self.tries or waited_s + pause_s > self.total_s:
                    if tried > 1:
                        error.facts |= {"tries": tried, "waited_s": round(waited_s, 1)}
                    raise
            self.pause(pause_s)

    def pause_s(self, tried: int) -> float:
        """The pause after `tried` tries. Full jitter: workers that failed together do not come back together."""
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tried - 1, 10))
        return (self.uniform or random.uniform)(0.0, longest_s)

    def pause(self, seconds: float) -> None:
        (self.sleep or time.sleep)(seconds)


READ = Patience()
# Documents that may be missing (heartbeat, receipts) are written by the driver's only loop: it must not stand still.
BEST_EFFORT = Patience(tries=3, total_s=5.0)
PUBLISH = Patience(tries=5)
ONCE = Patience(tries=1)
