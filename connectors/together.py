"""Calls that wait for a store at the same time, on a few threads that all readers of this process share.

Refuses to know what a call does, and when it is tried again: each sees to that by itself. The invariants: at most
`AT_ONCE` calls of one caller and `MOST` of this process are under way, one call of each caller in turn; the first error
ends all that have not begun; who waits can be interrupted, and no thread keeps the process alive.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

AT_ONCE = 16  # 33 requests of 30 ms each take three round trips; what more would gain, all readers together have
MOST = 64  # the next power of two above what four readers ask for; clients are given as many connections
_IDLE_S = 10.0  # longer than a batch takes to be scored, as a rule
_LOOK_S = 0.5

Task = Callable[[], object]


class Threads:
    """Daemon threads, made when they are needed, that end when nothing was to do for a while."""

    def __init__(self, most: int = MOST, idle_s: float = _IDLE_S) -> None:
        self._most, self._idle_s = most, idle_s
        self._tasks = deque[Task]()
        self._changed = threading.Condition()
        self._living = self._idle = 0

    def start(self, task: Task) -> bool:
        """Have `task` called, which does not raise, after those before it. False: there is no thread, nor will be."""
        with self._changed:
            self._tasks.append(task)
            if len(self._tasks) <= self._idle:
                self._changed.notify()
            elif self._living < self._most:
                try:
                    threading.Thread(target=self._live, name="store-ranges", daemon=True).start()
                except RuntimeError:  # this process may start no more threads
                    if not self._living:
                        self._tasks.remove(task)
                        return False
                else:
                    self._living += 1
        return True

    def _live(self) -> None:
        while True:
            with self._changed:
                while not self._tasks:
                    self._idle += 1
                    woken = self._changed.wait(self._idle_s)
                    self._idle -= 1
                    if not woken and not self._tasks:
                        self._living -= 1
                        return
                task = self._tasks.popleft()
            task()


_threads = Threads()


def _anew() -> None:
    global _threads
    _threads = Threads()


os.register_at_fork(after_in_child=_anew)  # threads stay behind, and a lock may be held by one of them


class _Together:
    """The calls of one caller."""

    def __init__(self, calls: Sequence[Task]) -> None:
        self._calls, self._begun, self._ended = calls, 0, 0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._error: BaseException | None = None

    def wait(self, at_once: int, threads: Threads) -> None:
        try:
            for _ in range(min(at_once, len(self._calls))):
                if not threads.start(lambda: self._one(threads)):
                    self._one(threads)
            while not self._done.wait(_LOOK_S):  # a signal that another thread received is heard in between
                pass
        finally:
            with self._lock:
                self._begun = len(self._calls)  # where the caller is interrupted: no further one
        if self._error is not None:
            raise self._error

    def _one(self, threads: Threads) -> None:
        """The next call; those after it wait behind those of other callers."""
        while (call := self._next()) is not None:
            try:
                call()
            except BaseException as error:  # raised where it is waited for
                self._finished(error)
            else:
                self._finished(None)
            if threads.start(lambda: self._one(threads)):
                return

    def _next(self) -> Task | None:
        with self._lock:
            if self._begun == len(self._calls):
                return None
            self._begun += 1
            return self._calls[self._begun - 1]

    def _finished(self, error: BaseException | None) -> None:
        with self._lock:
            self._ended += 1
            if error is not None and self._error is None:
                self._error, self._begun = error, len(self._calls)
            if self._error is not None or self._ended == len(self._calls):
                self._done.set()


def call_together(calls: Sequence[Task], at_once: int = AT_ONCE) -> None:
    """Have all `calls` done, up to `at_once` at the same time; one after the other, here, where that is 1.

    raises: what the first of them raises that fails. Those under way then end by themselves, unheard.
    """
    if at_once == 1 or len(calls) == 1:
        for call in calls:
            call()
    elif calls:
        _Together(calls).wait(at_once, _threads)
