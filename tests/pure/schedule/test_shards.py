"""The book of shards by itself: what is taken in which order, what comes back when, and what is forgotten."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from schedule_play import LOST, SLOW

from jobs.attempt import Failure
from jobs.errors import MemoryLimitError, RunnerError
from jobs.plan import Plan
from jobs.schedule.assignment import ANYWHERE, Place
from jobs.schedule.shards import Shards, ShardState

PlanOf = Callable[[Sequence[int]], Plan]
TOO_BIG = MemoryLimitError("does not fit")


def nowhere(place: Place) -> bool:
    """No place is shunned."""
    return False


def failure(shard: int, number: int = 1, error: RunnerError = SLOW) -> Failure:
    return Failure(shard, f"e1-a{number}-{shard}", number, "w1", error)


def taken(shards: Shards, shunned: Callable[[Place], bool] = nowhere) -> list[int]:
    """Everything that may be taken now."""
    order = []
    while (shard := shards.take(shunned)) is not None:
        order.append(shard)
        shards.note_given(shard)
    return order


def failed(shards: Shards, shard: int, place: Place = ANYWHERE, death: bool = False) -> ShardState:
    """A shard that was in hand has failed."""
    return shards.note_failure(failure(shard, error=LOST if death else SLOW), place, death)


# Order


def test_the_largest_shards_come_first_else_in_order_and_none_that_is_done(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([10, 30, 30, 20, 10]), done=[2])
    assert (shards.total, shards.done, shards.left, shards.rows_done) == (5, 1, 4, 10)
    assert taken(shards) == [1, 3, 0, 4]
    assert shards.exhausted
    assert (shards.attempts, shards.retries) == (4, 0)
    shards.validate(in_hand=[0, 1, 3, 4])


def test_what_came_back_is_taken_before_what_is_fresh_once_its_back_off_is_over(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1, 1, 1]), done=[])
    first = shards.take(nowhere)
    assert first == 0
    shards.retry(first, when=5.0)
    shards.end_back_offs(4.9)
    assert shards.take(nowhere) == 1
    shards.end_back_offs(5.0)
    assert taken(shards) == [0, 2]
    assert shards.retries == 1


def test_back_offs_end_in_the_order_of_their_times(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1] * 4), done=[])
    taken(shards)
    for shard, when in [(3, 4.0), (1, 2.0), (0, 3.0), (2, 1.0)]:
        shards.retry(shard, when)
    shards.end_back_offs(3.5)
    assert taken(shards) == [2, 1, 0]
    shards.validate(in_hand=[0, 1, 2])


def test_a_shard_is_not_taken_for_a_worker_that_its_place_is_shunned_for(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1, 1]), done=[])
    taken(shards)
    bad = Place("w1", "n1")
    for shard, place in [(0, bad), (1, Place("w2", ""))]:
        failed(shards, shard, place)
        shards.retry(shard, when=0.0)
    shards.end_back_offs(0.0)
    assert taken(shards, shunned=lambda place: place == bad) == [1]
    assert not shards.exhausted
    assert taken(shards) == [0]


# What is known of a shard


def test_a_fresh_shard_has_an_empty_state_and_reading_it_leaves_nothing_behind(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1]), done=[])
    assert shards.state(0) == ShardState()
    assert shards.states == {}
    assert shards.note_given(0) is False, "nothing can be published yet"


def test_failures_and_deaths_and_the_last_place_are_remembered_until_the_shard_is_done(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1, 1]), done=[])
    taken(shards)
    shards.note_failure(failure(0, 1, TOO_BIG), Place("w1", ""), death=False)
    state = shards.note_failure(failure(0, 2, LOST), Place("w2", "n2"), death=True)
    assert state is shards.state(0)
    assert ([f.number for f in state.tries], [f.number for f in state.deaths]) == ([1, 2], [2])
    assert (state.avoid, state.halvings) == (Place("w2", "n2"), 1)
    assert [f.number for f in shards.finish(0)] == [1, 2]
    assert shards.states == {}
    assert shards.finish(1) == ()
    assert (shards.left, shards.rows_done, len(shards.failures)) == (0, 20, 2)


def test_a_shard_that_is_given_back_without_a_failure_was_given_out_before(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1]), done=[])
    taken(shards)
    shards.retry(0, when=0.0)
    shards.end_back_offs(0.0)
    assert shards.take(nowhere) == 0
    assert shards.note_given(0) is True
    assert (shards.attempts, shards.retries, shards.state(0).tries) == (2, 1, [])


def test_a_backup_is_an_attempt_but_no_retry(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1]), done=[])
    taken(shards)
    assert shards.note_given(0, backup=True) is True
    assert (shards.attempts, shards.retries, shards.backed) == (2, 0, {0})


def test_one_shard_kills_alone_until_another_does_and_again_after_a_success(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1] * 3), done=[])
    taken(shards)
    failed(shards, 0)
    assert not shards.killed_alone(0), "it failed, and its process lives"
    failed(shards, 0, death=True)
    assert shards.killed_alone(0)
    failed(shards, 1, death=True)
    assert not shards.killed_alone(0)
    shards.finish(2)
    failed(shards, 0, death=True)
    assert shards.killed_alone(0)


# Care


def test_suspects_are_condemned_from_the_start_unless_they_are_done(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1] * 4), done=[1], suspects=[3, 1, 0])
    assert (shards.left, shards.condemned) == (3, 2)
    assert taken(shards) == [2]
    assert [shards.take_condemned(), shards.take_condemned()] == [0, 3]
    assert shards.state(0).isolated
    assert shards.note_given(0) is True, "the earlier run may have published it"


def test_what_is_condemned_is_taken_with_care_only_also_after_it_was_given_back(plan_of: PlanOf) -> None:
    shards = Shards(plan_of([1]), done=[])
    taken(shards)
    failed(shards, 0, death=True)
    shards.condemn(0)
    assert shards.exhausted
    assert shards.take_condemned() == 0
    shards.retry(0, when=1.0)
    shards.end_back_offs(1.0)
    assert (taken(shards), shards.condemned) == ([], 1)


@pytest.mark.parametrize("where", ["later", "due", "condemned", "fresh"])
def test_a_shard_that_is_done_is_taken_from_where_it_waited(plan_of: PlanOf, where: str) -> None:
    shards = Shards(plan_of([1, 1]), done=[])
    if where != "fresh":
        assert shards.take(nowhere) == 0
        failed(shards, 0)
    if where == "condemned":
        shards.condemn(0)
    elif where != "fresh":
        shards.retry(0, when=1.0)
    if where == "due":
        shards.end_back_offs(1.0)
    shards.finish(0)
    shards.validate(in_hand=[])
    shards.end_back_offs(2.0)
    assert (taken(shards), shards.condemned) == ([1], 0)


# Any history


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_a_shard_it_is_in_one_place_and_is_done_in_the_end(plan_of: PlanOf, seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 25)
    suspects = [shard for shard in range(count) if chance.random() < 0.1]
    shards = Shards(plan_of([chance.randint(1, 5) for _ in range(count)]), [], suspects)
    in_hand: list[int] = []
    now = 0.0
    while shards.left:
        now += chance.random()
        shards.end_back_offs(now)
        if chance.random() < 0.5 and (shard := shards.take(lambda place: chance.random() < 0.2)) is not None:
            assert not shards.is_done(shard)
            assert not shards.state(shard).isolated
            shards.note_given(shard)
            in_hand.append(shard)
        elif shards.condemned:
            in_hand.append(shards.take_condemned())
        elif in_hand:
            shard = in_hand.pop(chance.randrange(len(in_hand)))
            match chance.randrange(5):
                case 0:
                    shards.retry(shard, now)
                case 1:
                    failed(shards, shard, Place(chance.choice(["w1", "w2"])))
                    shards.retry(shard, now + chance.random() * 5)
                case 2 if not shards.state(shard).isolated:
                    failed(shards, shard, death=True)
                    shards.condemn(shard)
                case _:
                    shards.finish(shard)
        shards.validate(in_hand)
    assert (shards.done, shards.states, shards.exhausted, shards.condemned) == (count, {}, True, 0)
