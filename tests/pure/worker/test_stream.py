"""The threads around the loop of a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import StoppedError
from runner.worker.stream import Line, ReadAhead, WriteBehind, in_order


def counting(stop: int, closed: threading.Event | None = None) -> Generator[int, None, None]:
    try:
        yield from range(stop)
    finally:
        if closed is not None:
            closed.set()


def test_items_arrive_in_order_and_once() -> None:
    with ReadAhead(counting(1000), depth=2) as items:
        assert list(items) == list(range(1000))


def test_the_reader_is_never_more_than_its_depth_ahead() -> None:
    produced: list[int] = []

    def source() -> Generator[int, None, None]:
        for number in range(100):
            produced.append(number)
            yield number

    with ReadAhead(source(), depth=2) as items:
        for number in items:
            # in the loop's hand, two in the queue, one waiting to be put
            assert len(produced) <= number + 1 + 2 + 1


def test_an_error_of_the_source_surfaces_in_the_loop_after_what_came_before() -> None:
    def source() -> Generator[int, None, None]:
        yield 1
        raise OSError("disk gone")

    with ReadAhead(source(), depth=2) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="disk gone"):
            next(items)


def test_leaving_early_closes_the_source_in_its_thread() -> None:
    closed = threading.Event()
    with ReadAhead(counting(10**9, closed), depth=1) as items:
        assert next(items) == 0
    assert closed.is_set()
    assert not any(thread.name == "read-ahead" for thread in threading.enumerate())


def test_everything_put_is_written_in_order_before_flush_returns() -> None:
    written: list[int] = []
    with WriteBehind(written.append, depth=2) as writer:
        for number in range(500):
            writer.put(number)
        writer.flush()
        assert written == list(range(500))


def test_an_error_of_the_writer_surfaces_in_put_or_flush_and_never_blocks() -> None:
    def write(number: int) -> None:
        raise OSError("disk full")

    def put_all(writer: WriteBehind[int]) -> None:
        for number in range(100):
            writer.put(number)
        writer.flush()

    with WriteBehind(write, depth=1) as writer, pytest.raises(OSError, match="disk full"):
        put_all(writer)


def test_an_error_in_the_last_item_surfaces_in_flush() -> None:
    def write(number: int) -> None:
        if number == 3:
            raise OSError("disk full")

    with WriteBehind(write, depth=8) as writer:
        for number in range(3):
            writer.put(number)
        writer.put(3)
        with pytest.raises(OSError, match="disk full"):
            writer.flush()


def test_leaving_on_an_error_ends_the_writer_without_flushing() -> None:
    written: list[int] = []

    def fail_inside() -> None:
        with WriteBehind(written.append, depth=4) as writer:
            writer.put(1)
            raise ValueError("elsewhere")

    with pytest.raises(ValueError, match="elsewhere"):
        fail_inside()
    assert not any(thread.name == "write-behind" for thread in threading.enumerate())


@contextmanager
def doubling() -> Iterator[Callable[[int], int]]:
    yield lambda number: 2 * number


@settings(max_examples=30, deadline=None)
@given(units=st.integers(0, 60), threads=st.integers(1, 5), depth=st.integers(1, 6), seed=st.integers(0, 99))
def test_several_readers_keep_the_order_of_the_units(units: int, threads: int, depth: int, seed: int) -> None:
    naps = Random(seed)

    @contextmanager
    def reader() -> Iterator[Callable[[int], int]]:
        def read(number: int) -> int:
            time.sleep(naps.random() / 2000)
            return 2 * number

        yield read

    with ReadAhead(counting(units), depth, reader, threads) as items:
        assert list(items) == [2 * number for number in range(units)]


def test_several_readers_are_never_more_than_the_depth_ahead() -> None:
    made: list[int] = []

    @contextmanager
    def reader() -> Iterator[Callable[[int], int]]:
        yield lambda number: made.append(number) or number  # type: ignore[func-returns-value]

    with ReadAhead(counting(200), 3, reader, 4) as items:
        for number in items:
            assert len(made) <= number + 1 + 3


def test_an_error_of_one_reader_surfaces_at_its_place_and_ends_the_others() -> None:
    @contextmanager
    def reader() -> Iterator[Callable[[int], int]]:
        def read(number: int) -> int:
            if number == 7:
                raise OSError("unit 7 is bad")
            return number

        yield read

    got: list[int] = []
    with pytest.raises(OSError, match="unit 7"), ReadAhead(counting(10**9), 3, reader, 3) as items:
        got.extend(items)
    assert got == list(range(7))
    assert not any(thread.name == "read-ahead" for thread in threading.enumerate())


def test_streams_that_share_their_room_read_one_after_the_other_and_give_it_back() -> None:
    room, line = threading.Semaphore(2), Line()
    drawn: list[int] = []

    def units(first: int) -> Generator[int, None, None]:
        for number in range(first, first + 5):
            drawn.append(number)
            yield number

    turns = [partial(line.turn, number) for number in range(3)]
    with (
        ReadAhead(units(10), room, doubling, 2, turns[1]) as second,
        ReadAhead(units(0), room, doubling, 2, turns[0]) as first,
    ):
        assert list(first) == [0, 2, 4, 6, 8]
        assert list(second) == [20, 22, 24, 26, 28]
    assert drawn == [*range(5), *range(10, 15)]
    with ReadAhead(units(20), room, doubling, 2, turns[2]) as third:
        assert next(third) == 40  # and left with items on their way
    assert room.acquire(blocking=False)
    assert room.acquire(blocking=False)
    assert not room.acquire(blocking=False)


def test_a_stream_that_is_left_before_its_turn_does_not_wait_for_it() -> None:
    line = Line()
    with ReadAhead(counting(5), 2, doubling, 2, partial(line.turn, 1)):
        pass
    assert not any(thread.name == "read-ahead" for thread in threading.enumerate())


def test_turns_come_in_the_order_of_their_numbers_whoever_asks_first() -> None:
    line, order = Line(), list[int]()

    def loop(number: int) -> None:
        with line.turn(number, lambda: None):
            order.append(number)

    threads = [threading.Thread(target=loop, args=(number,)) for number in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3]


def test_a_turn_that_ends_before_it_began_lets_nobody_overtake_the_one_in_progress() -> None:
    line, order = Line(), list[int]()

    def third() -> None:
        with line.turn(2, lambda: None):
            order.append(2)

    with line.turn(0, lambda: None):
        line.leave(1)
        thread = threading.Thread(target=third)
        thread.start()
        thread.join(0.2)
        order.append(0)
    thread.join(10)
    assert order == [0, 2]


def test_whoever_waits_for_a_turn_looks_around_and_may_give_up() -> None:
    line = Line()

    def look() -> None:
        raise StoppedError("enough")

    with pytest.raises(StoppedError), line.turn(1, look):
        pass
    with line.turn(0, lambda: None):
        pass
    with line.turn(2, lambda: None):
        pass


@settings(max_examples=30, deadline=None)
@given(items=st.integers(0, 30), at_once=st.integers(1, 4))
def test_calls_in_flight_keep_the_order_of_their_items(items: int, at_once: int) -> None:
    running, most = list[int](), [0]

    def call(number: int) -> int:
        running.append(number)
        most[0] = max(most[0], len(running))
        time.sleep(0.0002 * (number % 3))
        running.remove(number)
        return number * number

    assert list(in_order(call, range(items), at_once)) == [number * number for number in range(items)]
    assert most[0] <= at_once


def test_an_error_of_a_call_surfaces_at_its_place() -> None:
    def call(number: int) -> int:
        if number == 3:
            raise ValueError("item 3")
        return number

    for at_once in (1, 2):
        got: list[int] = []
        with pytest.raises(ValueError, match="item 3"):
            got.extend(in_order(call, range(10), at_once))
        assert got == [0, 1, 2]


class _Limited(threading.Thread):
    """Of a process that may start `left` more of these."""

    left = 0

    def start(self) -> None:
        if _Limited.left == 0:
            raise RuntimeError("can't start new thread")
        _Limited.left -= 1
        super().start()


@pytest.mark.parametrize("started", [1, 2])
def test_where_no_more_threads_may_be_started_those_that_were_read_all(
    monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    monkeypatch.setattr(threading, "Thread", _Limited)
    monkeypatch.setattr(_Limited, "left", started)
    with ReadAhead(counting(100), depth=2, threads=4) as items:
        assert list(items) == list(range(100))


def test_where_no_thread_may_be_started_the_loop_learns_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()
    monkeypatch.setattr(threading, "Thread", _Limited)
    with ReadAhead(counting(100, closed), depth=2, threads=2) as items, pytest.raises(RuntimeError, match="new thread"):
        next(items)
