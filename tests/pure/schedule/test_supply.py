"""The supply of workers by itself: when one may be started, and when it is no use to wait for one."""

from __future__ import annotations

import random

import pytest
from schedule_play import LOST, LongestWait, draw

from jobs.errors import CapacityError, ModelError, RunnerError, StoppedError, WorkerError
from jobs.schedule.event import ClusterLost, ClusterSeen
from jobs.schedule.policy import Policy
from jobs.schedule.supply import Supply


def begun(policy: Policy | None = None, wanted: int = 2, needs: str = "") -> Supply:
    """The run has Started at 0 s; every back-off is at its longest."""
    supply = Supply(wanted, needs, policy or Policy(), draw(LongestWait()))
    supply.note_usable(0.0, usable=0)
    return supply


def test_before_the_run_begins_no_worker_is_started_or_missed() -> None:
    supply = Supply(1, "", Policy(), draw(random.Random(0)))
    assert not supply.may_start(0.0, usable=0, workers=0)
    assert supply.shortage(10_000.0, workers=0) is None


def test_after_a_failed_start_the_next_waits_for_a_back_off_that_doubles() -> None:
    supply = begun()
    assert supply.note_failed_start(10.0, "w1", LOST, last=False) is None
    assert [supply.may_start(now, usable=0, workers=1) for now in (10.4, 10.5)] == [False, True]
    supply.note_failed_start(20.0, "w2", LOST, last=False)
    assert [supply.may_start(now, usable=1, workers=2) for now in (20.9, 21.0)] == [False, True]


def test_after_three_failed_starts_the_hope_is_on_those_that_are_starting() -> None:
    supply = begun()
    for number in (1, 2, 3):
        assert supply.note_failed_start(0.0, f"w{number}", LOST, last=False) is None
    assert not supply.may_start(60.0, usable=0, workers=1)
    assert supply.may_start(60.0, usable=1, workers=2)
    error = supply.note_failed_start(60.0, "w4", LOST, last=True)
    assert isinstance(error, WorkerError)
    assert error.message == "no worker could start, 4 tries failed in a row: last worker w4: the process was killed"
    assert (error.__cause__, error.facts["worker"]) == (LOST, "w4")


def test_a_worker_that_was_ready_lets_failed_starts_count_anew() -> None:
    supply = begun()
    for number in (1, 2):
        supply.note_failed_start(0.0, f"w{number}", LOST, last=True)
    supply.note_ready()
    assert supply.note_failed_start(0.0, "w4", LOST, last=True) is None


@pytest.mark.parametrize("error", [ModelError("it has the op 'Nope'"), StoppedError("interrupted")])
def test_a_start_that_would_fail_again_ends_the_run_with_its_error(error: RunnerError) -> None:
    assert begun().note_failed_start(0.0, "w1", error, last=False) is error


def test_workers_lost_without_a_shard_done_end_the_run_after_as_many_as_all_their_attempts() -> None:
    supply = begun(Policy(max_attempts=2), wanted=3)
    assert [supply.note_loss("w1", LOST) for _ in range(6)] == [None] * 6
    error = supply.note_loss("w7", LOST)
    assert error is not None
    assert error.message.startswith("7 workers were lost and no shard was finished in between: last worker w7: ")
    supply.note_finished()
    assert supply.note_loss("w8", LOST) is None


def test_the_wait_for_a_usable_worker_has_an_end_that_says_what_is_needed() -> None:
    supply = begun(Policy(capacity_s=120.0), needs="2 workers with 1 GPU each")
    assert supply.shortage(119.0, workers=2) is None
    error = supply.shortage(120.0, workers=2)
    assert isinstance(error, CapacityError)
    assert "for 2 minutes: 2 are still starting, asked for 2 workers with 1 GPU each" in error.message
    supply.note_ready()
    assert supply.shortage(10_000.0, workers=2) is None
    supply.note_usable(10_000.0, usable=1)
    assert supply.shortage(20_000.0, workers=1) is None, "one is left"
    supply.note_usable(20_000.0, usable=0)
    assert supply.shortage(20_119.0, workers=0) is None
    assert supply.shortage(20_120.0, workers=0) is not None


@pytest.mark.parametrize(("wanted", "needs"), [(1, "1 worker;"), (3, "3 workers;")])
def test_without_words_for_the_needs_the_number_of_workers_is_said(wanted: int, needs: str) -> None:
    error = begun(wanted=wanted).shortage(900.0, workers=0)
    assert error is not None
    assert f"asked for {needs}" in error.message


def test_what_a_cluster_never_has_room_for_ends_the_run_soon_unless_a_worker_was_ever_ready() -> None:
    supply = begun(Policy(never_s=10.0))
    supply.note_cluster(ClusterSeen(5.0, never="a worker asks for 8 GPU"))
    supply.note_cluster(ClusterSeen(9.0, others=1, never="a worker asks for 8 GPU", story="waits"))
    assert supply.waits_for == "a worker asks for 8 GPU"
    assert supply.shortage(14.9, workers=1) is None
    error = supply.shortage(15.0, workers=1)
    assert error is not None
    assert error.message == "no worker can be started: a worker asks for 8 GPU"
    supply.note_cluster(ClusterSeen(15.0, story="no room yet"))
    assert (supply.shortage(100.0, workers=1), supply.waits_for) == (None, "no room yet")
    supply.note_cluster(ClusterSeen(100.0, never="gone"))
    supply.note_ready()
    assert supply.shortage(200.0, workers=1) is None


def test_without_a_node_that_is_alive_a_run_ends_soon_also_after_a_worker_was_ready() -> None:
    supply = begun(Policy(never_s=10.0))
    supply.note_ready()
    supply.note_usable(50.0, usable=0)
    supply.note_cluster(ClusterSeen(51.0, never="no node is alive (killed)", alive=False))
    assert supply.shortage(60.9, workers=1) is None
    error = supply.shortage(61.0, workers=1)
    assert isinstance(error, CapacityError)
    assert (error.message, error.facts) == (
        "no worker can be started: no node is alive (killed)",
        {"resumable": True},
    )
    supply.note_cluster(ClusterSeen(61.0, story="no room yet for 1 x (1 CPU); 2 nodes are being started", alive=False))
    assert supply.shortage(100.0, workers=1) is None, "an autoscaler brings one"


def test_a_long_wait_for_nodes_that_went_away_ends_with_what_is_missing() -> None:
    supply = begun(Policy(capacity_s=120.0, never_s=10.0))
    supply.note_ready()
    supply.note_usable(0.0, usable=0)
    supply.note_cluster(ClusterSeen(1.0, never="a worker asks for 1 GPU"))
    assert supply.shortage(119.0, workers=2) is None
    error = supply.shortage(120.0, workers=2)
    assert error is not None
    assert error.message == (
        "no worker was usable for 2 minutes: a worker asks for 1 GPU; run the same again to continue"
    )


def test_a_cluster_of_this_run_is_started_again_once() -> None:
    supply = begun()
    lost = ClusterLost(5.0, "the local Ray is gone: killed", restarts=True, advice="work without Ray")
    assert supply.note_cluster_lost(lost) is None
    assert supply.waits_for == "the local Ray is gone: killed; another one is being started"
    error = supply.note_cluster_lost(lost)
    assert error is not None
    assert error.message == (
        "the local Ray is gone: killed, the second of this run; run the same again to continue, or work without Ray"
    )
    assert error.facts == {"resumable": True}


def test_a_cluster_of_others_is_not_started_again() -> None:
    error = begun().note_cluster_lost(ClusterLost(5.0, "the node of this driver is gone from Ray at 'a': killed"))
    assert isinstance(error, CapacityError)
    assert "second" not in error.message
