"""The two threads around the loop of a worker."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from runner.stream import ReadAhead, WriteBehind


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
