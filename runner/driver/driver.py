"""The driver: wait for events, ask the Schedule, carry out what it says.

Owns the loop and nothing else: what to do is the Schedule's, where workers live is the pool's, what is written is
the output directory's. Every wait is bounded by `_POLL_S`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from connectors.failpoint import failpoint
from connectors.output.directory import OutputDirectory
from jobs.attempt import Failure, Receipt, Success
from jobs.errors import RunnerError
from jobs.numerics import differences
from jobs.schedule.event import (
    Action,
    AttemptSucceeded,
    Dispatch,
    Event,
    Finish,
    GiveUp,
    Record,
    RestartCluster,
    Started,
    StartWorker,
    StopWorker,
    Tick,
    WorkerProgressed,
    WorkersDiffer,
)
from jobs.schedule.schedule import Schedule
from runner.measure.history import History
from runner.measure.snapshot import Snapshot
from runner.pool.facts import WorkerFacts
from runner.pool.gate import TrialGate
from runner.pool.pool import Clock, Pool
from runner.worker.spec import Progress

_log = logging.getLogger(__name__)

_POLL_S = 0.25  # how long the loop sleeps at most; progress and Ctrl-C are looked at this often
_RENEW_S = 30.0  # how often the driver says on storage that it lives


@dataclass(frozen=True)
class Listeners:
    """What learns of a run, and decides nothing.

    notes: called with all that happens, before it is carried out.
    shows: called with a Snapshot several times a second, and once more at the end.
    """

    notes: Sequence[Callable[[Event | Action], None]] = ()
    shows: Sequence[Callable[[Snapshot], None]] = ()

    def note(self, what: Event | Action) -> None:
        for note in self.notes:
            note(what)

    def show(self, at: Snapshot) -> None:
        for show in self.shows:
            show(at)


@dataclass
class Driver:
    """One run of one plan.

    gate:    what workers pass before the first dispatch; None: those of `pool` are ready when they say so.
    command: that continues this run, for those who look at the output.
    fragile: what ends a worker ends this process: the shards in hand are noted for the next run.
    began:   when the command did, by `clock`; None: with this run.
    """

    schedule: Schedule
    pool: Pool
    output: OutputDirectory
    epoch: int
    rows: int  # of the plan
    gate: TrialGate | None = None
    listeners: Listeners = Listeners()
    stop_requested: Callable[[], RunnerError | None] = lambda: None
    receipts: dict[int, Receipt] = field(default_factory=dict)
    command: str = ""
    fragile: bool = False
    clock: Clock = time.monotonic
    began: float | None = None
    history: History = field(default_factory=History, init=False)
    facts: dict[str, WorkerFacts] = field(default_factory=dict, init=False)  # of workers that live, or lived
    rows_before: int = field(default=0, init=False)  # done by earlier runs
    _started: float = 0.0
    _rows_committed: int = 0
    _renewed: tuple[float, object] = (float("-inf"), None)  # when, and what was news then
    _heard: dict[str, Progress] = field(default_factory=dict)  # worker -> what it last said of its attempt
    _kinds: int = 1  # of workers, by what changes numbers
    _over: bool = False
    _error: RunnerError | None = None

    def run(self) -> dict[int, Receipt]:
        """Work until every shard has a receipt. raises: the RunnerError the Schedule gave up with."""
        self._started = self.clock()
        self.history.start = self._started if self.began is None else self.began
        self.rows_before = self._rows_committed = sum(receipt.rows_in for receipt in self.receipts.values())
        self._handle(Started(self._started))
        while not self._over:
            for event in self._events():
                self._handle(event)
            self._tell_progress()
            self._handle(Tick(self.clock()))
            if (reason := self.stop_requested()) is not None:
                raise reason
            self._renew_when_due(self._show())
        self._renew(self._show())
        if self._error is not None:
            raise self._error
        return self.receipts

    def _events(self) -> Sequence[Event]:
        events = self.pool.poll(_POLL_S)
        return events if self.gate is None else self.gate.admit(events)

    def _handle(self, event: Event) -> None:
        self.history.note(event)
        self.listeners.note(event)
        for action in self.schedule.handle(event):
            self.listeners.note(action)
            self._carry_out(action)
        self._tell_differences()

    def _tell_differences(self) -> None:
        """With each new kind of worker; the report names them all in the end."""
        if len(self.history.numerics) > self._kinds:
            self._kinds = len(self.history.numerics)
            if stories := [str(one) for one in differences(self.history.numerics)]:
                self.listeners.note(WorkersDiffer(self.clock(), f"the workers differ in {'; '.join(stories)}"))

    def _tell_progress(self) -> None:
        """What changed since the last turn; the Schedule sees a stall in what does not."""
        now, heard = self.clock(), dict(self.pool.progress())
        for worker, progress in heard.items():
            if progress.waits and progress.waits != self._heard.get(worker, Progress()).waits:
                _log.warning("worker %s: %s", worker, progress.waits)
            if progress.attempt and progress != self._heard.get(worker):
                self._handle(WorkerProgressed(now, worker, progress.attempt, progress.rows))
        self._heard = heard

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, StartWorker):
            self.history.starting(self.clock(), action.worker)
        match action:
            case StartWorker(worker, avoid, isolated) if isolated:
                self.pool.start(worker, avoid, isolated)
            case StartWorker(worker, avoid) if avoid:
                self.pool.start(worker, avoid)
            case StartWorker(worker):
                self.pool.start(worker)
            case StopWorker(worker):
                self.history.stopped(self.clock(), worker)
                self.pool.stop(worker)
                if self.gate is not None:
                    self.gate.stopped(worker)
            case RestartCluster():
                self.pool.restart()
            case Dispatch(worker, attempt, adopt):
                self.history.dispatched(self.clock(), worker, attempt.id, attempt.shard, attempt.number)
                published = self.output.adopt(attempt.shard) if adopt else None
                if published is not None:  # the earlier attempt died after its part was published: no model call
                    self._handle(AttemptSucceeded(self.clock(), worker, Success(published)))
                else:
                    if self.fragile:
                        self._renew(self._snapshot())  # first: the process may be gone a moment later
                    self.pool.dispatch(worker, attempt)
            case Record(success, failures):
                self._record(success, failures)
            case GiveUp(error):
                self._over, self._error = True, error
            case Finish():
                self._over = True

    def _record(self, success: Success, failures: tuple[Failure, ...]) -> None:
        receipt = success.receipt
        self.receipts[receipt.shard] = receipt
        self._rows_committed += receipt.rows_in
        failpoint("D7.before")
        self.output.record(success, failures)

    def _show(self) -> Snapshot:
        at = self._snapshot()
        self.listeners.show(at)
        self.facts |= self.pool.facts()
        return at

    def _renew_when_due(self, at: Snapshot) -> None:
        if at.seconds - self._renewed[0] >= _RENEW_S or _news(at) != self._renewed[1]:
            self._renew(at)

    def _renew(self, at: Snapshot) -> None:
        """Say on storage that this driver lives, how far it is, and what a fragile run has in hand."""
        self._renewed = (at.seconds, _news(at))
        self.facts |= self.pool.facts()
        workers = {name: known.document() for name, known in self.facts.items()}
        facts: dict[str, object] = {"failures": self._failures(), "workers": workers, "command": self.command}
        facts["rows_in_hand"] = self.schedule.assignments.rows_in_hand
        if self.fragile:
            facts["in_hand"] = list(self.schedule.assignments.in_hand)
        self.output.renew(self.epoch, at.document() | facts)

    def _snapshot(self) -> Snapshot:
        in_hand = [progress for progress in self.pool.progress().values() if progress.attempt]
        running = {progress.attempt: progress.rows + progress.beside for progress in in_hand}
        return Snapshot(
            rows_total=self.rows,
            rows_done=min(self.rows, self._rows_committed + sum(running.values())),
            rows_before=self.rows_before,
            seconds=self.clock() - self._started,
            shards_total=self.schedule.shards.total,
            shards_done=len(self.receipts),
            shards_running=len(self.schedule.assignments.in_hand),
            retries=self.schedule.shards.retries,
            workers_ready=self.schedule.assignments.usable,
            workers=self.schedule.workers,
            waits_for=self.schedule.supply.waits_for,
            working_s=self._working_s(),
        )

    def _working_s(self) -> float:
        """As the summary counts it, once all is done: what follows the last commit is no work."""
        if len(self.receipts) == self.schedule.shards.total and self.history.last_commit is not None:
            return self.history.busy_s
        return 0.0 if (first := self.history.first_dispatch) is None else self.clock() - first

    def _failures(self) -> list[dict[str, object]]:
        return [failure.document() for failure in self.schedule.shards.failures]


def _news(at: Snapshot) -> object:
    """What is worth a heartbeat of its own when it changes."""
    return at.workers_ready, at.retries
