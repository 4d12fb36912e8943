"""A Schedule played by hand: tests write its events, and read its actions."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from jobs.attempt import Advice, Attempt, Failure, Receipt, Success
from jobs.errors import RunnerError, StorageError, WorkerError
from jobs.plan import Plan
from jobs.rejection import Rejections
from jobs.schedule.draw import Draw
from jobs.schedule.elastic import Demand
from jobs.schedule.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
    Dispatch,
    GiveUp,
    Started,
    StopWorker,
    Tick,
    WorkerProgressed,
    WorkerReady,
)
from jobs.schedule.policy import Policy
from jobs.schedule.schedule import Schedule

PlanOf = Callable[[Sequence[int]], Plan]
LOST = WorkerError("the process was killed")
SLOW = StorageError("timed out")


def success_of(attempt: Attempt, worker: str, advice: Advice | None = None, **changes: Any) -> Success:
    """changes: of its receipt."""
    part = f"part-{attempt.shard}"
    receipt = Receipt(attempt.shard, attempt.id, attempt.number, attempt.epoch, part, 1, "", 10, 10, worker=worker)
    return Success(dataclasses.replace(receipt, **changes), advice=advice or Advice())


def draw(chance: random.Random) -> Draw:
    """The draws of a first epoch, with nonces that count."""
    nonces = itertools.count()
    return Draw(1, lambda: f"{next(nonces):012x}", chance)


class LongestWait(random.Random):
    """No jitter: every back-off at its longest."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


class Play:
    """A Schedule whose events are written by hand; remembers which attempt is in whose hand."""

    def __init__(
        self,
        plan: Plan,
        workers: int = 1,
        done: Sequence[int] = (),
        *,
        least: int | None = None,
        needs: str = "",
        chance: random.Random | None = None,
        policy: Policy | None = None,
        rejections: Rejections | None = None,
        suspects: Sequence[int] = (),
        **limits: Any,
    ) -> None:
        """limits: of the policy, in place of its own."""
        policy = dataclasses.replace(policy or Policy(), **limits)
        demand = Demand(workers, least, needs)
        self.schedule = Schedule(plan, done, policy, draw(chance or random.Random(0)), demand, rejections, suspects)
        self.now = 0.0
        self.held: dict[tuple[str, int], Attempt] = {}
        self.rows: dict[str, int] = {}

    def tell(self, kind: type, *facts: Any) -> list[Action]:
        actions = self.schedule.handle(kind(self.now, *facts))
        for action in actions:
            if isinstance(action, Dispatch):
                self.held[action.worker, action.attempt.shard] = action.attempt
        return actions

    def start(self, *ready: str) -> list[Action]:
        return self.tell(Started) + [action for worker in ready for action in self.tell(WorkerReady, worker)]

    def start_on(self, *nodes: str) -> list[Action]:
        """w1, w2, ... are ready, on these nodes."""
        ready = [(f"w{number}", node) for number, node in enumerate(nodes, 1)]
        return self.tell(Started) + [action for fact in ready for action in self.tell(WorkerReady, *fact)]

    def pass_time(self, seconds: float, rows: dict[str, int] | None = None, step: float = 1.0) -> list[Action]:
        """Ticks, as a driver sends them. rows: worker -> how much its running attempt moves on with each."""
        actions = []
        for _ in range(round(seconds / step)):
            self.now += step
            for worker, more in (rows or {}).items():
                running = self.running(worker)
                self.rows[running.id] = self.rows.get(running.id, 0) + more
                actions += self.tell(WorkerProgressed, worker, running.id, self.rows[running.id])
            actions += self.tell(Tick)
        return actions

    def running(self, worker: str) -> Attempt:
        attempt = self.schedule.assignments.workers[worker].running
        assert attempt is not None
        return attempt

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.tell(Tick)

    def succeed(self, worker: str, shard: int) -> list[Action]:
        return self.tell(AttemptSucceeded, worker, success_of(self.held[worker, shard], worker))

    def fail(self, worker: str, shard: int, error: RunnerError = SLOW) -> list[Action]:
        attempt = self.held[worker, shard]
        return self.tell(AttemptFailed, worker, Failure(shard, attempt.id, attempt.number, worker, error))


def given(actions: list[Action]) -> list[tuple[str, int]]:
    return [(action.worker, action.attempt.shard) for action in actions if isinstance(action, Dispatch)]


def error_of(actions: list[Action]) -> RunnerError:
    (error,) = [action.error for action in actions if isinstance(action, GiveUp)]
    return error


def stopped(actions: list[Action]) -> list[str]:
    return [action.worker for action in actions if isinstance(action, StopWorker)]
