"""Where the time of an attempt goes: seconds per stage, added up by whichever threads do the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# In the order in which a row group meets them. `read` (fetching bytes) and `decode` are the reader threads', `encode`
# is the writer thread's, `tune` looks for the batch size, once per worker. The compute thread spends its time on
# COMPUTE, where `pictures` is decoding them in front of the model, `compile` is the calls of the model with which a
# shape was new, and `run` all others; `idle` is what it waited before that because nothing was in hand. `wait_encode`
# and `publish` come behind it, while the next attempt computes.
STAGES = (
    *("read", "decode", "idle", "tune", "wait_read", "feed", "pictures", "compile", "run", "fetch"),
    *("wait_write", "encode", "wait_encode", "publish"),
)
COMPUTE = ("wait_read", "feed", "pictures", "compile", "run", "fetch", "wait_write")


class StageClock:
    """Adds up seconds per stage, and the CPU seconds of the threads that spent them. Several threads may share one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.cpu: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start, time.thread_time() - cpu)

    def add(self, stage: str, seconds: float, cpu: float = 0.0) -> None:
        with self._lock:
            self.seconds[stage] += seconds
            self.cpu[stage] += cpu

    def timed(self, stage: str, call: Callable[P, R]) -> Callable[P, R]:
        """`call`, with its time counted under `stage`."""

        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            with self(stage):
                return call(*args, **kwargs)

        return measured

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
