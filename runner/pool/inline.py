"""The pool whose workers live in this very process: for notebooks, tests and small jobs."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from jobs.attempt import Attempt, Success
from jobs.errors import WorkerError, out_of_threads
from jobs.schedule.event import AttemptFailed, AttemptSucceeded, Event, WorkerFailedToStart, WorkerLost, WorkerReady
from runner.engine import EngineOptions
from runner.engine.quiet import NativeNotes
from runner.measure.place import Place
from runner.measure.snapshot import Snapshot
from runner.pool.facts import WorkerFacts
from runner.pool.pool import Clock, Waited, as_runner_error
from runner.worker.spec import Progress, WorkerSpec
from runner.worker.trial.trial import Trial
from runner.worker.worker import Worker

_loading = threading.Lock()  # the redirection below belongs to the process


class InlinePool:
    """Workers as threads of this process. Each has the CPUs it asks for; none sees a GPU unless it asks for one."""

    def __init__(self, options: EngineOptions, workers: int = 1, clock: Clock = time.monotonic) -> None:
        self._options, self._capacity, self._clock = options, workers, clock
        self._spec: WorkerSpec | None = None
        self._events: queue.Queue[Event] = queue.Queue()
        self._attempts: dict[str, queue.Queue[Attempt | type[_Trial] | None]] = {}
        self._trials: dict[str, Trial] = {}
        self._workers: dict[str, Worker] = {}
        self._stopped: set[str] = set()
        self._notes: NativeNotes | None = None  # while a worker loads, or tries the model out

    def connect(self) -> None: ...

    def serve(self, spec: WorkerSpec) -> None:
        self._spec = spec

    def capacity(self, waited: Waited = lambda what, seconds, over: None) -> int:
        return self._capacity

    def restart(self) -> None: ...

    def start(self, worker: str, avoid: tuple[str, ...] = (), isolated: bool = False) -> None:
        self._attempts[worker] = queue.Queue()
        life = threading.Thread(target=self._live, args=(worker, isolated), name=f"worker-{worker}", daemon=True)
        try:
            life.start()
        except RuntimeError as error:  # this process may start no more threads
            self._events.put(WorkerFailedToStart(self._clock(), worker, as_runner_error(error, worker)))

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

    def facts(self) -> Mapping[str, WorkerFacts]:
        return {
            name: WorkerFacts(Place(worker.devices), worker.warm_up, self._trials.get(name))
            for name, worker in list(self._workers.items())
        }

    def close(self) -> None:
        for worker in self._attempts.keys() - self._stopped:
            self.stop(worker)
        deadline = time.monotonic() + 3
        for thread in threading.enumerate():
            if thread.name.removeprefix("worker-") in self._attempts:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._notes is not None:  # of a worker that is left behind
            self._notes.close()

    @contextmanager
    def _quietly(self, spec: WorkerSpec) -> Iterator[None]:
        with _loading, NativeNotes(f"loaded model '{spec.model.url}', or called it with a few rows") as self._notes:
            yield

    def _live(self, name: str, isolated: bool) -> None:
        """The life of a worker. Whatever ends it is told."""
        worker, threads = None, list[threading.Thread]()
        try:
            worker = self._loaded(name, isolated)
            if worker is not None:
                self._serve(worker, threads)
        except BaseException as error:
            self._lose(name, error)
        for thread in threads:
            thread.join()
        if worker is not None:
            worker.close()

    def _loaded(self, name: str, isolated: bool) -> Worker | None:
        assert self._spec is not None  # `serve` comes before `start`
        try:
            with self._quietly(self._spec):
                worker = Worker(self._spec, name, self._options, isolated=isolated)
        except Exception as error:
            self._events.put(WorkerFailedToStart(self._clock(), name, as_runner_error(error, name)))
            return None
        self._workers[name] = worker
        if name in self._stopped:  # while it loaded
            self._workers.pop(name, None)
            worker.stop()
        self._events.put(WorkerReady(self._clock(), name))
        return worker

    def _serve(self, worker: Worker, threads: list[threading.Thread]) -> None:
        """threads: of attempts that may still run."""
        name, numbers = worker.name, itertools.count()
        while (attempt := self._attempts[name].get()) is not None:
            if not isinstance(attempt, Attempt):
                if self._try_out(worker):
                    continue
                break
            threads[:] = [thread for thread in threads if thread.is_alive()]
            arguments = worker, attempt, next(numbers)
            thread = threading.Thread(target=self._attempt, args=arguments, name=f"attempt-{name}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # this process may start no more threads: then this one carries it
                self._attempt(*arguments)
            else:
                threads.append(thread)

    def _attempt(self, worker: Worker, attempt: Attempt, number: int) -> None:
        try:
            result = worker.attempt(attempt, number)
        except BaseException as error:
            self._lose(worker.name, error)
            self._attempts[worker.name].put(None)
            return
        if isinstance(result, Success):
            self._events.put(AttemptSucceeded(self._clock(), worker.name, result))
        else:
            self._events.put(AttemptFailed(self._clock(), worker.name, result))

    def _lose(self, name: str, error: BaseException) -> None:
        """Tell that a worker is gone, and let it begin nothing more."""
        worker = self._workers.pop(name, None)
        story = f"worker {name} was lost: {type(error).__name__}: {error}"
        self._events.put(WorkerLost(self._clock(), name, out_of_threads(error) or WorkerError(story)))
        if worker is not None:
            worker.stop()

    def _try_out(self, worker: Worker) -> bool:
        assert self._spec is not None
        try:
            with self._quietly(self._spec):
                self._trials[worker.name] = worker.trial()
        except Exception as error:
            self._workers.pop(worker.name, None)
            self._events.put(WorkerFailedToStart(self._clock(), worker.name, as_runner_error(error, worker.name)))
            return False
        self._events.put(WorkerReady(self._clock(), worker.name))
        return True


class _Trial:
    """Stands among the attempts of a worker for the trial."""
