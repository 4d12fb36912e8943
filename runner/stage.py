"""Where the time of a worker goes: seconds per stage, added up by whoever does the work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# In the order in which a row group meets them. `read` and `encode` run in threads of their own, beside the rest;
# `wait_read` and `wait_write` are what the compute thread spent waiting for them.
STAGES = ("read", "wait_read", "feed", "run", "fetch", "wait_write", "encode", "publish")


class StageClock:
    """Adds up seconds per stage. Each stage belongs to one thread, so no lock is needed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """`items`, with the time spent waiting for the next one counted under `stage`."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
            del item
