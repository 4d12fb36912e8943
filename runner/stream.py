"""Two threads around a loop: one reads ahead of it, one writes behind it, each through a bounded queue.

Knows nothing of rows. The invariants: no wait is without a bound, an error on either side surfaces in the loop
at its next step, and no thread outlives the `with` block by more than the call it is in.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_WAIT_S = 0.5  # how often a blocked side looks whether the other is still there
_JOIN_S = 30.0  # how long leaving the block waits for a call in progress


class _Ended:
    """Stands in the queue for the end of the stream."""


class ReadAhead(Generic[T]):
    """Iterate over `source` in a thread of its own, at most `depth` items ahead of the loop.

    source: a generator; it is closed in its own thread when the block is left early.
    """

    def __init__(self, source: Generator[T, None, None], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[T | type[_Ended]] = queue.Queue(depth)
        self._left = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._items()

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._thread.join(_JOIN_S)

    def _read(self) -> None:
        try:
            for item in self._source:
                if not _put(self._queue, item, self._left):
                    break
                del item  # the queue owns it now: memory goes back as soon as the loop is done with it
        except BaseException as error:  # whatever it is, the loop must see it
            self._error = error
        finally:
            self._source.close()
            _put(self._queue, _Ended, self._left)

    def _items(self) -> Iterator[T]:
        while True:
            try:
                item = self._queue.get(timeout=_WAIT_S)
            except queue.Empty:
                if not self._thread.is_alive() and self._queue.empty():
                    item = _Ended
                else:
                    continue
            if item is _Ended:
                if self._error is not None:
                    raise self._error
                return
            yield item  # type: ignore[misc]  # the end mark was dealt with above
            del item


class WriteBehind(Generic[T]):
    """Call `write` for every item in a thread of its own; `put` blocks when `depth` items wait."""

    def __init__(self, write: Callable[[T], Any], depth: int) -> None:
        self._write = write
        self._queue: queue.Queue[T | type[_Ended]] = queue.Queue(depth)
        self._left = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._drain, name="write-behind", daemon=True)

    def __enter__(self) -> WriteBehind[T]:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._thread.join(_JOIN_S)

    def put(self, item: T) -> None:
        """Hand one item over. raises: what `write` raised for an earlier one."""
        _put(self._queue, item, self._left)
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Wait until everything is written; nothing may be put afterwards. raises: what `write` raised."""
        _put(self._queue, _Ended, self._left)
        while self._thread.is_alive():
            self._thread.join(_WAIT_S)
        if self._error is not None:
            raise self._error

    def _drain(self) -> None:
        while not self._left.is_set():
            try:
                item = self._queue.get(timeout=_WAIT_S)
            except queue.Empty:
                continue
            if item is _Ended:
                return
            if self._error is None:  # after an error the queue is emptied, so that `put` cannot block on it
                try:
                    self._write(item)  # type: ignore[arg-type]
                except BaseException as error:
                    self._error = error
            del item


def _put(target: queue.Queue[Any], item: Any, left: threading.Event) -> bool:
    while not left.is_set():
        try:
            target.put(item, timeout=_WAIT_S)
        except queue.Full:
            continue
        return True
    return False
