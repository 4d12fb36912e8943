"""The book of workers by itself: which has room, which holds what, and which place a worker shuns."""

from __future__ import annotations

import pytest

from jobs.attempt import Attempt
from jobs.schedule.assignment import Assignments, Place, WorkerState


def attempt_of(shard: int, number: int = 1) -> Attempt:
    return Attempt(f"e1-a{number}-{shard}", shard, number, 1, (), 10)


def ready(*nodes: str, in_hand: int = 2) -> Assignments:
    """w1, w2, ... are ready, on these nodes."""
    assignments = Assignments(in_hand)
    for node in nodes:
        assignments.enter(assignments.add(), node)
    return assignments


def validate(assignments: Assignments, *done: int) -> None:
    assignments.validate(lambda shard: shard in done)


def test_a_name_is_never_given_twice() -> None:
    assignments = Assignments(1)
    assert [assignments.add(), assignments.add()] == ["w1", "w2"]
    assignments.remove("w2")
    assert assignments.add() == "w3"
    assert assignments.starting == ["w3", "w1"], "the latest first"


def test_a_worker_is_found_under_its_load_while_it_has_room() -> None:
    assignments = ready("n1", "n1")
    assert assignments.idle == ("w1", "w2")
    for shard in (4, 3):
        assignments.take(0.0, "w1", attempt_of(shard))
    assert ([list(room) for room in assignments.room], assignments.in_hand) == ([["w2"], []], (3, 4))
    assert (assignments.busy, assignments.empty) == (1, 1)
    assignments.put_down(1.0, "w1", 4)
    assert [list(room) for room in assignments.room] == [["w2"], ["w1"]]
    assert assignments.finish(4, "w1") is None, "it has no backup"
    validate(assignments, 4)


def test_a_worker_that_drains_or_is_isolated_has_no_room() -> None:
    assignments = ready("n1", "n2", "n3")
    isolated = assignments.add(isolated=True)
    assignments.enter(isolated, "n3")
    assignments.drain("w2", leaves=30.0)
    assert (assignments.idle, list(assignments.isolated), assignments.leaving) == (("w1", "w3"), [isolated], {"n2"})
    assert (assignments.usable, assignments.staying) == (3, 3)
    assignments.take(0.0, isolated, attempt_of(0))
    assert list(assignments.isolated) == []
    validate(assignments)


def test_a_released_shard_is_free_unless_the_other_of_two_workers_has_it() -> None:
    assignments = ready("n1", "n2")
    assignments.take(0.0, "w1", attempt_of(0))
    assignments.take(0.0, "w2", attempt_of(0, 2), backup=True)
    assert assignments.release("w9", 0) is False, "it never held it"
    assignments.put_down(1.0, "w1", 0)
    assert assignments.release("w1", 0) is False
    assert (assignments.holder, assignments.backup) == ({0: "w2"}, {})
    validate(assignments)
    assignments.put_down(1.0, "w2", 0)
    assert assignments.release("w2", 0) is True
    assert assignments.in_hand == ()


@pytest.mark.parametrize(("first", "slow"), [("w2", "w1"), ("w1", None)])
def test_the_worker_that_lost_to_its_backup_is_named_when_the_shard_is_done(first: str, slow: str | None) -> None:
    assignments = ready("n1", "n2")
    assignments.take(0.0, "w1", attempt_of(0))
    assignments.take(0.0, "w2", attempt_of(0, 2), backup=True)
    assignments.put_down(1.0, first, 0)
    assert assignments.finish(0, first) == slow
    validate(assignments, 0)
    assert assignments.finish(0, first) is None


def test_a_worker_shuns_a_place_only_while_there_is_a_usable_worker_elsewhere() -> None:
    assignments = ready("n1", "n1", "n2")
    assert [assignments.shuns(name, Place("w1", "n1")) for name in ("w1", "w2", "w3")] == [True, True, False]
    assert [assignments.shuns(name, Place("w1")) for name in ("w1", "w2", "w3")] == [True, False, False]
    assignments.remove("w3")
    assert [assignments.shuns(name, Place("w1", "n1")) for name in ("w1", "w2")] == [True, False], "one node is left"
    assignments.drain("w2", leaves=9.0)
    assert not assignments.shuns("w1", Place("w1", "n1"))


def test_progress_is_of_the_running_attempt_and_measures_the_time_between_two_batches() -> None:
    worker = WorkerState(ready=True)
    assert worker.progress(0.0, "e1-a1-0", 1) is None, "it has nothing in hand"
    worker.attempts = {0: attempt_of(0), 1: attempt_of(1)}
    worker.begin(10.0)
    assert worker.progress(11.0, "e1-a1-1", 5) is None, "that one has not begun"
    assert worker.progress(12.0, "e1-a1-0", 5) is None, "the first batch includes the start"
    assert worker.progress(15.0, "e1-a1-0", 5) is None, "no row more"
    assert (worker.moved, worker.rows) == (12.0, 5)
    assert worker.progress(16.0, "e1-a1-0", 10) == 4.0
    assert (worker.began, worker.moved) == (10.0, 16.0)


def test_an_isolated_worker_moves_whenever_it_reports() -> None:
    worker = WorkerState(ready=True, isolated=True, attempts={0: attempt_of(0)})
    worker.begin(0.0)
    worker.progress(5.0, "e1-a1-0", 0)
    worker.progress(9.0, "e1-a1-0", 0)
    assert worker.moved == 9.0
