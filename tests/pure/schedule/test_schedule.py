"""The Schedule, told what happens and asked what to do: rules one by one, then a few hundred random histories."""

from __future__ import annotations

import dataclasses
import random
import tracemalloc
from collections import Counter

import pytest
from schedule_play import LOST, SLOW, LongestWait, PlanOf, Play, draw, error_of, given, success_of

from jobs.attempt import Attempt, Failure
from jobs.errors import (
    CapacityError,
    DataError,
    JobError,
    MemoryLimitError,
    ModelCallError,
    ModelError,
    RunnerError,
    StoppedError,
    WorkerError,
)
from jobs.plan import Plan
from jobs.schedule.elastic import Demand
from jobs.schedule.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
    Dispatch,
    Event,
    Finish,
    GiveUp,
    Record,
    Started,
    StartWorker,
    StopRequested,
    StopWorker,
    Tick,
    WorkerDraining,
    WorkerFailedToStart,
    WorkerLost,
    WorkerProgressed,
    WorkerReady,
)
from jobs.schedule.policy import Policy
from jobs.schedule.schedule import Schedule

# Starting, order, the end


def test_nothing_left_to_do_finishes_without_a_worker(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), workers=0, done=[0, 1])
    assert play.start() == [Finish()]
    assert play.wait(1) == []
    assert play.schedule.shards.rows_done == 20


def test_no_more_workers_are_started_than_shards_are_left(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1, 1]), workers=8, done=[1])
    assert play.start() == [StartWorker("w1"), StartWorker("w2")]


def test_shards_left_and_no_worker_wanted_is_a_mistake_of_the_caller(plan_of: PlanOf) -> None:
    with pytest.raises(ValueError, match="0 workers; expected at least 1"):
        Play(plan_of([1]), workers=0)


def test_work_begins_with_the_first_ready_worker_and_the_largest_shards_else_in_order(plan_of: PlanOf) -> None:
    play = Play(plan_of([10, 30, 30, 20, 10]), workers=2)
    assert given(play.start("w2")) == [("w2", 1), ("w2", 2)]
    assert given(play.succeed("w2", 1)) == [("w2", 3)]
    assert given(play.tell(WorkerReady, "w1")) == [("w1", 0), ("w1", 4)]


def test_the_last_shards_are_kept_for_hands_that_are_empty(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), workers=2)
    assert given(play.start("w1")) == [("w1", 0)]
    assert given(play.tell(WorkerReady, "w2")) == [("w2", 1)]


def test_a_success_is_recorded_once_and_the_last_one_stops_all_workers_and_finishes(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), workers=2)
    play.start("w1", "w2")
    first = success_of(play.held["w1", 0], "w1")
    assert play.succeed("w1", 0) == [Record(first, ())]
    assert play.succeed("w1", 0) == []
    assert play.schedule.assignments.idle == ("w1",)
    last = success_of(play.held["w2", 1], "w2")
    assert play.succeed("w2", 1) == [Record(last, ()), StopWorker("w1"), StopWorker("w2"), Finish()]
    assert play.succeed("w2", 1) == []


def test_progress_counts_what_is_done_in_hand_and_waiting(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 8), workers=2, done=[7])
    play.start("w1", "w2")
    play.succeed("w1", 0)
    shards, assignments = play.schedule.shards, play.schedule.assignments
    assert (shards.total, shards.done, shards.rows_done, shards.attempts, shards.retries) == (8, 2, 20, 5, 0)
    assert (assignments.in_hand, assignments.usable, assignments.idle) == ((1, 2, 3, 4), 2, ())
    assert (play.schedule.waiting, play.schedule.workers) == (2, 2)


# Attempts that fail


def test_a_failed_attempt_is_tried_again_on_another_worker_after_a_back_off(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), workers=2)
    play.start("w1", "w2")
    assert play.fail("w1", 0) == []
    assert play.wait(0.5) == [], "w1 is idle, but it is w1 that failed"
    assert given(play.succeed("w2", 1)) == [("w2", 0)]
    assert play.held["w2", 0].number == 2
    assert play.schedule.shards.retries == 1


def test_a_retry_is_given_to_the_same_worker_where_there_is_no_other(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]))
    play.start("w1")
    play.fail("w1", 0)
    assert play.wait(0.5) == [Dispatch("w1", play.held["w1", 0], adopt=True)]


def test_a_retry_remembers_where_it_failed_when_the_worker_it_waited_on_is_lost(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 6), workers=3)
    play.start("w1", "w2", "w3")
    play.fail("w1", 0)
    play.wait(1)
    assert given(play.succeed("w2", 2)) == [("w2", 0)], "behind shard 3"
    play.succeed("w3", 4)
    assert given(play.tell(WorkerLost, "w2", LOST)) == [("w3", 0)], "w1 has room too"


def test_back_offs_double_up_to_thirty_seconds_with_full_jitter(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), max_attempts=10, chance=LongestWait())
    play.start("w1")
    for expected in (0.5, 1, 2, 4, 8, 16, 30, 30):
        play.fail("w1", 0)
        assert given(play.wait(expected - 0.01)) == []
        assert given(play.wait(0.01)) == [("w1", 0)]


def test_a_success_after_failures_carries_them(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]))
    play.start("w1")
    play.fail("w1", 0)
    play.wait(1)
    record = play.succeed("w1", 0)[0]
    assert isinstance(record, Record)
    assert [failure.number for failure in record.failures] == [1]
    assert record.success.receipt.number == 2


@pytest.mark.parametrize(("error", "code"), [(SLOW, 70), (LOST, 70), (CapacityError("none"), 69)])
def test_attempts_used_up_end_the_run_with_the_last_cause(plan_of: PlanOf, error: RunnerError, code: int) -> None:
    play = Play(plan_of([1]), max_attempts=3)
    play.start("w1")
    for _ in range(2):
        assert play.fail("w1", 0, error) == []
        play.wait(5)
    actions = play.fail("w1", 0, error)
    given_up = error_of(actions)
    assert given_up.message == f"shard 0 failed 3 of 3 attempts: last on worker w1: {error.message}"
    assert (type(given_up), given_up.exit_code, given_up.__cause__) == (type(error), code, error)
    assert actions[1:] == [StopWorker("w1")]
    assert play.succeed("w1", 0) == []


@pytest.mark.parametrize(
    "error", [JobError("no access"), DataError("bad page", code="PAGE_CRC"), ModelCallError("refused")]
)
def test_what_would_fail_again_ends_the_run_at_once(plan_of: PlanOf, error: RunnerError) -> None:
    play = Play(plan_of([1, 1, 1]), workers=2)
    play.start("w1", "w2")
    actions = play.fail("w1", 0, error)
    given_up = error_of(actions)
    assert (type(given_up), given_up.__cause__) == (type(error), error)
    assert given_up.message == f"shard 0 failed on worker w1 and would fail again: {error.message}"
    assert given_up.facts == error.facts | {"shard": 0, "worker": "w1", "attempts": 1}
    assert actions[1:] == [StopWorker("w1"), StopWorker("w2")]


def test_an_attempt_that_was_stopped_ends_the_run_with_the_reason_of_the_stop(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]))
    play.start("w1")
    stopped = StoppedError("terminated by a signal")
    assert error_of(play.fail("w1", 0, stopped)) is stopped


def test_a_failure_that_is_told_twice_counts_once(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), max_attempts=2)
    play.start("w1")
    late = play.held["w1", 0]
    play.fail("w1", 0)
    assert given(play.wait(1)) == [("w1", 0)]
    assert play.tell(AttemptFailed, "w1", Failure(0, late.id, 1, "w1", SLOW)) == []
    assert len(play.schedule.shards.failures) == 1


def test_only_the_last_hundred_failures_are_kept(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), max_attempts=1000)
    play.start("w1")
    for _ in range(150):
        play.fail("w1", 0)
        play.wait(30)
    assert [failure.number for failure in play.schedule.shards.failures] == list(range(51, 151))


# Workers that are lost


def test_a_lost_worker_is_replaced_and_only_the_attempt_that_ran_is_charged(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3))
    play.start("w1")
    assert play.tell(WorkerLost, "w1", LOST) == [StartWorker("w2")]
    assert [failure.shard for failure in play.schedule.shards.failures] == [0]
    play.tell(WorkerReady, "w2")
    play.wait(1)
    assert given(play.succeed("w2", 1)) + given(play.succeed("w2", 2)) == [("w2", 0)]
    assert (play.held["w2", 1].number, play.held["w2", 0].number) == (1, 2)


def test_the_shard_behind_a_lost_one_is_given_out_at_once_and_may_be_there_already(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 5), workers=2)
    play.start("w1", "w2")
    play.succeed("w2", 2)
    play.succeed("w2", 3)
    actions = play.tell(WorkerLost, "w1", LOST)
    assert Dispatch("w2", play.held["w2", 1], adopt=True) in actions
    assert play.held["w2", 1].number == 1
    assert play.held["w2", 1].id != play.held["w1", 1].id


def test_a_success_of_a_worker_thought_lost_counts_and_the_other_attempt_no_longer_matters(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), workers=2)
    play.start("w1", "w2")
    play.succeed("w2", 1)
    play.tell(WorkerLost, "w1", LOST)
    assert given(play.wait(1)) == [("w2", 0)]
    assert isinstance(play.succeed("w1", 0)[0], Record)


def test_a_late_success_leaves_the_other_attempt_in_hand_but_uncounted(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 4), workers=2, max_attempts=2)
    play.start("w1", "w2")
    play.tell(WorkerLost, "w1", LOST)
    play.wait(1)
    assert ("w3", 0) in given(play.tell(WorkerReady, "w3"))
    assert isinstance(play.succeed("w1", 0)[0], Record)
    assert play.schedule.assignments.idle == (), "w3 works on it still"
    assert not any(isinstance(action, GiveUp) for action in play.fail("w3", 0))
    assert len(play.schedule.shards.failures) == 1


def test_a_worker_lost_with_a_shard_that_is_done_already_costs_no_attempt(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 4), workers=2, max_attempts=2)
    play.start("w1", "w2")
    play.tell(WorkerLost, "w1", LOST)
    play.wait(1)
    play.tell(WorkerReady, "w3")
    ran = next(iter(play.schedule.assignments.workers["w3"].attempts))
    play.succeed("w1", ran)
    assert not any(isinstance(action, GiveUp) for action in play.tell(WorkerLost, "w3", LOST))
    assert len(play.schedule.shards.failures) == 1


def test_no_worker_is_replaced_while_those_alive_are_enough_for_what_is_left(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3), workers=3)
    play.start("w1", "w2", "w3")
    play.succeed("w1", 0)
    assert play.tell(WorkerLost, "w2", LOST) == []
    assert given(play.wait(1)) == [("w1", 1)]


def test_losses_between_successes_do_not_add_up(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 40), max_attempts=2)
    play.start()
    for number in range(1, 20):
        play.wait(10)
        play.tell(WorkerReady, f"w{number}")
        for _ in range(2):
            play.succeed(f"w{number}", next(iter(play.schedule.assignments.workers[f"w{number}"].attempts)))
        assert not any(isinstance(action, GiveUp) for action in play.tell(WorkerLost, f"w{number}", LOST))


def test_attempts_used_up_are_told_before_workers_lost(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), max_attempts=2)
    play.start()
    for number in (1, 2, 3):
        play.wait(10)
        play.tell(WorkerReady, f"w{number}")
        actions = play.tell(WorkerLost, f"w{number}", LOST)
    assert error_of(actions).message.startswith("shard 0 failed 2 of 2 attempts: last on worker w3")


def test_workers_that_die_without_ever_finishing_a_shard_are_not_replaced_for_ever(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 50), max_attempts=3)
    play.start()
    for number in range(1, 100):
        play.now += 100
        actions = play.tell(WorkerReady, f"w{number}") and play.tell(WorkerLost, f"w{number}", LOST)
        if any(isinstance(action, GiveUp) for action in actions):
            break
    assert number == 4
    assert error_of(actions).message.endswith(": the process was killed")
    assert error_of(actions).exit_code == 70


# Workers that do not start


def test_three_failed_starts_in_a_row_end_the_run_with_the_cause(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]))
    play.start()
    for number in (1, 2):
        assert play.tell(WorkerFailedToStart, f"w{number}", LOST) == []
        assert play.wait(1) == [StartWorker(f"w{number + 1}")]
    error = error_of(play.tell(WorkerFailedToStart, "w3", LOST))
    assert error.message == "no worker could start, 3 tries failed in a row: last worker w3: the process was killed"
    assert (type(error), error.exit_code) == (WorkerError, 70)


def test_as_long_as_a_worker_may_still_start_failed_starts_do_not_end_the_run(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 9), workers=5)
    play.start()
    for number in (1, 2, 3, 4):
        assert play.tell(WorkerFailedToStart, f"w{number}", LOST) == []
    assert play.wait(60) == [], "three failed in a row: now it is the fifth that tells"
    actions = play.tell(WorkerReady, "w5")
    assert actions[:4] == [StartWorker(f"w{number}") for number in (6, 7, 8, 9)]
    assert given(actions) == [("w5", 0), ("w5", 1)]


def test_failed_starts_count_anew_when_a_worker_was_ready_in_between(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 9), workers=2, chance=LongestWait())
    play.start("w1")
    for number, back_off in [(2, 0.5), (3, 1), (4, 2)]:
        play.tell(WorkerFailedToStart, f"w{number}", LOST)
        assert play.wait(back_off - 0.1) == []
        assert play.wait(0.1) == [StartWorker(f"w{number + 1}")]
    play.tell(WorkerReady, "w5")
    assert play.tell(WorkerLost, "w5", LOST)[0] == StartWorker("w6")
    play.tell(WorkerFailedToStart, "w6", LOST)
    assert play.wait(0.5)[0] == StartWorker("w7"), "the back-off is short again"
    for number, following in [(7, 8), (8, 9)]:
        play.tell(WorkerFailedToStart, f"w{number}", LOST)
        assert play.wait(30)[0] == StartWorker(f"w{following}")
    play.tell(WorkerLost, "w1", LOST)
    assert not any(isinstance(action, GiveUp) for action in play.tell(WorkerFailedToStart, "w9", LOST)), "a first time"


def test_a_start_that_fails_for_a_reason_in_the_job_ends_the_run_at_once(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), workers=1)
    play.start()
    refused = ModelError("cannot load model 'm': it has the op 'Nope'")
    assert play.tell(WorkerFailedToStart, "w1", refused) == [GiveUp(refused)]


def test_a_worker_lost_while_starting_has_failed_to_start(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]))
    play.start()
    for number in (1, 2):
        play.tell(WorkerLost, f"w{number}", LOST)
        play.wait(1)
    assert "no worker could start" in error_of(play.tell(WorkerLost, "w3", LOST)).message


def test_no_usable_worker_for_a_quarter_of_an_hour_ends_the_run_saying_what_was_asked_for(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), needs="8 workers with 1 GPU each")
    play.start()
    assert play.wait(899) == []
    error = error_of(play.wait(1))
    assert (type(error), error.exit_code) == (CapacityError, 69)
    assert (
        "no worker was usable for 15 minutes: 1 are still starting, asked for 8 workers with 1 GPU each"
        in error.message
    )


def test_the_wait_for_a_worker_begins_anew_when_the_last_one_is_lost(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 9), capacity_s=60)
    play.wait(1000)
    play.start("w1")
    assert play.wait(1000) == []
    play.tell(WorkerLost, "w1", LOST)
    assert not any(isinstance(action, GiveUp) for action in play.wait(59))
    assert isinstance(error_of(play.wait(1)), CapacityError)


# Stopping, lateness, size


def test_a_stop_ends_the_run_once_with_its_reason(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3), workers=2)
    play.start("w1")
    stopped = StoppedError("interrupted")
    assert play.tell(StopRequested, stopped) == [GiveUp(stopped), StopWorker("w1"), StopWorker("w2")]
    assert play.tell(StopRequested, stopped) == []


def test_events_of_unknown_workers_and_news_told_twice_change_nothing(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3))
    play.start("w1")
    for kind, facts in [
        (WorkerReady, ("w1",)),
        (WorkerReady, ("w9",)),
        (WorkerLost, ("w9", LOST)),
        (WorkerFailedToStart, ("w9", LOST)),
    ]:
        assert play.tell(kind, *facts) == []


def test_a_schedule_of_a_hundred_thousand_shards_takes_a_few_bytes_for_each(plan_of: PlanOf) -> None:
    plan = plan_of([1] * 100_000)
    tracemalloc.start()
    schedule = Schedule(plan, (), Policy(), draw(random.Random(0)), Demand(8))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert schedule.waiting == 100_000
    assert used < 20 * 100_000


# Random histories


class Puppet:
    """A pool that moves only when told, and then at random: whatever real workers can do, it does sooner or later.

    Checks what only an observer from outside can: nothing is in two hands unless one is the backup, no hand is too
    full, a retry goes to another worker where there is one, who drains gets nothing, every event gets an answer that
    ends in one Finish or one GiveUp. drawn: it also drains, preempts, hangs and is slow, on a few nodes.
    """

    def __init__(self, plan: Plan, seed: int, nodes: int = 0) -> None:
        self.random = random.Random(seed)
        self.nodes = nodes
        self.on: dict[str, str] = {}
        self.draining: set[str] = set()
        self.hung: set[str] = set()
        self.rows: Counter[str] = Counter()
        self.backed: set[int] = set()
        self.kinds: Counter[str] = Counter()
        self.plan, self.trouble = plan, self.random.choice([0.0, 0.02, 0.1, 0.3])
        self.max_attempts = self.random.randint(1, 5)
        self.now = 0.0
        self.starting: list[str] = []
        self.hands: dict[str, list[Attempt]] = {}
        self.failed_on: dict[int, str] = {}
        self.numbers: Counter[int] = Counter()
        self.ids: set[str] = set()
        self.recorded: Counter[int] = Counter()
        self.late: list[Event] = []
        self.end: Finish | GiveUp | None = None

    def carry_out(self, action: Action) -> None:
        assert self.end is None or (isinstance(action, StopWorker) and isinstance(self.end, GiveUp))
        match action:
            case StartWorker(worker):
                assert worker not in self.hands
                self.starting.append(worker)
            case StopWorker(worker):
                assert worker in self.hands or worker in self.starting
                for attempt in self.hands.pop(worker, []):  # stalled here, perhaps: where it failed before is no matter
                    self.failed_on.pop(attempt.shard, None)
                if worker in self.starting:
                    self.starting.remove(worker)
            case Dispatch(worker, attempt, adopt):
                self.check_dispatch(worker, attempt, adopt)
                self.hands[worker].append(attempt)
            case Record(success, failures):
                shard = success.receipt.shard
                self.recorded[shard] += 1
                assert len(failures) < self.max_attempts + (shard in self.backed)
            case GiveUp() | Finish():
                self.end = action

    def check_dispatch(self, worker: str, attempt: Attempt, adopt: bool) -> None:
        shard = attempt.shard
        assert worker in self.hands, "the worker is ready"
        assert worker not in self.draining
        others = [name for name, hand in self.hands.items() for other in hand if other.shard == shard]
        if others:
            assert shard not in self.backed, "one backup"
            assert worker not in others
            assert not self.hands[worker], "only who has nothing else to do"
            self.backed.add(shard)
            self.kinds["backup"] += 1
        assert len(self.hands[worker]) < (1 if attempt.isolated else 2)
        self.kinds["isolated"] += attempt.isolated
        assert not self.recorded[shard]
        assert attempt.id not in self.ids
        assert adopt == (self.numbers[shard] > 0)
        assert attempt.number <= self.max_attempts
        if self.failed_on.get(shard) == worker and not others:
            assert len(self.hands.keys() - self.draining) == 1, "a retry goes to another worker where there is one"
        self.ids.add(attempt.id)
        self.numbers[shard] += 1

    def happen(self) -> Event:
        self.now += self.random.choice([0.0, 0.1, 1.0])
        if self.nodes and (event := self.strange()) is not None:
            self.kinds[type(event).__name__] += 1
            return event
        working = [worker for worker, hand in self.hands.items() if hand and worker not in self.hung]
        trouble = self.random.random() < self.trouble
        if self.late and self.random.random() < 0.1:
            return self.random.choice(self.late)
        if self.starting and self.random.random() < 0.4:
            worker = self.starting.pop(self.random.randrange(len(self.starting)))
            if trouble:
                return WorkerFailedToStart(self.now, worker, LOST)
            self.hands[worker] = []
            self.on[worker] = f"n{self.random.randrange(self.nodes)}" if self.nodes else ""
            return WorkerReady(self.now, worker, self.on[worker])
        if trouble and self.hands and self.random.random() < 0.5:
            return self.lose(self.random.choice(list(self.hands)))
        if not working:
            return Tick(self.now)
        worker = self.random.choice(working)
        attempt = self.hands[worker].pop(0)
        if trouble:
            self.failed_on[attempt.shard] = worker
            error = self.random.choice([SLOW, MemoryLimitError("too big"), LOST])
            failed = AttemptFailed(self.now, worker, Failure(attempt.shard, attempt.id, attempt.number, worker, error))
            self.late.append(failed)
            return failed
        done = AttemptSucceeded(self.now, worker, success_of(attempt, worker))
        self.late.append(done)
        return done

    def strange(self) -> Event | None:
        """What comes with nodes: they drain, are taken away, hang, and their workers tell how far they are."""
        draw = self.random.random()
        if not self.hands or draw > 0.4:
            return None
        if draw > 0.2:
            return Tick(self.now)
        worker = self.random.choice(list(self.hands))
        hand = self.hands[worker]
        if draw < 0.01:
            self.draining.add(worker)
            for attempt in hand[1:]:  # it goes on to run them, and may publish
                self.late.append(AttemptSucceeded(self.now, worker, success_of(attempt, worker)))
            del hand[1:]
            return WorkerDraining(self.now, worker, self.random.choice([0.0, 20.0, float("inf")]))
        if draw < 0.02:
            self.hands.pop(worker)
            return WorkerLost(self.now, worker, LOST, preempted=True)
        if draw < 0.03:
            self.hung.add(worker)
        if not hand or worker in self.hung:
            return Tick(self.now)
        self.rows[hand[0].id] += self.random.randint(0, 3)
        return WorkerProgressed(self.now, worker, hand[0].id, self.rows[hand[0].id])

    def lose(self, worker: str) -> Event:
        for order, attempt in enumerate(self.hands.pop(worker)):
            if order == 0:
                self.failed_on[attempt.shard] = worker
            if self.random.random() < 0.2:  # it was published after all, and the news is late
                self.late.append(AttemptSucceeded(self.now, worker, success_of(attempt, worker)))
        return WorkerLost(self.now, worker, LOST)


def _play_out(schedule: Schedule, puppet: Puppet, event: Event) -> None:
    for _ in range(20_000):
        for action in schedule.handle(event):
            puppet.carry_out(action)
        if puppet.end is not None:
            return
        event = puppet.happen()


@pytest.mark.parametrize(
    "seeds", [range(start, start + 50) for start in range(0, 400, 50)], ids=lambda seeds: str(seeds[0])
)
def test_every_shard_is_recorded_once_or_the_run_gives_up_with_a_cause(seeds: range, plan_of: PlanOf) -> None:
    for seed in seeds:
        chance = random.Random(seed)
        plan = plan_of([chance.randint(1, 5) for _ in range(chance.randint(1, 40))])
        done = {shard for shard in range(len(plan.shards)) if chance.random() < 0.1}
        puppet = Puppet(plan, seed)
        demand = Demand(chance.randint(1, 6))
        policy = Policy(max_attempts=puppet.max_attempts)
        schedule = Schedule(plan, done, policy, draw(random.Random(seed)), demand)
        event: Event = Started(0.0)
        _play_out(schedule, puppet, event)
        assert puppet.end is not None, f"seed {seed} never ended"
        assert max(puppet.recorded.values(), default=1) == 1
        assert not puppet.recorded.keys() & done
        if isinstance(puppet.end, Finish):
            assert puppet.recorded.keys() | done == set(range(len(plan.shards)))
            assert schedule.shards.rows_done == plan.rows
        else:
            assert puppet.end.error.__cause__ is not None or isinstance(puppet.end.error, CapacityError)
        assert schedule.handle(Tick(puppet.now)) == []


@pytest.mark.parametrize("isolated", [False, True], ids=["fail", "isolated"])
def test_the_same_holds_while_nodes_drain_vanish_and_hang_and_shards_have_backups(
    plan_of: PlanOf, isolated: bool
) -> None:
    kinds: Counter[str] = Counter()
    base = Policy(max_attempts=9, stall_s=12, backup_s=2, backup_share=0.2, look_s=0.5, isolated=isolated)
    for seed in range(400):
        chance = random.Random(seed)
        plan = plan_of([chance.randint(1, 5) for _ in range(chance.randint(1, 40))])
        puppet = Puppet(plan, seed, nodes=chance.randint(1, 3))
        puppet.max_attempts = 9
        demand = Demand(chance.randint(1, 6))
        policy = dataclasses.replace(base, in_hand=chance.randint(1, 2))
        schedule = Schedule(plan, (), policy, draw(random.Random(seed)), demand)
        _play_out(schedule, puppet, Started(0.0))
        assert puppet.end is not None, f"seed {seed} never ended"
        assert max(puppet.recorded.values(), default=1) == 1
        assert len(puppet.backed) <= policy.backups(len(plan.shards))
        if isinstance(puppet.end, Finish):
            assert puppet.recorded.keys() == set(range(len(plan.shards))), f"seed {seed}"
        kinds += puppet.kinds
        kinds[type(puppet.end).__name__] += 1
        kinds["stall"] += sum("stalled" in failure.error.message for failure in schedule.shards.failures)
    assert ("isolated" in kinds) == isolated
    wanted = {"WorkerDraining", "WorkerLost", "WorkerProgressed", "backup", "stall", "Finish", "GiveUp"}
    assert wanted <= kinds.keys(), kinds
    assert all(kinds[kind] >= 10 for kind in wanted), kinds
