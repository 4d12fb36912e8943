"""A pool whose workers are actors of a simulated history. They run the real `Part`, with rows instead of a model.

Workers start late or not at all, die, are thought dead while they go on (zombies), and are told to stop in vain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from simulation_world import FOREVER, Actor, Killed, World, current

from connectors.output.directory import OutputDirectory
from jobs.attempt import Attempt, Failure, Receipt, Success
from jobs.errors import RunnerError, StorageError, WorkerError
from jobs.schedule.event import (
    AttemptFailed,
    AttemptSucceeded,
    ClusterLost,
    Event,
    WorkerDraining,
    WorkerFailedToStart,
    WorkerLost,
    WorkerReady,
)
from runner.measure.place import Place
from runner.measure.snapshot import Snapshot
from runner.pool.facts import WorkerFacts
from runner.worker.spec import Progress
from runner.worker.warm_up import WarmUp

FACTS = WorkerFacts(Place(("/CPU:0",), pid=7, node="10.0.0.1"), WarmUp(seconds=1.0, calls=1, rows="made up"))
SCHEMA = pa.schema([pa.field("file", pa.int64()), pa.field("row", pa.int64())])


@dataclass
class Nature:
    """How often what happens that is no fault of a step, each between 0 and 1.

    survive:  a worker whose driver died, or that was stopped, goes on with what it has in hand.
    late:     what such a worker reports is still heard.
    no_start: a worker does not start.
    slow_s:   how long it may take to learn of a worker's death.
    """

    survive: float = 0.0
    late: float = 0.0
    no_start: float = 0.0
    slow_s: float = 0.0


@dataclass
class WorkerActor:
    actor: Actor
    hand: deque[Attempt] = field(default_factory=deque)
    progress: Progress = field(default_factory=Progress)
    gone: bool = False  # for the driver: lost, or stopped


class SimulatedPool:
    """Belongs to the driver actor that made it. model_calls: shard -> row groups computed, over a whole history."""

    def __init__(self, world: World, nature: Nature, capacity: int, model_calls: list[int]) -> None:
        self._world, self._nature, self._capacity = world, nature, capacity
        self.driver = current()
        self._calls = model_calls
        self._workers: dict[str, WorkerActor] = {}
        self._events: list[tuple[float, Event]] = []
        self._output: Any = None

    def connect(self) -> None: ...

    def serve(self, spec: Any) -> None:
        self._output = spec

    def capacity(self, waited: object = None) -> int:
        return self._capacity

    def restart(self) -> None:
        self._world.note("restart of the cluster")

    def start(self, worker: str, avoid: tuple[str, ...] = ()) -> None:
        self._step("start", worker)
        delay = self._world.random.random() * 10
        if self._world.random.random() < self._nature.no_start and not self.driver.steady:
            self._post(WorkerFailedToStart(self._world.now, worker, WorkerError("no room on its node")), delay)
            return
        name = f"{self.driver.name}.{worker}"
        actor = self._world.spawn(name, lambda: self._live(worker), daemon=True, delay=delay)
        self._workers[worker] = WorkerActor(actor)

    def dispatch(self, worker: str, attempt: Attempt) -> None:
        self._step("dispatch", f"{worker} shard {attempt.shard} {attempt.id}")
        found = self._workers.get(worker)
        if found is not None and not found.actor.killed:
            found.hand.append(attempt)
            found.actor.wake = min(found.actor.wake, self._world.now)

    def stop(self, worker: str) -> None:
        self._step("stop", worker)
        self._end(worker)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """May wait longer than asked: a loaded machine does too."""
        self._step("poll", "")
        due = self._due()
        if not due:
            wait = self._world.random.choice((timeout_s, 1.0, 5.0))
            self._world.sleep(min([wait, *(when - self._world.now for when, _ in self._events)]))
            due = self._due()
        return due

    def progress(self) -> Mapping[str, Progress]:
        return {name: worker.progress for name, worker in self._workers.items() if not worker.gone}

    def observe(self, at: Snapshot) -> None: ...

    def facts(self) -> Mapping[str, WorkerFacts]:
        return {name: FACTS for name, worker in self._workers.items() if not worker.gone}

    def close(self) -> None:
        if current().killed:
            raise Killed
        for worker in list(self._workers):
            self._end(worker)

    def orphan(self) -> None:
        """The driver was killed: its workers die too, but for those that nobody can reach."""
        for worker in list(self._workers):
            self._end(worker)

    def _end(self, worker: str) -> None:
        found = self._workers.get(worker)
        if found is None or found.gone:
            return
        found.gone = True
        if self._world.random.random() >= self._nature.survive or self.driver.steady:
            self._world.kill(found.actor)

    def _step(self, operation: str, name: str) -> None:
        """A step of the driver. At `poll` its fault is news of a worker, thought dead or to be preempted, or of all."""

        def news(effect: str) -> None:
            alive = [name for name, worker in self._workers.items() if not worker.gone]
            if operation != "poll" or not alive:
                return
            if effect == "collapse":
                for name in alive:
                    self._end(name)
                self._post(ClusterLost(self._world.now, "the simulated cluster is gone", restarts=True))
                return
            name = self._world.random.choice(alive)
            if effect == "lose":
                self._workers[name].gone = True
                self._post(WorkerLost(self._world.now, name, WorkerError("its node does not answer")))
            else:
                self._preempt(name, self._world.random.choice((1.0, 30.0)))

        self._world.effect(operation, name, lambda: None, news)

    def _preempt(self, name: str, deadline_s: float) -> None:
        self._post(WorkerDraining(self._world.now, name, deadline_s))
        worker = self._workers[name]

        def take_away() -> None:
            if not worker.gone:
                worker.gone = True
                self._world.kill(worker.actor)
                self._post(WorkerLost(self._world.now, name, WorkerError("its node was taken away"), preempted=True))

        self._world.later("node taken away", take_away, deadline_s)

    def _due(self) -> list[Event]:
        due = [event for when, event in self._events if when <= self._world.now]
        self._events = [(when, event) for when, event in self._events if when > self._world.now]
        return due

    def _post(self, event: Event, delay: float = 0.0) -> None:
        when = self._world.now + delay
        self._events.append((when, event))
        self.driver.wake = min(self.driver.wake, when) if self._waits() else self.driver.wake

    def _waits(self) -> bool:
        """Whether the driver is in `poll`, and not paused."""
        return self.driver.wake - self._world.now <= 5.0

    # the worker

    def _live(self, name: str) -> None:
        mine = self._workers[name]
        directory = OutputDirectory(*self._output.arguments)
        try:
            self._report(mine, WorkerReady(self._world.now, name))
            while True:
                while not mine.hand:
                    self._world.sleep(FOREVER)
                result = self._attempt(mine, directory, name, mine.hand[0])
                mine.progress = Progress()
                mine.hand.popleft()
                if isinstance(result, Success):
                    self._report(mine, AttemptSucceeded(self._world.now, name, result))
                else:
                    self._report(mine, AttemptFailed(self._world.now, name, result))
        finally:
            if not mine.gone and not self.driver.over:
                error = WorkerError(f"worker {name} died")
                self._post(WorkerLost(self._world.now, name, error), self._world.random.random() * self._nature.slow_s)

    def _report(self, worker: WorkerActor, event: Event) -> None:
        self._world.effect("report", type(event).__name__, lambda: None, lambda effect: None)
        if not worker.gone or self._world.random.random() < self._nature.late:
            self._post(event)

    def _attempt(self, mine: WorkerActor, directory: OutputDirectory, name: str, attempt: Attempt) -> Success | Failure:
        mine.progress = Progress(attempt.id)
        try:
            return Success(self._run(mine, directory, name, attempt))
        except RunnerError as error:
            return Failure(attempt.shard, attempt.id, attempt.number, name, error)

    def _run(self, mine: WorkerActor, directory: OutputDirectory, name: str, attempt: Attempt) -> Receipt:
        with directory.open_part(attempt, SCHEMA, "digest", name) as part:
            for piece in attempt.inputs:
                for offset, rows in enumerate(piece.rows):
                    self._compute(attempt, piece.first + offset)
                    part.write(rows_of(int(piece.url), piece.first + offset, rows))
                    mine.progress = Progress(attempt.id, mine.progress.rows + rows)
            return part.publish()

    def _compute(self, attempt: Attempt, row_group: int) -> None:
        def fail(effect: str) -> None:
            raise StorageError("cannot read the input: no answer (may pass)")

        self._world.effect("compute", f"shard {attempt.shard} row group {row_group}", lambda: None, fail)
        self._calls.append(attempt.shard)


def rows_of(file: int, row_group: int, rows: int) -> pa.RecordBatch:
    """Rows that say where they come from: (file, 100 * row group + row)."""
    numbers = [100 * row_group + row for row in range(rows)]
    return pa.record_batch([pa.array([file] * rows, pa.int64()), pa.array(numbers, pa.int64())], schema=SCHEMA)
