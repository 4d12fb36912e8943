"""The Pool: where workers live. Carries out what the Schedule asks for, and turns what happens into events.

The InlinePool keeps them in this process: for one machine without Ray, for tests, and for a debugger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from jobs.attempt import Attempt
from jobs.errors import InternalError, RunnerError, out_of_threads
from jobs.schedule.event import Event
from runner.measure.snapshot import Snapshot
from runner.pool.facts import WorkerFacts
from runner.worker.spec import Progress, WorkerSpec

Clock = Callable[[], float]
Waited = Callable[[str, float, bool], None]  # for what, how many seconds, and whether it is over


class Pool(Protocol):
    """Every call returns at once, but for `poll`, which waits at most `timeout_s`, and `close`."""

    def connect(self) -> None:
        """Begin, in the background, whatever takes time before workers can start; may be left out."""
        ...

    def serve(self, spec: WorkerSpec) -> None:
        """What the workers are to load; called once, before the first `start`."""
        ...

    def capacity(self, waited: Waited = lambda what, seconds, over: None) -> int:
        """How many workers fit.

        waited: called several times a second while that takes time, and once when it is over.
        raises: CapacityError if not even one does.
        """
        ...

    def restart(self) -> None:
        """Start another cluster, in the background, in place of one of which ClusterLost told; `start` may follow."""
        ...

    def start(self, worker: str, avoid: tuple[str, ...] = (), isolated: bool = False) -> None:
        """WorkerReady or WorkerFailedToStart follows.

        avoid:   nodes it should not live on, if there are others.
        isolated: it is for one isolated attempt (see `runner.worker.isolated`).
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
        """How the run is, for metrics."""
        ...

    def facts(self) -> Mapping[str, WorkerFacts]:
        """Of the workers that are ready, or were when they became busy."""
        ...

    def close(self) -> None:
        """Stop everything and give all resources back. It takes 3 s at most, unless something hangs that cannot be
        left behind; then it is left behind after a bounded time."""
        ...


def as_runner_error(error: Exception, worker: str) -> RunnerError:
    """An error of ours as it is; any other with its type, for a report."""
    if isinstance(error, RunnerError):
        return error
    return out_of_threads(error) or InternalError(f"worker {worker} could not start: {type(error).__name__}: {error}")
