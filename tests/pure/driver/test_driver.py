"""The driver's loop with a puppet pool: it carries out what the Schedule says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest

from jobs.attempt import Attempt, Failure, Measured, Receipt, Success
from jobs.errors import ModelCallError, RunnerError, StoppedError, WorkerError
from jobs.numerics import Numerics
from jobs.plan import InputFile, RowGroup, plan
from jobs.schedule.draw import Draw
from jobs.schedule.elastic import Demand
from jobs.schedule.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
    ClusterLost,
    Dispatch,
    Event,
    StartWorker,
    StopWorker,
    Tick,
    WorkerLost,
    WorkerReady,
    WorkersDiffer,
)
from jobs.schedule.policy import Policy
from jobs.schedule.schedule import Schedule
from jobs.section.limits import Limits
from runner.driver.driver import Driver, Listeners
from runner.measure.snapshot import Snapshot
from runner.pool.facts import WorkerFacts
from runner.pool.gate import TrialGate
from runner.pool.pool import Waited
from runner.worker.spec import Progress, WorkerSpec


class PuppetPool:
    """Answers every dispatch as `answer` says, at the next poll; workers are ready at once."""

    def __init__(self, answer: Callable[[str, Attempt], Event]) -> None:
        self._answer, self._events = answer, list[Event]()
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.tried: list[tuple[str, int]] = []  # worker, dispatches before
        self.dispatched: list[tuple[str, int]] = []
        self.avoided: dict[str, tuple[str, ...]] = {}
        self.rows: dict[str, Progress] = {}
        self.restarts = 0
        self.now = 0.0

    def connect(self) -> None: ...

    def serve(self, spec: WorkerSpec) -> None: ...

    def capacity(self, waited: Waited = lambda what, seconds, over: None) -> int:
        return 2

    def restart(self) -> None:
        self.restarts += 1

    def start(self, worker: str, avoid: tuple[str, ...] = ()) -> None:
        self.started.append(worker)
        self.avoided[worker] = avoid
        self._events.append(WorkerReady(self.now, worker, f"node of {worker}"))

    def trial(self, worker: str) -> None:
        self.tried.append((worker, len(self.dispatched)))
        self._events.append(WorkerReady(self.now, worker, f"node of {worker}"))

    def dispatch(self, worker: str, attempt: Attempt) -> None:
        self.dispatched.append((worker, attempt.shard))
        self._events.append(self._answer(worker, attempt))

    def stop(self, worker: str) -> None:
        self.stopped.append(worker)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        self.now += 1.0
        events, self._events = self._events[:1], self._events[1:]
        return events

    def progress(self) -> Mapping[str, Progress]:
        return self.rows

    def facts(self) -> Mapping[str, WorkerFacts]:
        return {}

    def close(self) -> None: ...


class MemoryOutput:
    """What the driver asks of an output directory, in memory."""

    def __init__(self, published: Mapping[int, Receipt] | None = None) -> None:
        self.published = dict(published or {})
        self.recorded: dict[int, tuple[Receipt, tuple[Failure, ...]]] = {}
        self.renewed: list[Mapping[str, object]] = []

    def adopt(self, shard: int) -> Receipt | None:
        return self.published.get(shard)

    def record(self, success: Success, failures: Sequence[Failure]) -> None:
        receipt = success.receipt
        assert receipt.shard not in self.recorded, "a shard is recorded once"
        self.recorded[receipt.shard] = (receipt, tuple(failures))

    def renew(self, epoch: int, progress: Mapping[str, object]) -> None:
        self.renewed.append(progress)


def receipt_of(attempt: Attempt) -> Receipt:
    return Receipt(attempt.shard, attempt.id, attempt.number, attempt.epoch, "part", 1, "", attempt.rows, attempt.rows)


def succeed(worker: str, attempt: Attempt) -> Event:
    return AttemptSucceeded(0.0, worker, Success(receipt_of(attempt)))


def drive(
    pool: PuppetPool, output: MemoryOutput, stop: Callable[[], RunnerError | None] = lambda: None, workers: int = 2
) -> tuple[Driver, list[Snapshot]]:
    four = [InputFile(f"f{n}", 1, "", (RowGroup(10, 1),)) for n in range(4)]
    made = plan(four, Limits(shard_rows=10), {})
    nonces: Iterator[str] = iter(f"{n:012x}" for n in range(10**6))
    draw = Draw(1, lambda: next(nonces), Random(0))
    schedule = Schedule(made, {}, Policy(max_attempts=3), draw, Demand(workers))
    seen: list[Snapshot] = []
    driver = Driver(
        *(schedule, pool, output, 1, made.rows),  # type: ignore[arg-type]
        listeners=Listeners(shows=[seen.append]),
        stop_requested=stop,
        clock=lambda: pool.now,
    )
    return driver, seen


def test_workers_that_compute_differently_are_told_once_with_their_names() -> None:
    def answer(worker: str, attempt: Attempt) -> Event:
        numerics = Numerics(tensorflow="2.21.0", onednn=worker == "w1")
        receipt = replace(receipt_of(attempt), worker=worker, numerics=numerics)
        return AttemptSucceeded(0.0, worker, Success(receipt, Measured({"run": 1.0})))

    driver, _ = drive(PuppetPool(answer), MemoryOutput())
    noted: list[Event | Action] = []
    driver.listeners = Listeners([noted.append])
    driver.run()
    told = [what.story for what in noted if isinstance(what, WorkersDiffer)]
    assert told == ["the workers differ in onednn: on (w1), off (w2)"]
    assert driver.history.numerics.keys() == {Numerics("2.21.0", True), Numerics("2.21.0", False)}


def test_every_shard_is_dispatched_recorded_and_shown() -> None:
    pool, output = PuppetPool(succeed), MemoryOutput()
    driver, seen = drive(pool, output)
    assert sorted(driver.run()) == [0, 1, 2, 3]
    assert sorted(output.recorded) == [0, 1, 2, 3]
    assert sorted(shard for _, shard in pool.dispatched) == [0, 1, 2, 3]
    assert pool.stopped == pool.started == ["w1", "w2"]
    assert (seen[-1].rows_done, seen[-1].share) == (40, 1.0)
    assert [at.rows_done for at in seen] == sorted(at.rows_done for at in seen)


def test_the_last_rate_that_is_shown_is_that_of_the_summary() -> None:
    pool = PuppetPool(lambda worker, attempt: AttemptSucceeded(pool.now, worker, Success(receipt_of(attempt))))
    driver, seen = drive(pool, MemoryOutput())
    driver.run()
    assert seen[-1].working_s == driver.history.busy_s > 0
    assert driver.clock() - (driver.history.first_dispatch or 0.0) > driver.history.busy_s, "else both are the same"


def test_a_part_published_by_an_attempt_that_died_is_adopted_without_a_second_dispatch() -> None:
    published = {2: Receipt(2, "e1-a1-x", 1, 1, "part", 1, "", 10, 10)}

    def answer(worker: str, attempt: Attempt) -> Event:
        if attempt.shard == 2:
            failure = Failure(2, attempt.id, attempt.number, worker, WorkerError("gone"))
            return AttemptFailed(0.0, worker, failure)
        return succeed(worker, attempt)

    pool, output = PuppetPool(answer), MemoryOutput(published)
    driver, _ = drive(pool, output)
    driver.run()
    assert [shard for _, shard in pool.dispatched].count(2) == 1
    receipt, failures = output.recorded[2]
    assert receipt == published[2]
    assert [failure.error.message for failure in failures] == ["gone"]


def test_a_lost_worker_is_replaced() -> None:
    def answer(worker: str, attempt: Attempt) -> Event:
        return WorkerLost(0.0, worker, WorkerError("gone")) if worker == "w1" else succeed(worker, attempt)

    pool, output = PuppetPool(answer), MemoryOutput()
    driver, _ = drive(pool, output)
    assert sorted(driver.run()) == [0, 1, 2, 3]
    assert "w3" in pool.started
    assert any("gone" in str(news["failures"]) for news in output.renewed)


def test_a_cluster_that_is_lost_is_started_again_before_new_workers_are() -> None:
    def answer(worker: str, attempt: Attempt) -> Event:
        first = len(pool.dispatched) == 1
        return ClusterLost(0.0, "killed", restarts=True) if first else succeed(worker, attempt)

    pool, output = PuppetPool(answer), MemoryOutput()
    driver, _ = drive(pool, output)
    assert sorted(driver.run()) == [0, 1, 2, 3]
    assert (pool.restarts, pool.stopped[:2], pool.started) == (1, ["w1", "w2"], ["w1", "w2", "w3", "w4"])


def test_giving_up_stops_the_workers_and_raises_the_last_cause() -> None:
    def answer(worker: str, attempt: Attempt) -> Event:
        return AttemptFailed(0.0, worker, Failure(attempt.shard, attempt.id, 1, worker, ModelCallError("bad op")))

    pool = PuppetPool(answer)
    driver, _ = drive(pool, MemoryOutput())
    with pytest.raises(ModelCallError, match="bad op"):
        driver.run()
    assert sorted(pool.stopped) == ["w1", "w2"]


def test_a_request_to_stop_ends_the_loop_at_its_next_turn() -> None:
    pool = PuppetPool(succeed)
    driver, _ = drive(pool, MemoryOutput(), stop=lambda: StoppedError("enough") if pool.now >= 2 else None)
    with pytest.raises(StoppedError, match="enough"):
        driver.run()
    assert pool.now == 2


def test_an_attempt_that_is_silent_for_ten_minutes_is_given_to_a_new_worker() -> None:
    def answer(worker: str, attempt: Attempt) -> Event:
        return Tick(0.0) if worker == "w1" else succeed(worker, attempt)

    pool, output = PuppetPool(answer), MemoryOutput()
    driver, _ = drive(pool, output, workers=1)
    assert sorted(driver.run()) == [0, 1, 2, 3]
    assert (pool.started, pool.stopped) == (["w1", "w2"], ["w1", "w2"])
    assert "worker w1 stalled" in str(output.renewed[-1]["failures"])


def test_an_attempt_whose_rows_grow_is_left_alone_however_slow_it_is() -> None:
    slow: list[Attempt] = []

    def answer(worker: str, attempt: Attempt) -> Event:
        if attempt.shard != 0:
            return succeed(worker, attempt)
        slow.append(attempt)
        return Tick(0.0)

    class Telling(PuppetPool):
        def poll(self, timeout_s: float) -> Sequence[Event]:
            if slow:
                self.rows = {"w1": Progress(slow[0].id, int(self.now) // 300)}
            if slow and self.now > 3000:
                self._events.append(succeed("w1", slow.pop()))
            return super().poll(timeout_s)

    pool, output = Telling(answer), MemoryOutput()
    driver, _ = drive(pool, output, workers=1)
    assert sorted(driver.run()) == [0, 1, 2, 3]
    assert pool.started == ["w1"]
    assert driver.schedule.shards.failures == ()


def test_a_worker_that_waits_for_a_store_is_told_once_and_gets_no_time_for_it(caplog: pytest.LogCaptureFixture) -> None:
    story, held = "still waiting after 10 s to read 's3://b/x'", list[Attempt]()

    def answer(worker: str, attempt: Attempt) -> Event:
        held.append(attempt)
        return Tick(0.0) if worker == "w1" else succeed(worker, attempt)

    class Waiting(PuppetPool):
        def poll(self, timeout_s: float) -> Sequence[Event]:
            if held and "w1" not in self.stopped:
                self.rows = {"w1": Progress(held[0].id, 0, waits=story if self.now > 590 else "")}
            return super().poll(timeout_s)

    pool, output = Waiting(answer), MemoryOutput()
    driver, _ = drive(pool, output, workers=1)
    assert sorted(driver.run()) == [0, 1, 2, 3]
    assert pool.started == ["w1", "w2"]
    assert pool.now < 650, "rows are progress, and a wait is none"
    assert [record.getMessage() for record in caplog.records] == [f"worker w1: {story}"]


def test_a_pool_is_told_which_nodes_to_avoid() -> None:
    pool = PuppetPool(succeed)
    driver, _ = drive(pool, MemoryOutput())
    driver._carry_out(StartWorker("w9", avoid=("n1",)))
    assert pool.avoided == {"w9": ("n1",)}


def gate_of(pool: PuppetPool) -> TrialGate:
    spec = SimpleNamespace(model=SimpleNamespace(url="m"), signature=SimpleNamespace(name="s"))
    return TrialGate(pool, spec, lambda note: None)  # type: ignore[arg-type]


def test_no_shard_is_dispatched_before_one_worker_has_tried_the_model_out() -> None:
    pool, output = PuppetPool(succeed), MemoryOutput()
    driver, _ = drive(pool, output)
    assert sorted(replace(driver, gate=gate_of(pool)).run()) == [0, 1, 2, 3]
    assert pool.tried == [("w1", 0)]


def test_the_gate_learns_which_worker_the_driver_stops() -> None:
    pool = PuppetPool(succeed)
    driver = replace(drive(pool, MemoryOutput())[0], gate=gate_of(pool))
    assert driver.gate is not None
    assert driver.gate.admit([WorkerReady(0.0, "w1"), WorkerReady(0.0, "w2")]) == []
    driver._carry_out(StopWorker("w1"))
    assert pool.tried == [("w1", 0), ("w2", 0)]


def test_a_fragile_run_writes_the_shards_in_hand_before_each_dispatch() -> None:
    output = MemoryOutput()

    class Wary(PuppetPool):
        def dispatch(self, worker: str, attempt: Attempt) -> None:
            assert attempt.shard in output.renewed[-1]["in_hand"]  # type: ignore[operator]
            super().dispatch(worker, attempt)

    pool = Wary(succeed)
    driver, _ = drive(pool, output)
    assert sorted(replace(driver, fragile=True).run()) == [0, 1, 2, 3]
    assert len(pool.dispatched) == 4


def test_a_heartbeat_says_how_far_the_shards_in_hand_are() -> None:
    """A job of one large shard is seen to move from its output alone."""
    output = MemoryOutput()

    class Slow(PuppetPool):
        turns = 0

        def poll(self, timeout_s: float) -> Sequence[Event]:
            self.now += 40  # a heartbeat is due
            self.turns += 1
            if self.dispatched and self.turns < 10:
                first = assignments.workers["w1"].running
                assert first is not None
                self.rows["w1"] = Progress(first.id, self.turns)
                return ()
            return super().poll(timeout_s)

    driver, _ = drive(Slow(succeed), output, workers=1)
    assignments = driver.schedule.assignments
    driver.run()
    said = [news["rows_in_hand"] for news in output.renewed]
    assert [rows for rows in said if rows][:3] == [{0: 2}, {0: 3}, {0: 4}]
    assert said[-1] == {}


def test_listeners_note_an_action_before_it_is_carried_out() -> None:
    pool = PuppetPool(succeed)
    noted: list[tuple[Event | Action, int]] = []
    driver, _ = drive(pool, MemoryOutput())
    replace(driver, listeners=Listeners(notes=[lambda what: noted.append((what, len(pool.dispatched)))])).run()
    dispatches = [before for what, before in noted if isinstance(what, Dispatch)]
    assert dispatches == [0, 1, 2, 3]
