"""The Pool: where workers live. Carries out what the Schedule asks for, and turns what happens into events.

The InlinePool keeps them in this process: for one machine without Ray, for tests, and for a debugger.
"""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from jobs.attempt import Attempt, Receipt
from jobs.errors import InternalError, RunnerError
from jobs.schedule.event import AttemptFailed, AttemptSucceeded, Event, WorkerFailedToStart, WorkerReady
from runner.engine import EngineOptions
from runner.report.display import Snapshot
from runner.worker.worker import Progress, Worker, WorkerSpec

Clock = Callable[[], float]

_loading = threading.Lock()  # the redirection below belongs to the process


class Pool(Protocol):
    """Every call returns at once, but for `poll`, which waits at most `timeout_s`, and `close`."""

    def connect(self) -> None:
        """Begin, in the background, whatever takes time before workers can start; may be left out."""
        ...

    def serve(self, spec: WorkerSpec) -> None:
        """What the workers are to load; called once, before the first `start`."""
        ...

    def capacity(self) -> int:
        """How many workers fit. raises: CapacityError if not even one does."""
        ...

    def start(self, worker: str, avoid: tuple[str, ...] = (), careful: bool = False) -> None:
        """WorkerReady or WorkerFailedToStart follows.

        avoid:   nodes it should not live on, if there are others.
        careful: it is for one careful attempt (see `runner.worker.careful`).
        """
        ...

    def trial(self, worker: str) -> None:
        """Let a worker that is ready prove the model. WorkerReady follows again, with the `trial` among its facts, or
        WorkerFailedToStart, or WorkerLost."""
        ...

    def dispatch(self, worker: str, attempt: Attempt) -> None:
        """AttemptSucceeded, AttemptFailed or WorkerLost follows. Attempts of one worker run in the order given, one
        reading ahead while the one before computes."""
        ...

    def stop(self, worker: str) -> None:
        """Stop it, whatever it is doing; nothing follows. A worker that is gone already is no mistake."""
        ...

    def poll(self, timeout_s: float) -> Sequence[Event]: ...

    def progress(self) -> Mapping[str, Progress]:
        """Worker -> the rows of its running attempt, as last heard."""
        ...

    def observe(self, at: Snapshot) -> None:
        """How the run is, for whoever measures it."""
        ...

    def facts(self) -> Mapping[str, Mapping[str, object]]:
        """Worker -> where it lives: node, pid, devices."""
        ...

    def close(self) -> None:
        """Stop everything and give all resources back. It takes 3 s at most, unless something hangs that cannot be
        left behind; then it is left behind after a bounded time."""
        ...


class InlinePool:
    """Workers as threads of this process. Each has the CPUs it asks for; none sees a GPU unless it asks for one."""

    def __init__(self, options: EngineOptions, workers: int = 1, clock: Clock = time.monotonic) -> None:
        self._options, self._capacity, self._clock = options, workers, clock
        self._spec: WorkerSpec | None = None
        self._events: queue.Queue[Event] = queue.Queue()
        self._attempts: dict[str, queue.Queue[Attempt | type[_Trial] | None]] = {}
        self._trials: dict[str, dict[str, object]] = {}
        self._workers: dict[str, Worker] = {}
        self._stopped: set[str] = set()

    def connect(self) -> None: ...

    def serve(self, spec: WorkerSpec) -> None:
        self._spec = spec

    def capacity(self) -> int:
        return self._capacity

    def start(self, worker: str, avoid: tuple[str, ...] = (), careful: bool = False) -> None:
        self._attempts[worker] = queue.Queue()
        threading.Thread(target=self._live, args=(worker, careful), name=f"worker-{worker}", daemon=True).start()

    def trial(self, worker: str) -> None:
        self._attempts[worker].put(_Trial)

    def dispatch(self, worker: str, attempt: Attempt) -> None:
        self._attempts[worker].put(attempt)

    def stop(self, worker: str) -> None:
        live = self._workers.pop(worker, None)
        if live is not None:
            live.stop()
        self._stopped.add(worker)
        self._attempts[worker].put(None)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        try:
            events = [self._events.get(timeout=timeout_s)]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events

    def progress(self) -> Mapping[str, Progress]:
        return {name: worker.progress for name, worker in list(self._workers.items())}

    def observe(self, at: Snapshot) -> None: ...

    def facts(self) -> Mapping[str, Mapping[str, object]]:
        return {
            name: {"devices": list(worker.devices), "warm_up": worker.warm_up.document()} | self._trials.get(name, {})
            for name, worker in list(self._workers.items())
        }

    def close(self) -> None:
        for worker in self._attempts.keys() - self._stopped:
            self.stop(worker)
        deadline = time.monotonic() + 3
        for thread in threading.enumerate():
            if thread.name.removeprefix("worker-") in self._attempts:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _live(self, name: str, careful: bool) -> None:
        assert self._spec is not None  # `serve` comes before `start`
        try:
            with _loading, native_notes_dropped():
                worker = Worker(self._spec, name, self._options, careful=careful)
        except Exception as error:
            self._events.put(WorkerFailedToStart(self._clock(), name, as_runner_error(error, name)))
            return
        self._workers[name] = worker
        if name in self._stopped:  # while it loaded
            self._workers.pop(name, None)
            worker.stop()
        self._events.put(WorkerReady(self._clock(), name))
        threads, numbers = list[threading.Thread](), itertools.count()
        while (attempt := self._attempts[name].get()) is not None:
            if not isinstance(attempt, Attempt):
                if self._try_out(worker):
                    continue
                break
            threads = [thread for thread in threads if thread.is_alive()]
            threads.append(
                threading.Thread(
                    target=self._attempt, args=(worker, attempt, next(numbers)), name=f"attempt-{name}", daemon=True
                )
            )
            threads[-1].start()
        for thread in threads:
            thread.join()
        worker.close()

    def _attempt(self, worker: Worker, attempt: Attempt, number: int) -> None:
        result = worker.attempt(attempt, number)
        if isinstance(result, Receipt):
            self._events.put(AttemptSucceeded(self._clock(), worker.name, result))
        else:
            self._events.put(AttemptFailed(self._clock(), worker.name, result))

    def _try_out(self, worker: Worker) -> bool:
        try:
            with _loading, native_notes_dropped():
                self._trials[worker.name] = {"trial": worker.trial().document()}
        except Exception as error:
            self._workers.pop(worker.name, None)
            self._events.put(WorkerFailedToStart(self._clock(), worker.name, as_runner_error(error, worker.name)))
            return False
        self._events.put(WorkerReady(self._clock(), worker.name))
        return True


class _Trial:
    """Stands among the attempts of a worker for the trial."""


def as_runner_error(error: Exception, worker: str) -> RunnerError:
    """An error of ours as it is; any other with its type, for a report."""
    if isinstance(error, RunnerError):
        return error
    return InternalError(f"worker {worker} could not start: {type(error).__name__}: {error}")


@contextmanager
def native_notes_dropped() -> Iterator[None]:
    """Keep what native libraries print while they load off the user's terminal.

    TensorFlow writes some notes before it reads its own log level, so only the descriptor helps. After loading it is
    the terminal's again: what a dying library says must be seen.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
