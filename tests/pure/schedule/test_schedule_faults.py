"""The Schedule when things go wrong slowly: stalls, poison, bad nodes and workers, stragglers, nodes that drain."""

from __future__ import annotations

import pytest
from schedule_play import LOST, SLOW, LongestWait, PlanOf, Play, error_of, given, stopped, success_of

from jobs.attempt import Failure
from jobs.errors import DataError, PoisonError, RunnerError, StoppedError
from jobs.schedule.event import (
    AttemptFailed,
    ClusterLost,
    Dispatch,
    Finish,
    GiveUp,
    Record,
    RestartCluster,
    Started,
    StartWorker,
    StopWorker,
    WorkerDraining,
    WorkerFailedToStart,
    WorkerLost,
    WorkerProgressed,
    WorkerReady,
)
from jobs.schedule.policy import Policy
from jobs.section.limits import Limits

FOREVER = float("inf")


def _over(actions: list[object]) -> bool:
    return any(isinstance(action, GiveUp | Finish) for action in actions)


# Budgets


@pytest.mark.parametrize(("error", "most"), [(LOST, 6), (SLOW, 4)])
def test_where_nobody_set_a_limit_what_is_nobodys_fault_may_happen_six_times(
    plan_of: PlanOf, error: RunnerError, most: int
) -> None:
    limits = Limits()
    play = Play(plan_of([1]), policy=Policy.of(limits))
    play.start("w1")
    for _ in range(most - 1):
        assert play.fail("w1", 0, error) == []
        play.wait(30)
    assert error_of(play.fail("w1", 0, error)).message.startswith(f"shard 0 failed {most} of {most} attempts")


def test_a_limit_that_the_user_set_is_for_every_class(plan_of: PlanOf) -> None:
    limits = Limits(max_attempts=4)
    play = Play(plan_of([1]), policy=Policy.of(limits))
    play.start("w1")
    for _ in range(3):
        play.fail("w1", 0, LOST)
        play.wait(30)
    assert "4 of 4 attempts" in error_of(play.fail("w1", 0, LOST)).message


def test_failures_of_different_classes_share_the_largest_budget(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(infrastructure=6))
    play.start("w1")
    for error in (LOST, SLOW, LOST, SLOW, LOST):
        assert play.fail("w1", 0, error) == []
        play.wait(30)
    assert "6 of 6 attempts" in error_of(play.fail("w1", 0, SLOW)).message


# Poison


def test_a_shard_that_kills_two_processes_ends_the_run_and_names_its_rows_and_both_deaths(plan_of: PlanOf) -> None:
    play = Play(plan_of([2, 1, 1, 1]), workers=2)
    play.start("w1", "w2")
    play.tell(WorkerLost, "w1", LOST)
    play.succeed("w2", play.running("w2").shard)
    play.wait(1)
    play.tell(WorkerReady, "w3")
    assert play.running("w3").shard == 0
    actions = play.tell(WorkerLost, "w3", LOST)
    error = error_of(actions)
    assert isinstance(error, PoisonError)
    assert (error.exit_code, error.failure_class, error.facts["shard"]) == (70, "poison", 0)
    assert "shard 0 ended 2 processes" in error.message
    assert "'in/00000' row groups 0 to 0" in error.message
    assert "attempt 1 on w1: the process was killed; attempt 2 on w3: the process was killed" in error.message
    assert error.__cause__ is LOST


def test_a_shard_is_not_condemned_while_others_die_too(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 8), workers=2, max_attempts=9)
    play.start("w1", "w2")
    for number in range(1, 6, 2):
        first, second = f"w{number}", f"w{number + 1}"
        actions = play.tell(WorkerLost, first, LOST) + play.tell(WorkerLost, second, LOST)
        assert not _over(actions)
        play.wait(60)
        play.tell(WorkerReady, f"w{number + 2}")
        play.tell(WorkerReady, f"w{number + 3}")


# Stalls


def test_an_attempt_without_progress_is_charged_and_its_worker_replaced(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 5), policy=Policy(stall_s=20))
    play.start("w1")
    play.pass_time(5, {"w1": 1})
    assert play.pass_time(19) == []
    assert play.pass_time(1) == [StopWorker("w1"), StartWorker("w2")]
    (failure,) = play.schedule.shards.failures
    assert (failure.shard, failure.number) == (0, 1)
    assert failure.error.message.startswith("worker w1 stalled: no progress in shard 0 for 20 s")
    assert failure.error.failure_class == "infrastructure"
    play.tell(WorkerReady, "w2")
    play.pass_time(2)
    assert play.held["w2", 1].number == 1, "the one behind it costs nothing"


def test_an_attempt_that_never_begins_has_stalled_too(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(stall_s=20))
    play.start("w1")
    assert stopped(play.pass_time(21)) == ["w1"]


def test_slow_but_alive_is_never_killed(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(stall_s=20))
    play.start("w1")
    for _ in range(50):
        assert play.pass_time(18) == []
        play.pass_time(1, {"w1": 1})


def test_where_batches_are_slow_a_stall_is_ten_of_them(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(stall_s=20))
    play.start("w1")
    for _ in range(30):
        play.pass_time(10)
        play.pass_time(1, {"w1": 1})
    assert play.pass_time(109) == []
    assert stopped(play.pass_time(2)) == ["w1"]


def test_progress_of_another_attempt_is_not_progress(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1, 1]), policy=Policy(stall_s=20))
    play.start("w1")
    play.rows["e1-a1-ffffffffffff"] = 1
    for rows in range(30):
        play.now += 1
        play.schedule.handle(_progressed(play.now, "w1", "e1-a1-ffffffffffff", rows))
        play.wait(0)
    assert play.schedule.shards.failures


def _progressed(now: float, worker: str, attempt: str, rows: int) -> WorkerProgressed:
    return WorkerProgressed(now, worker, attempt, rows)


def test_time_in_which_the_driver_itself_was_away_is_not_a_stall(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(stall_s=20))
    play.start("w1")
    play.pass_time(5, {"w1": 1})
    assert play.wait(3600) == [], "what the worker did meanwhile is told in a moment"
    assert play.pass_time(19) == []
    assert stopped(play.pass_time(1)) == ["w1"]


def test_a_shard_that_stalls_twice_is_poison(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(stall_s=20))
    play.start("w1")
    play.pass_time(21)
    play.tell(WorkerReady, "w2")
    error = error_of(play.pass_time(31))
    assert isinstance(error, PoisonError)
    assert "attempt 2 on w2: worker w2 stalled" in error.message


def test_a_stalled_worker_that_publishes_after_all_has_done_the_shard(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(stall_s=20))
    play.start("w1")
    play.pass_time(21)
    assert isinstance(play.succeed("w1", 0)[0], Record)


# Nodes


def test_what_infrastructure_failed_goes_to_another_node_where_there_is_one(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1, 1]), workers=3)
    play.start_on("n1", "n1", "n2")
    play.fail("w1", 0, LOST)
    play.succeed("w2", 1)
    assert given(play.wait(1)) == [], "w2 is idle, but on the node of w1"
    assert given(play.succeed("w3", 2)) == [("w3", 0)]


def test_on_a_single_node_it_goes_to_another_worker(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), workers=2)
    play.start_on("n1", "n1")
    play.fail("w1", 0, LOST)
    play.succeed("w2", 1)
    assert given(play.wait(1)) == [("w2", 0)]


def test_what_a_store_failed_may_stay_on_the_node(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1, 1]), workers=3)
    play.start_on("n1", "n1", "n2")
    play.fail("w1", 0, SLOW)
    play.succeed("w2", 1)
    assert given(play.wait(1)) == [("w2", 0)]


def test_a_node_with_three_failures_in_a_row_is_avoided_until_it_succeeds_again(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 40), workers=2, max_attempts=9)
    play.start_on("bad", "good")
    actions = play.tell(WorkerLost, "w1", LOST)
    for number in (3, 4):
        assert StartWorker(f"w{number}") in actions
        play.succeed("w2", play.running("w2").shard)
        play.wait(60)
        play.tell(WorkerReady, f"w{number}", "bad")
        actions = play.tell(WorkerLost, f"w{number}", LOST)
    assert StartWorker("w5", avoid=("bad",)) in actions
    play.tell(WorkerReady, "w5", "bad")
    play.succeed("w5", play.running("w5").shard)
    assert StartWorker("w6") in play.tell(WorkerLost, "w5", LOST)


# Workers that only fail


def test_a_worker_that_fails_three_times_in_a_row_with_different_shards_is_replaced(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 9), workers=2)
    play.start("w1", "w2")
    assert stopped(play.fail("w1", 0)) == []
    assert stopped(play.fail("w1", play.running("w1").shard)) == []
    behind = list(play.schedule.assignments.workers["w1"].attempts)[1]
    actions = play.fail("w1", play.running("w1").shard)
    assert actions[:2] == [StopWorker("w1"), StartWorker("w3")]
    assert len(play.schedule.shards.failures) == 3
    assert all(failure.shard != behind for failure in play.schedule.shards.failures)


def test_a_success_in_between_keeps_the_worker(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 9), workers=2)
    play.start("w1", "w2")
    for kind in (play.fail, play.fail, play.succeed, play.fail, play.fail):
        assert stopped(kind("w1", play.running("w1").shard)) == []


# Backups


QUICK = Policy(backup_s=10, stall_s=10_000)


def _straggling(plan_of: PlanOf, shards: int = 4, **options: object) -> Play:
    """w1 is at shard 0 and does not end; w2 has done all others, each in 1 s, and is idle."""
    play = Play(plan_of([1] * shards), workers=2, **{"policy": QUICK, "in_hand": 1} | options)
    play.start_on("n1", "n2")
    for shard in range(1, shards):
        play.pass_time(1)
        play.succeed("w2", shard)
    return play


def test_a_straggler_is_given_to_an_idle_worker_once_and_the_first_success_wins(plan_of: PlanOf) -> None:
    play = _straggling(plan_of)
    actions = play.pass_time(60)
    assert actions == [Dispatch("w2", play.held["w2", 0], adopt=True)], "once"
    assert play.held["w2", 0].id != play.held["w1", 0].id
    assert play.schedule.assignments.in_hand == (0,)
    assert (play.schedule.shards.backed, play.schedule.shards.retries) == ({0}, 0)
    assert play.succeed("w2", 0) == [
        Record(success_of(play.held["w2", 0], "w2"), ()),
        StopWorker("w1"),
        StopWorker("w2"),
        Finish(),
    ]
    assert play.succeed("w1", 0) == []


def test_the_original_may_win_as_well(plan_of: PlanOf) -> None:
    play = _straggling(plan_of)
    play.pass_time(20)
    assert isinstance(play.succeed("w1", 0)[-1], Finish)


def test_no_backup_before_its_time_or_while_shards_wait_or_nobody_is_idle(plan_of: PlanOf) -> None:
    play = _straggling(plan_of, policy=Policy(backup_s=40, stall_s=10_000))
    assert play.pass_time(36) == []
    assert given(play.pass_time(2)) == [("w2", 0)]
    busy = Play(plan_of([1] * 4), workers=2, policy=QUICK, in_hand=1)
    busy.start_on("n1", "n2")
    busy.pass_time(1)
    busy.succeed("w2", 1)
    assert busy.pass_time(200) == [], "w2 has shard 2, and shard 3 waits"


def test_slow_is_three_times_the_median_of_the_rows(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 4), workers=2, policy=QUICK, in_hand=1)
    play.start_on("n1", "n2")
    for shard in (1, 2, 3):
        play.pass_time(20)
        play.succeed("w2", shard)
    assert play.pass_time(1) == [Dispatch("w2", play.held["w2", 0], adopt=True)], "61 s, and 3 x 20 s"
    again = Play(plan_of([1] * 3), workers=2, policy=QUICK, in_hand=1)
    again.start_on("n1", "n2")
    for shard in (1, 2):
        again.pass_time(20)
        again.succeed("w2", shard)
    assert again.pass_time(19) == []


def test_a_backup_prefers_another_node(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3), workers=3, policy=QUICK, in_hand=1)
    play.start_on("n1", "n1", "n2")
    play.pass_time(1)
    play.succeed("w2", 1)
    play.succeed("w3", 2)
    assert given(play.pass_time(20)) == [("w3", 0)]


def test_of_few_shards_one_may_have_a_backup(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 6), workers=4, policy=QUICK, in_hand=1)
    play.start_on("n1", "n2", "n3", "n4")
    play.pass_time(1)
    for worker, shard in [("w3", 2), ("w4", 3), ("w3", 4), ("w4", 5)]:
        play.succeed(worker, shard)
    assert len(given(play.pass_time(500))) == 1, "w1 and w2 are slow"


def test_when_one_of_two_fails_the_other_goes_on_and_when_both_do_it_is_retried(plan_of: PlanOf) -> None:
    play = _straggling(plan_of)
    play.pass_time(20)
    assert given(play.fail("w1", 0)) == []
    assert given(play.pass_time(60)) == []
    assert given(play.tell(WorkerLost, "w2", LOST)) == []
    assert given(play.pass_time(2)) == [("w1", 0)]
    assert len(play.schedule.shards.failures) == 2


def test_a_last_try_that_fails_beside_its_backup_leaves_the_backup_its_chance(plan_of: PlanOf) -> None:
    play = _straggling(plan_of, max_attempts=1)
    play.pass_time(20)
    assert not _over(play.fail("w1", 0))
    record = play.succeed("w2", 0)[0]
    assert isinstance(record, Record)
    assert len(record.failures) == 1
    both = _straggling(plan_of, max_attempts=1)
    both.pass_time(20)
    both.fail("w1", 0)
    assert _over(both.fail("w2", 0))


def test_bad_data_ends_the_run_whoever_finds_it(plan_of: PlanOf) -> None:
    play = _straggling(plan_of)
    play.pass_time(20)
    assert isinstance(error_of(play.fail("w2", 0, DataError("null", code="NULL"))), DataError)


def test_a_slow_worker_that_lost_to_its_backup_is_stopped_and_what_it_held_given_back(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 20), workers=2, policy=Policy(backup_s=10, backup_share=0.1))
    play.start_on("n1", "n2")
    behind = next(iter(set(play.schedule.assignments.workers["w1"].attempts) - {0}))
    while play.schedule.shards.done < 18:
        play.pass_time(1)
        play.succeed("w2", play.running("w2").shard)
    assert given(play.pass_time(20)) == [("w2", 0)]
    actions = play.succeed("w2", 0)
    assert stopped(actions) == ["w1"]
    assert given(actions) == [("w2", behind)]
    assert not play.schedule.shards.failures


def test_backups_are_one_in_twenty_at_most(plan_of: PlanOf) -> None:
    assert [Policy().backups(shards) for shards in (1, 20, 40, 1000)] == [1, 1, 2, 50]


# Nodes that drain


def test_a_worker_that_drains_ends_what_it_runs_and_gets_nothing_new_while_a_replacement_starts(
    plan_of: PlanOf,
) -> None:
    play = Play(plan_of([1] * 6), workers=1)
    play.start_on("n1")
    actions = play.tell(WorkerDraining, "w1", FOREVER)
    assert actions == [StartWorker("w2", avoid=("n1",))]
    assert (play.schedule.assignments.usable, play.schedule.assignments.in_hand) == (0, (0,))
    actions = play.succeed("w1", 0)
    assert isinstance(actions[0], Record)
    assert actions[1:] == [StopWorker("w1")]
    actions = play.tell(WorkerReady, "w2", "n2")
    assert ("w2", 1) in given(actions), "what was behind was given back"
    assert play.held["w2", 1].number == 1


def test_a_worker_that_drains_too_soon_gives_back_at_no_cost(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 6), workers=1, in_hand=1)
    play.start_on("n1")
    play.pass_time(100)
    play.succeed("w1", 0)
    assert play.tell(WorkerDraining, "w1", 50.0) == [StopWorker("w1"), StartWorker("w2")]
    assert not play.schedule.shards.failures
    assert play.schedule.assignments.in_hand == ()


def test_at_the_deadline_it_is_given_back_without_waiting_for_the_loss_to_be_noticed(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 6), workers=1)
    play.start_on("n1")
    play.tell(WorkerDraining, "w1", 30.0)
    assert play.pass_time(29) == []
    assert stopped(play.pass_time(2)) == ["w1"]
    assert not play.schedule.shards.failures


def test_preempted_attempts_are_free_however_many(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), max_attempts=1)
    play.start_on("n1")
    for number in range(1, 20):
        actions = play.tell(WorkerLost, f"w{number}", LOST, True)
        assert actions == [StartWorker(f"w{number + 1}")]
        assert given(play.tell(WorkerReady, f"w{number + 1}", "n1")) == [(f"w{number + 1}", 0)]
    assert not play.schedule.shards.failures
    assert play.held["w20", 0].number == 1


def test_a_worker_lost_while_it_drains_was_preempted(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), max_attempts=1)
    play.start_on("n1")
    play.tell(WorkerDraining, "w1", FOREVER)
    assert not _over(play.tell(WorkerLost, "w1", LOST))
    assert not play.schedule.shards.failures


def test_a_failure_of_a_worker_that_drains_is_charged_and_ends_it(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3), workers=1)
    play.start_on("n1")
    play.tell(WorkerDraining, "w1", FOREVER)
    assert stopped(play.fail("w1", 0)) == ["w1"]
    assert len(play.schedule.shards.failures) == 1


def test_a_worker_that_drains_while_it_starts_or_is_idle_is_replaced_at_once(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3), workers=1, chance=LongestWait())
    play.tell(Started)
    assert play.tell(WorkerDraining, "w1", FOREVER) == [StopWorker("w1"), StartWorker("w2")]
    assert play.tell(WorkerFailedToStart, "w1", LOST) == [], "it is forgotten"


def test_draining_twice_or_of_nobody_changes_nothing(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 3), workers=1)
    play.start_on("n1")
    play.tell(WorkerDraining, "w1", FOREVER)
    assert play.tell(WorkerDraining, "w1", 0.0) == []
    assert play.tell(WorkerDraining, "w7", 0.0) == []


def test_what_a_stopped_worker_reports_late_is_nobodys_failure(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy(stall_s=20))
    play.start("w1")
    held = play.held["w1", 0]
    play.pass_time(21)
    late = Failure(0, held.id, 1, "w1", StoppedError("stopped on worker w1"))
    assert play.tell(AttemptFailed, "w1", late) == []


def test_with_its_cluster_all_that_was_in_hand_is_given_back_and_no_try_is_used_up(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 4), workers=2)
    play.start("w1", "w2")
    actions = play.tell(ClusterLost, "the local Ray is gone: killed", True)
    assert actions[:3] == [StopWorker("w1"), StopWorker("w2"), RestartCluster("the local Ray is gone: killed")]
    assert [action.worker for action in actions[3:] if isinstance(action, StartWorker)] == ["w3", "w4"]
    play.schedule.validate()
    assert play.tell(WorkerLost, "w1", LOST) == [], "it is forgotten"
    given = [*play.tell(WorkerReady, "w3"), *play.tell(WorkerReady, "w4")]
    assert {action.attempt.number for action in given if isinstance(action, Dispatch)} == {1}
    assert not play.schedule.shards.failures
    error = error_of(play.tell(ClusterLost, "the local Ray is gone: killed", True))
    assert error.exit_code == 69
