"""The Schedule where rows are bad: budgets over all shards, memory, sick devices, and shards that need care."""

from __future__ import annotations

from typing import Any

import pytest
from schedule_play import LOST, PlanOf, Play, error_of, given, stopped, success_of

from jobs.attempt import Advice
from jobs.errors import DataError, DeviceError, MemoryLimitError, PoisonError
from jobs.rejection import Rejections
from jobs.schedule.event import (
    AttemptSucceeded,
    Dispatch,
    Finish,
    GiveUp,
    Record,
    StartWorker,
    WorkerFailedToStart,
    WorkerLost,
    WorkerProgressed,
    WorkerReady,
)
from jobs.schedule.policy import Policy
from jobs.section.limits import Limits
from jobs.section.number import allowed

ISOLATED = Policy(isolated=True, stall_s=20)
TOO_BIG = MemoryLimitError("does not fit")
ONE_ROW = MemoryLimitError("one row does not fit", rows=1)


def started(actions: list[Any]) -> list[tuple[str, bool]]:
    return [(action.worker, action.isolated) for action in actions if isinstance(action, StartWorker)]


def attempts(actions: list[Any]) -> list[Any]:
    return [action.attempt for action in actions if isinstance(action, Dispatch)]


# Budgets


@pytest.mark.parametrize(
    ("budget", "total", "rows"), [(0, 10, 0), (7, 3, 7), ("10%", 1000, 100), ("0.1%", 999, 0), ("100%", 5, 5)]
)
def test_a_budget_is_a_number_or_a_share_rounded_down(budget: int | str, total: int, rows: int) -> None:
    assert allowed(Limits(max_rejected_rows=budget).max_rejected_rows, total) == rows


def rejecting(play: Play, worker: str, shard: int, rows: int, **facts: Any) -> list[Any]:
    changes = {"rows_out": 10 - rows, "rows_rejected": rows, "codes": {"ROW_NULL": rows}} | facts
    return play.tell(AttemptSucceeded, worker, success_of(play.held[worker, shard], worker, **changes))


def test_rows_rejected_by_all_shards_together_are_held_against_the_budget(plan_of: PlanOf) -> None:
    plan = plan_of([1] * 4)
    limits = Limits(on_bad_row="reject", max_rejected_rows=3)
    play = Play(plan, rejections=Rejections.of(plan, limits))
    play.start("w1")
    assert given(rejecting(play, "w1", 0, 2)) != []
    actions = rejecting(play, "w1", 1, 2)
    assert isinstance(actions[0], Record), "what is published is recorded: a larger budget continues from here"
    error = error_of(actions)
    assert isinstance(error, DataError)
    assert (error.exit_code, error.facts["code"]) == (65, "MAX_REJECTED_ROWS")
    assert "4 rows were rejected (4 ROW_NULL); `limits.max_rejected_rows: 3` allows 3 of 40" in error.message


def test_a_share_is_one_of_the_rows_that_are_not_left_out(plan_of: PlanOf) -> None:
    plan = plan_of([1] * 4)
    play = Play(plan, rejections=Rejections.of(plan, Limits(on_bad_row="reject", max_rejected_rows="10%")))
    play.start("w1")
    assert given(rejecting(play, "w1", 0, 2)) != []  # 2 of 40, of which 4 may be
    assert given(rejecting(play, "w1", 1, 0, rows_out=0, rows_left_out=10)) != []
    error = error_of(rejecting(play, "w1", 2, 1, rows_out=0, rows_left_out=9))
    assert error.facts["code"] == "MAX_REJECTED_ROWS"
    assert "3 rows were rejected (3 ROW_NULL); `limits.max_rejected_rows: 10%` allows 2 of 21" in error.message


def test_rows_that_could_not_be_read_count_as_files_and_not_as_rows(plan_of: PlanOf) -> None:
    plan = plan_of([1] * 4)
    limits = Limits(on_bad_file="skip", max_bad_files="25%")
    play = Play(plan, rejections=Rejections.of(plan, limits))
    play.start("w1")
    assert given(rejecting(play, "w1", 0, 10, bad_files={"in/00000": 10})) != []
    error = error_of(rejecting(play, "w1", 1, 10, bad_files={"in/00001": 10}))
    assert error.facts["code"] == "MAX_BAD_FILES"
    assert "2 of 4 input files are bad: 'in/00000', 'in/00001'; `limits.max_bad_files: 25%` allows 1" in error.message


@pytest.mark.parametrize("before", [0, 1])
def test_a_job_whose_rows_were_all_rejected_has_failed_whatever_the_budget(plan_of: PlanOf, before: int) -> None:
    plan = plan_of([1, 1])
    rejections = Rejections.of(plan, Limits(on_bad_row="reject", max_rejected_rows="100%"))
    rejections.rejected = 10 * before
    play = Play(plan, done=range(before), rejections=rejections)
    play.start("w1")
    for shard in range(before, 2):
        actions = rejecting(play, "w1", shard, 10)
    error = error_of(actions)
    assert (error.exit_code, error.facts["code"]) == (65, "ALL_REJECTED")
    assert not any(isinstance(action, Finish) for action in actions)


# Memory


def test_a_worker_that_ran_out_of_memory_is_replaced_and_the_batch_halved_four_times_at_most(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=Policy.of(Limits()))
    actions = play.start("w1")
    for number in range(1, 5):
        assert [attempt.halvings for attempt in attempts(actions)] == [number - 1]
        actions = play.fail(f"w{number}", 0, TOO_BIG)
        if number < 4:
            assert stopped(actions) == [f"w{number}"]
            assert started(actions) == [(f"w{number + 1}", False)]
            play.wait(30)
            actions = play.tell(WorkerReady, f"w{number + 1}")
    assert "4 of 4 attempts" in error_of(actions).message


def test_row_24_a_worker_that_the_system_ended_for_want_of_memory_is_followed_by_one_with_half_the_batch(
    plan_of: PlanOf,
) -> None:
    play = Play(plan_of([1]), policy=ISOLATED)
    play.start("w1")
    play.tell(WorkerLost, "w1", TOO_BIG)
    play.wait(1)
    (attempt,) = attempts(play.tell(WorkerReady, "w2"))
    assert (attempt.halvings, attempt.isolated) == (1, False)


def test_what_one_worker_learned_of_memory_all_are_told(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 5), workers=2, in_hand=1)
    play.start("w1", "w2")
    success = success_of(play.held["w1", 0], "w1", Advice(safe_rows={"x[4]": 128}))
    (attempt,) = attempts(play.tell(AttemptSucceeded, "w1", success))
    assert attempt.safe_rows == {"x[4]": 128}
    (attempt,) = attempts(play.succeed("w2", 1))
    assert attempt.safe_rows == {"x[4]": 128}


def test_a_worker_that_asks_to_be_recycled_is_replaced_between_shards_at_no_cost(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 4))
    play.start("w1")
    success = success_of(play.held["w1", 0], "w1", Advice(recycle="it holds 2 GiB"))
    actions = play.tell(AttemptSucceeded, "w1", success)
    assert (stopped(actions), started(actions)) == (["w1"], [("w2", False)])
    assert play.schedule.shards.failures == ()
    assert play.fail("w1", 1, LOST) == [], "what it says of the shard behind is no longer heard"
    assert given(play.tell(WorkerReady, "w2")) == [("w2", 1), ("w2", 2)]


def test_a_device_that_fails_costs_its_process_and_twice_in_a_row_its_node(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 6), workers=2, in_hand=1)
    play.start_on("a", "b")
    sick = DeviceError("INTERNAL: launch failed", code="INTERNAL")
    actions = play.fail("w1", play.running("w1").shard, sick)
    assert (stopped(actions), started(actions)) == (["w1"], [("w3", False)])
    play.tell(WorkerReady, "w3", "a")
    actions = play.fail("w3", play.running("w3").shard, sick)
    (start,) = [action for action in actions if isinstance(action, StartWorker)]
    assert start.avoid == ("a",)


# Care


@pytest.mark.parametrize("error", [LOST, DeviceError("INTERNAL")], ids=["death", "device"])
def test_a_shard_that_ended_two_processes_is_given_once_to_an_isolated_worker_of_its_own(
    plan_of: PlanOf, error: Any
) -> None:
    play = Play(plan_of([2, 1, 1, 1]), workers=2, policy=ISOLATED, in_hand=1)
    play.start("w1", "w2")

    def end(worker: str) -> list[Any]:
        return play.tell(WorkerLost, worker, error) if error is LOST else play.fail(worker, 0, error)

    assert started(end("w1")) == [("w3", False)]
    play.wait(1)
    assert attempts(play.tell(WorkerReady, "w3"))[0].isolated is False
    assert play.running("w3").shard == 0
    assert started(end("w3")) == [("w4", True)], "it takes the place of the one that died"
    play.succeed("w2", 1)
    assert play.running("w2").shard == 2, "the others go on"
    (attempt,) = attempts(play.tell(WorkerReady, "w4"))
    assert (attempt.shard, attempt.isolated, attempt.number) == (0, True, 3)
    actions = play.succeed("w4", 0)
    assert (stopped(actions), started(actions)) == (["w4"], [("w5", False)]), "and makes room when it is done"
    assert [len(action.failures) for action in actions if isinstance(action, Record)] == [2]
    play.succeed("w2", 2)
    assert isinstance(play.succeed("w2", 3)[-1], Finish)


def test_a_row_that_did_not_fit_alone_is_handled_with_care_at_once(plan_of: PlanOf) -> None:
    play = Play(plan_of([2, 1, 1]), policy=ISOLATED, in_hand=1)
    play.start("w1")
    assert started(play.fail("w1", 0, ONE_ROW)) == [("w2", True)]
    assert [attempt.isolated for attempt in attempts(play.tell(WorkerReady, "w2"))] == [True]


def test_the_last_shard_is_handled_with_care_even_beside_an_idle_worker(plan_of: PlanOf) -> None:
    play = Play(plan_of([2, 1]), workers=2, policy=ISOLATED, in_hand=1)
    play.start("w1", "w2")
    play.succeed("w2", 1)
    play.tell(WorkerLost, "w1", LOST)
    play.wait(1)
    assert started(play.tell(WorkerLost, "w2", LOST)) == [("w3", True)]
    assert [attempt.isolated for attempt in attempts(play.tell(WorkerReady, "w3"))] == [True]
    assert isinstance(play.succeed("w3", 0)[-1], Finish)


def test_an_isolated_worker_that_dies_too_ends_the_run_with_all_deaths(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=ISOLATED)
    play.start("w1")
    for name in ("w2", "w3"):
        play.tell(WorkerLost, f"w{int(name[1]) - 1}", LOST)
        play.wait(1)
        play.tell(WorkerReady, name)
    error = error_of(play.tell(WorkerLost, "w3", LOST))
    assert isinstance(error, PoisonError)
    assert error.facts["attempts"] == 3


def test_several_shards_that_kill_are_each_handled_with_care_although_none_is_alone(plan_of: PlanOf) -> None:
    play = Play(plan_of([3, 2, 1]), workers=3, policy=ISOLATED, in_hand=1)
    play.start("w1", "w2", "w3")
    condemned: list[str] = []
    names = iter(range(4, 40))
    living = ["w1", "w2", "w3"]
    for _ in range(40):
        if not living:
            break
        actions = play.tell(WorkerLost, living.pop(0), LOST)
        assert not any(isinstance(action, GiveUp) for action in actions), error_of(actions).message
        play.wait(40)
        for name, isolated in started(actions):
            assert name == f"w{next(names)}"
            play.tell(WorkerReady, name)
            (condemned if isolated else living).append(name)
    assert len(condemned) == 3
    for name in condemned:
        actions = play.succeed(name, play.running(name).shard)
    assert isinstance(actions[-1], Finish)


def test_an_isolated_worker_that_does_not_start_is_started_again(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), workers=1, policy=ISOLATED, suspects=[1])
    actions = play.start()
    assert started(actions) == [("w1", True)]
    play.tell(WorkerFailedToStart, "w1", LOST)
    assert started(play.wait(30)) == [("w2", True)]
    assert [attempt.shard for attempt in attempts(play.tell(WorkerReady, "w2"))] == [1]


def test_what_an_earlier_run_died_of_is_suspected_only_where_rows_may_be_rejected(plan_of: PlanOf) -> None:
    play = Play(plan_of([1, 1]), suspects=[1])
    assert started(play.start()) == [("w1", False)]
    assert given(play.tell(WorkerReady, "w1")) == [("w1", 0), ("w1", 1)]


def test_an_isolated_worker_looks_for_stalls_itself_and_is_given_twenty_times_as_long(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]), policy=ISOLATED, suspects=[0])
    play.start("w1")
    assert stopped(play.pass_time(390)) == []
    play.tell(WorkerProgressed, "w1", play.running("w1").id, 0)  # another call, and no row yet
    assert stopped(play.pass_time(390)) == []
    actions = play.pass_time(20)
    assert stopped(actions) == ["w1"]
