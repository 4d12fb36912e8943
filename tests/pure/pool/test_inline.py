"""Workers in this process: whatever ends one of their threads is told to the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from jobs.attempt import Attempt, Failure
from jobs.errors import CapacityError, StorageError, WorkerError
from jobs.schedule.event import AttemptFailed, Event, WorkerFailedToStart, WorkerLost, WorkerReady
from runner.engine import EngineOptions
from runner.pool import inline
from runner.pool.inline import InlinePool

REFUSED = "can't start new thread"  # in CPython's words


class Puppet:
    """A worker that answers as `does` does."""

    does: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, spec: object, name: str, options: object, *, isolated: bool) -> None:
        self.name, self.stopped = name, threading.Event()

    def attempt(self, attempt: Attempt, number: int) -> Failure:
        Puppet.does()
        return Failure(attempt.shard, attempt.id, number, self.name, StorageError("by itself"))

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None: ...


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[InlinePool]:
    """With one worker that is ready."""

    @contextmanager
    def notes(doing: str) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(inline, "Worker", Puppet)
    monkeypatch.setattr(inline, "NativeNotes", notes)
    monkeypatch.setattr(Puppet, "does", staticmethod(lambda: None))
    untold: list[object] = []
    monkeypatch.setattr(threading, "excepthook", untold.append)
    pool = InlinePool(EngineOptions(threads=1))
    pool.serve(SimpleNamespace(model=SimpleNamespace(url="m")))  # type: ignore[arg-type]
    pool.start("w1")
    assert isinstance(told(pool), WorkerReady)
    yield pool
    pool.close()
    assert untold == []


def told(pool: InlinePool) -> Event:
    """What the pool tells next."""
    (event,) = pool.poll(60)
    return event


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on no thread of that name may be started."""
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError(REFUSED)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


ATTEMPT = Attempt("e1-s3-a1", 3, 1, 1, (), 10)


def test_an_attempt_that_gets_no_thread_of_its_own_is_carried_all_the_same(
    pool: InlinePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "attempt-")
    pool.dispatch("w1", ATTEMPT)
    event = told(pool)
    assert isinstance(event, AttemptFailed)
    assert (event.worker, event.failure.error.message) == ("w1", "by itself")
    pool.dispatch("w1", ATTEMPT)
    assert isinstance(told(pool), AttemptFailed), "and the next one"


def test_a_worker_that_gets_no_thread_failed_to_start(pool: InlinePool, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "worker-w2")
    pool.start("w2")
    event = told(pool)
    assert isinstance(event, WorkerFailedToStart)
    assert isinstance(event.error, CapacityError)
    assert "the pids of its container" in event.error.message


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError("no more")])
def test_an_attempt_that_ends_its_thread_ends_the_worker(
    pool: InlinePool, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(Puppet, "does", staticmethod(fail))
    (worker,) = pool._workers.values()
    pool.dispatch("w1", ATTEMPT)
    event = told(pool)
    assert isinstance(event, WorkerLost)
    assert isinstance(event.error, WorkerError)
    assert f"worker w1 was lost: {type(error).__name__}: " in event.error.message
    assert worker.stopped.wait(60)  # type: ignore[attr-defined]
    assert pool.progress() == {}


def test_what_ends_the_loop_of_a_worker_is_told(pool: InlinePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InlinePool, "_attempt", None)  # no call of it can succeed
    monkeypatch.setattr(InlinePool, "_try_out", None)
    pool.trial("w1")
    event = told(pool)
    assert isinstance(event, WorkerLost)
    assert "was lost: TypeError: " in event.error.message
