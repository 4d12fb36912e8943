"""The gate between a pool and the Schedule: workers are ready only when one of them, any, has proved the model.

Owns which worker tries the model out; refuses to know shards. The first worker that is ready tries, the others go on
loading, and wait. The invariants: no shard is given out before the model is proved, one worker at a time tries it, and
once only in a run that succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobs.errors import PoisonError
from jobs.schedule.event import Event, WorkerDraining, WorkerFailedToStart, WorkerLost, WorkerReady
from runner.pool.pool import Pool
from runner.worker.spec import WorkerSpec

_MOST_DEATHS = 2  # of workers that tried the model out; it is the model then


class TrialGate:
    """Of the workers of `pool`, which serve `spec`. warn: called with what the trial brought to light."""

    def __init__(self, pool: Pool, spec: WorkerSpec, warn: Callable[[str], None]) -> None:
        self._pool, self._spec, self._warn = pool, spec, warn
        self._waiting: dict[str, WorkerReady] = {}  # ready, in this order; the first of them tries the model out
        self._trying: str | None = None
        self._proved = False
        self._deaths = 0

    def admit(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events as the Schedule is to see them now: without workers that wait, with those that waited."""
        if self._proved:
            return events
        return [admitted for event in events for admitted in self._admit(event)]

    def stopped(self, worker: str) -> None:
        """The driver has stopped it, and no event tells so."""
        self._leave(worker)
        self._try_next()

    def _admit(self, event: Event) -> Sequence[Event]:
        if self._proved:
            return [event]
        match event:
            case WorkerReady(_, worker) if worker == self._trying:
                self._proved = True
                self._pass_on_notes(worker)
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

    def _pass_on_notes(self, worker: str) -> None:
        facts = self._pool.facts().get(worker)
        for note in facts.trial.notes if facts is not None and facts.trial is not None else ():
            self._warn(note)

    def _deadly(self, reason: str) -> PoisonError:
        return PoisonError(
            f"cannot run signature {self._spec.signature.name!r} of model '{self._spec.model.url}': a call with a few"
            f" rows ended the processes of {self._deaths} workers; the last: {reason}"
        )
