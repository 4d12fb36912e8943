"""An elastic run: grows with the work and with the cluster, shrinks at the tail, gives way to others."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError
from schedule_play import LOST, Play, error_of, given, stopped

from jobs.errors import CapacityError
from jobs.plan import Plan
from jobs.schedule.event import Action, ClusterSeen, Finish, Started, StartWorker, Tick, WorkerLost, WorkerReady
from jobs.section.workers import Workers

PlanOf = Callable[[Sequence[int]], Plan]
HUGE = "a worker asks for 8 GPU, and the largest node has 4"


def started(actions: Sequence[Action]) -> list[str]:
    return [action.worker for action in actions if isinstance(action, StartWorker)]


def elastic(plan_of: PlanOf, shards: int = 20, least: int = 1, most: int = 4, **options: Any) -> Play:
    return Play(plan_of([1] * shards), workers=most, least=least, **options)


def test_it_asks_for_the_most_at_once_where_there_is_work_for_them(plan_of: PlanOf) -> None:
    assert started(elastic(plan_of).tell(Started)) == ["w1", "w2", "w3", "w4"]
    assert started(elastic(plan_of, shards=3).tell(Started)) == ["w1", "w2", "w3"]


def test_a_worker_that_is_lost_is_replaced(plan_of: PlanOf) -> None:
    play = elastic(plan_of)
    play.start("w1", "w2", "w3", "w4")
    assert started(play.tell(WorkerLost, "w2", LOST)) == ["w5"]


def test_at_the_tail_idle_workers_go_but_one(plan_of: PlanOf) -> None:
    play = elastic(plan_of, shards=6)
    play.start("w1", "w2", "w3", "w4")
    held = {worker: [shard for name, shard in play.held if name == worker] for worker in ("w1", "w2", "w3", "w4")}
    gone: list[str] = []
    for worker in ("w1", "w2", "w3"):
        for shard in held[worker]:
            gone += stopped(play.succeed(worker, shard))
    assert gone == ["w1", "w2"], "w3 is the spare, w4 works"
    assert play.schedule.assignments.usable == 2


def test_workers_that_still_start_are_not_waited_for_once_there_is_no_work_for_them(plan_of: PlanOf) -> None:
    play = elastic(plan_of, shards=4)
    play.start("w1")
    gone = stopped(play.succeed("w1", 0)) + stopped(play.succeed("w1", 1)) + stopped(play.succeed("w1", 2))
    assert gone == ["w4", "w3"]
    assert play.schedule.workers == 2


def test_while_others_wait_it_gives_up_one_worker_after_the_other_down_to_the_least(plan_of: PlanOf) -> None:
    play = elastic(plan_of, shards=100, least=2)
    play.start("w1", "w2", "w3", "w4")
    play.tell(ClusterSeen, 1)
    assert play.pass_time(19) == [], "they may get room elsewhere"
    play.pass_time(2)
    assert play.schedule.assignments.usable == 3, "one ends what it runs, and takes nothing new"
    draining = next(iter(play.schedule.assignments.draining))
    assert stopped(play.succeed(draining, play.running(draining).shard)) == [draining]
    play.pass_time(60)
    assert play.schedule.assignments.usable == 2


def test_it_grows_again_a_minute_after_others_have_what_they_need(plan_of: PlanOf) -> None:
    play = elastic(plan_of, shards=100, least=2)
    play.start("w1", "w2", "w3", "w4")
    play.tell(ClusterSeen, 3)
    play.pass_time(60)
    play.tell(ClusterSeen, 0)
    assert started(play.pass_time(10)) == []
    assert len(started(play.pass_time(60))) == 2


def test_requests_that_found_no_room_are_withdrawn_first(plan_of: PlanOf) -> None:
    play = elastic(plan_of, shards=100)
    play.start("w1", "w2")
    play.tell(ClusterSeen, 1)
    assert stopped(play.pass_time(26)) == ["w4", "w3"]
    assert play.schedule.assignments.usable == 2


def test_while_others_wait_nothing_more_is_asked_for(plan_of: PlanOf) -> None:
    play = elastic(plan_of, shards=100)
    play.start("w1", "w2", "w3", "w4")
    play.tell(ClusterSeen, 1)
    play.tell(WorkerLost, "w1", LOST)
    play.tell(ClusterSeen, 2)
    assert started(play.pass_time(15)) == []


def test_a_fixed_number_gives_way_to_nobody(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 50), workers=3)
    play.start("w1", "w2", "w3")
    play.tell(ClusterSeen, 5)
    play.pass_time(100)
    assert play.schedule.assignments.usable == 3


@pytest.mark.parametrize("least", [None, 1])
def test_what_the_cluster_can_never_give_ends_the_run_in_seconds(plan_of: PlanOf, least: int | None) -> None:
    play = Play(plan_of([1] * 5), workers=2, least=least)
    play.tell(Started)
    play.tell(ClusterSeen, 0, HUGE)
    assert play.schedule.supply.waits_for == HUGE
    assert play.pass_time(9) == []
    error = error_of(play.pass_time(2))
    assert isinstance(error, CapacityError)
    assert HUGE in error.message


def test_a_node_that_joins_in_time_is_waited_for(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 5), workers=1, least=1)
    play.tell(Started)
    play.tell(ClusterSeen, 0, HUGE)
    play.pass_time(9)
    play.tell(ClusterSeen, 0, "", "no room yet")
    assert play.schedule.supply.waits_for == "no room yet"
    assert play.pass_time(100) == []
    assert given(play.tell(WorkerReady, "w1")) != []


def test_a_run_whose_nodes_went_away_waits_for_new_ones(plan_of: PlanOf) -> None:
    play = Play(plan_of([1] * 5), workers=1)
    play.start("w1")
    play.tell(WorkerLost, "w1", LOST)
    play.tell(ClusterSeen, 0, HUGE)
    assert not any("GiveUp" in str(action) for action in play.pass_time(100))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_cluster_does_every_shard_is_done_and_the_bounds_are_kept(plan_of: PlanOf, seed: int) -> None:
    chance = random.Random(seed)
    play = elastic(plan_of, shards=30, least=2, most=6, max_attempts=100)
    actions = play.tell(Started)
    alive: dict[str, bool] = {}
    for _ in range(5000):
        for action in actions:
            if isinstance(action, StartWorker):
                alive[action.worker] = False
        for worker in stopped(actions):
            alive.pop(worker, None)
        if any(isinstance(action, Finish) for action in actions):
            break
        assert play.schedule.assignments.staying <= 6
        play.now += chance.random() * 3
        worker = chance.choice(sorted(alive)) if alive else ""
        match chance.randrange(8):
            case 0 | 1 if alive and not alive[worker]:
                alive[worker] = True
                actions = play.tell(WorkerReady, worker, chance.choice("ab"))
            case 2 | 3 | 4 if alive and alive[worker] and play.schedule.assignments.workers[worker].attempts:
                actions = play.succeed(worker, play.running(worker).shard)
            case 5:
                actions = play.tell(ClusterSeen, chance.choice([0, 0, 1, 4]))
            case 6 if chance.random() < 0.1 and alive and alive[worker]:
                alive.pop(worker)
                actions = play.tell(WorkerLost, worker, LOST, True)
            case _:
                actions = play.tell(Tick)
    assert play.schedule.shards.done == 30


@pytest.mark.parametrize(
    ("workers", "story"),
    [
        ({"count": 2, "max": 4}, "give 'count', or 'min' and 'max'"),
        ({"min": 2}, "found min 2, max missing"),
        ({"min": 3, "max": 2}, "found min 3, max 2"),
    ],
)
def test_bounds_that_contradict_are_refused(workers: dict[str, int], story: str) -> None:
    with pytest.raises(ValidationError, match=story):
        Workers.model_validate(workers)


def test_the_least_is_one_where_only_the_most_is_given() -> None:
    assert (Workers(max=3).least, Workers(min=2, max=3).least, Workers(count=3).least) == (1, 2, None)
