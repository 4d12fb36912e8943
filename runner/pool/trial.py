"""A pool whose workers are ready only when one of them, any, has proved the model.

Between the Schedule and a pool; neither knows. The first worker that is ready tries the model out, the others go on
loading, and wait. The invariants: no shard is given out before the model is proved, one worker at a time tries it, and
once only in a run that succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jobs.attempt import Attempt
from jobs.errors import ModelError
from jobs.schedule.event import Event, WorkerDraining, WorkerFailedToStart, WorkerLost, WorkerReady
from runner.measure.snapshot import Snapshot
from runner.pool.facts import WorkerFacts
from runner.pool.pool import Pool
from runner.worker.spec import Progress, WorkerSpec

_MOST_DEATHS = 2  # of workers that tried the model out; it is the model then


class TrialPool:
    """`pool`, with a trial before the first worker is ready. warn: told what the trial found worth knowing."""

    def __init__(self, pool: Pool, warn: Callable[[str], None]) -> None:
        self._pool, self._warn = pool, warn
        self._spec: WorkerSpec | None = None
        self._waiting: dict[str, WorkerReady] = {}  # ready, in this order; the first of them tries the model out
        self._trying: str | None = None
        self._proved = False
        self._deaths = 0

    def connect(self) -> None:
        self._pool.connect()

    def serve(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._pool.serve(spec)

    def capacity(self) -> int:
        return self._pool.capacity()

    def start(self, worker: str, avoid: tuple[str, ...] = (), careful: bool = False) -> None:
        self._pool.start(worker, avoid, careful)

    def trial(self, worker: str) -> None:
        self._pool.trial(worker)

    def dispatch(self, worker: str, attempt: Attempt) -> None:
        self._pool.dispatch(worker, attempt)

    def stop(self, worker: str) -> None:
        self._pool.stop(worker)
        self._leave(worker)
        self._try_next()

    def poll(self, timeout_s: float) -> Sequence[Event]:
        events = self._pool.poll(timeout_s)
        if self._proved:
            return events
        return [passed for event in events for passed in self._pass(event)]

    def progress(self) -> Mapping[str, Progress]:
        return self._pool.progress()

    def facts(self) -> Mapping[str, WorkerFacts]:
        return self._pool.facts()

    def observe(self, at: Snapshot) -> None:
        self._pool.observe(at)

    def close(self) -> None:
        self._pool.close()

    def _pass(self, event: Event) -> Sequence[Event]:
        """The event as the Schedule is to see it now, and those that it was waiting for."""
        if self._proved:
            return [event]
        match event:
            case WorkerReady(_, worker) if worker == self._trying:
                self._proved = True
                self._tell(worker)
                return list(self._waiting.values())
            case WorkerReady(_, worker):
                self._waiting[worker] = event
            case WorkerLost(now, worker, error, preempted) if worker == self._trying:
                self._deaths += not preempted
                if self._deaths >= _MOST_DEATHS and not preempted:
                    event = WorkerFailedToStart(now, worker, self._deadly(error.message))
                self._leave(worker)
            case WorkerFailedToStart(_, worker) | WorkerLost(_, worker) | WorkerDraining(_, worker):
                self._leave(worker)
        self._try_next()
        return [] if isinstance(event, WorkerReady) else [event]

    def _leave(self, worker: str) -> None:
        self._waiting.pop(worker, None)
        if worker == self._trying:
            self._trying = None

    def _try_next(self) -> None:
        if self._trying is None and self._waiting and not self._proved:
            self._trying = next(iter(self._waiting))
            self._pool.trial(self._trying)

    def _tell(self, worker: str) -> None:
        facts = self._pool.facts().get(worker)
        for note in facts.trial.notes if facts is not None and facts.trial is not None else ():
            self._warn(note)

    def _deadly(self, reason: str) -> ModelError:
        name, signature = (self._spec.model.url, self._spec.signature.name) if self._spec else ("", "")
        return ModelError(
            f"cannot run signature {signature!r} of model '{name}': a call with a few rows ended the processes of"
            f" {self._deaths} workers; the last: {reason}"
        )
