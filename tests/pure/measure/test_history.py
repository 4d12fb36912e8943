"""What the history of a run keeps of its attempts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from jobs.attempt import Failure, Measured, Receipt, Success
from jobs.errors import WorkerError
from jobs.schedule.event import AttemptFailed, AttemptSucceeded, Tick, WorkerLost
from runner.measure.history import History

SECONDS = {"tune": 0.5, "wait_read": 1.0, "run": 2.0, "wait_encode": 0.25, "publish": 0.25, "read": 9.0}
FIGURES = {"cpus": 2, "calls": 1, "batch_rows": 64, "ceiling_rows_per_s": 100.0, "cpu_s": 3.0, "rss_bytes": 1000}


def success(
    shard: int, *, adopted: bool = False, seconds: Mapping[str, float] = SECONDS, figures: Mapping[str, float] = FIGURES
) -> Success:
    receipt = Receipt(shard, f"a{shard}", 1, 1, "part", 7, "", 100, 100, adopted=adopted)
    return Success(receipt, Measured(seconds, figures))


def started() -> History:
    history = History()
    history.start = 1000.0
    return history


def test_a_span_ends_when_it_was_told_and_began_when_its_worker_says() -> None:
    history = started()
    history.dispatched(1001.0, "w1", "a0", 0, 1)
    history.note(AttemptSucceeded(1006.0, "w1", success(0)))
    (span,) = history.spans()
    assert (span.worker, span.shard, span.rows, span.outcome) == ("w1", 0, 100, "published")
    assert (span.began, span.computed, span.ended) == (2.0, 5.5, 6.0)


def test_an_attempt_that_waited_in_hand_begins_behind_the_one_before() -> None:
    history = started()
    for shard in (0, 1):
        history.dispatched(1001.0, "w1", f"a{shard}", shard, 1)
    history.note(AttemptSucceeded(1005.0, "w1", success(0)))
    history.note(AttemptFailed(1007.0, "w1", Failure(1, "a1", 1, "w1", WorkerError("gone"))))
    assert [(span.outcome, span.began, span.ended) for span in history.spans()][1] == ("failed", 5.0, 7.0)


def test_what_a_lost_or_stopped_worker_had_in_hand_is_lost() -> None:
    history = started()
    history.dispatched(1001.0, "w1", "a0", 0, 1)
    history.dispatched(1001.0, "w2", "a1", 1, 1)
    history.note(WorkerLost(1002.0, "w1", WorkerError("gone")))
    history.stopped(1003.0, "w2")
    assert [(span.worker, span.outcome) for span in history.spans()] == [("w1", "lost"), ("w2", "lost")]
    history.note(AttemptSucceeded(1009.0, "w1", success(0)))  # a late word of it
    assert len(history) == 2


def test_an_adopted_part_counts_no_rows_of_this_run() -> None:
    history = started()
    history.dispatched(1001.0, "w1", "a0", 0, 2)
    history.note(AttemptSucceeded(1001.0, "w1", success(0, adopted=True)))
    assert [span.outcome for span in history.spans()] == ["adopted"]
    assert history.uses() == {}


def test_the_busy_time_runs_from_the_first_dispatch_to_the_last_commit_without_tuning() -> None:
    history = started()
    assert history.busy_s == 0.0
    history.dispatched(1003.0, "w1", "a0", 0, 1)
    history.dispatched(1003.0, "w2", "a1", 1, 1)
    history.note(AttemptSucceeded(1008.0, "w1", success(0)))
    history.note(AttemptSucceeded(1009.0, "w2", success(1, seconds=SECONDS | {"tune": 1.5})))
    history.note(Tick(1100.0))
    assert history.busy_s == pytest.approx(1009 - 1003 - 1.0)


def test_the_uses_of_a_worker_add_up_and_its_latest_figures_count() -> None:
    history = started()
    for shard in (0, 1):
        history.dispatched(1000.0, "w1", f"a{shard}", shard, 1)
        history.note(AttemptSucceeded(1005.0, "w1", success(shard, figures=FIGURES | {"batch_rows": 64 + shard})))
    use = history.uses()["w1"]
    assert (use.rows, use.shards, use.bytes, use.cpu_s, use.batch_rows, use.cpus) == (200, 2, 14, 6.0, 65, 2)
    assert use.seconds["run"] == 4.0
