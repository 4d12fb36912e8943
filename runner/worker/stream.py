"""Threads around a loop: some read ahead of it, some call beside it, one writes behind it; and loops that take turns.

Knows nothing of rows. The invariants: order is kept, no thread waits on one that is gone, an error on either side
surfaces in the loop at its place, and no thread outlives the `with` block by more than the call it is in.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

_WAIT_S = 0.5  # how often a blocked side looks whether the other is still there
_JOIN_S = 30.0  # how long leaving the block waits for a call in progress


class _Ended:
    """Stands in the queue for the end of the stream."""


def _as_it_is(unit: Any) -> Any:
    return unit


class _Left(Exception):
    """The loop has left its block."""


class Line:
    """Loops that take turns: number n has its turn when those of all smaller numbers have ended; the first is 0."""

    def __init__(self) -> None:
        self._number = 0  # whose turn it is, or will be when it comes
        self._ended: set[int] = set()  # those that ended out of turn
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, number: int, look: Callable[[], None]) -> Iterator[None]:
        """Wait for the turn; leaving the block ends it.

        look: called now and then while waiting; it may raise, which ends the turn before it began.
        """
        try:
            with self._changed:
                while self._number != number:
                    self._changed.wait(_WAIT_S)
                    look()
            yield
        finally:
            self.leave(number)

    def leave(self, number: int) -> None:
        """End the turn, whether it has begun or not; a turn that has ended stays so."""
        with self._changed:
            if number >= self._number:
                self._ended.add(number)
            while self._number in self._ended:
                self._ended.remove(self._number)
                self._number += 1
            self._changed.notify_all()


Turn = Callable[[Callable[[], None]], AbstractContextManager[None]]  # of `Line.turn`, the number given


class ReadAhead(Generic[U, T]):
    """Iterate over what `threads` threads make of the units of `source`, in the order of the units.

    source:  a generator; one thread at a time draws from it, and the last one closes it.
    depth:   how many items may be in the making or ready, beside the one in the loop's hand. A semaphore is shared
             with the streams before and after; only those whose units are all drawn may then come before.
    readers: makes what turns a unit into an item, once for each thread.
    turn:    units are drawn inside of it.
    """

    def __init__(
        self,
        source: Generator[U, None, None],
        depth: int | threading.Semaphore,
        readers: Callable[[], AbstractContextManager[Callable[[U], T]]] = lambda: nullcontext(_as_it_is),
        threads: int = 1,
        turn: Turn = lambda look: nullcontext(),
    ) -> None:
        self._units, self._readers = self._in_turn(source, turn), readers
        self._room = threading.Semaphore(depth) if isinstance(depth, int) else depth
        self._slots: queue.SimpleQueue[Future[T] | type[_Ended]] = queue.SimpleQueue()  # in the order of the units
        self._drawing = threading.Lock()
        self._drawn = False  # all units are, or no more are wanted
        self._left = threading.Event()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._live, name="read-ahead", daemon=True) for _ in range(threads)]
        self._alive, self._counting = threads, threading.Lock()  # another one: who draws may wait for the loop

    def __enter__(self) -> Iterator[T]:
        """Where this process may start no more threads, those that it could start do it all."""
        for thread in list(self._threads):
            try:
                thread.start()
            except RuntimeError as error:
                self._threads.remove(thread)
                if not self._threads:
                    self._error = error
                self._end()
        return self._items()

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
        while not self._slots.empty():
            if self._slots.get() is not _Ended:
                self._room.release()

    def _items(self) -> Iterator[T]:
        while isinstance(slot := self._slots.get(), Future):
            try:
                item = slot.result()
            finally:
                self._room.release()
            del slot
            yield item
            del item
        if self._error is not None:
            raise self._error

    def _in_turn(self, source: Generator[U, None, None], turn: Turn) -> Generator[U, None, None]:
        with turn(self._look):
            yield from source

    def _look(self) -> None:
        if self._left.is_set():
            raise _Left

    def _live(self) -> None:
        try:
            with self._readers() as read:
                while (drawn := self._draw()) is not None:
                    self._fill(*drawn, read)
                    del drawn  # the loop owns the item now: memory goes back as soon as it is done with it
        except BaseException as error:  # whatever it is, the loop must see it
            self._error = error
        finally:
            self._end()

    def _draw(self) -> tuple[Future[T], U] | None:
        """The next unit and the place of its item; None when there is none, or none is wanted."""
        with self._drawing:
            try:
                self._look()
                if not self._drawn:
                    unit = next(self._units)
                    while not self._room.acquire(timeout=_WAIT_S):
                        self._look()
                    slot = Future[T]()
                    self._slots.put(slot)
                    return slot, unit
            except (StopIteration, _Left):
                pass
            except BaseException as error:
                self._error = error
            self._drawn = True
            return None

    def _fill(self, slot: Future[T], unit: U, read: Callable[[U], T]) -> None:
        try:
            slot.set_result(read(unit))
        except BaseException as error:
            self._drawn = True  # the loop never gets beyond an error
            slot.set_exception(error)

    def _end(self) -> None:
        with self._counting:
            self._alive -= 1
            if self._alive:
                return
        self._units.close()
        self._slots.put(_Ended)


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


def in_order(call: Callable[[T], U], items: Iterable[T], at_once: int) -> Iterator[U]:
    """What `call` makes of each item, in the order of the items.

    at_once: calls in progress at a time, each in a thread of its own; 1: here, and nothing is drawn ahead.
    """
    if at_once == 1:
        for item in items:
            result = call(item)
            del item
            yield result
            del result
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="call") as threads:
        running: deque[Future[U]] = deque()
        try:
            for item in items:
                running.append(threads.submit(call, item))
                del item
                if len(running) == at_once:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for call_ahead in running:
                call_ahead.cancel()


def _put(target: queue.Queue[Any], item: Any, left: threading.Event) -> bool:
    while not left.is_set():
        try:
            target.put(item, timeout=_WAIT_S)
        except queue.Full:
            continue
        return True
    return False
