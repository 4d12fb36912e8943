"""What a run measures, as every exporter reads it."""

from __future__ import annotations

from jobs.attempt import Failure, Measured, Receipt, Success
from jobs.errors import StorageError
from jobs.schedule.event import AttemptFailed, AttemptSucceeded
from runner.measure import meters
from runner.measure.meters import Meters
from runner.measure.snapshot import Snapshot

AT = Snapshot(
    *(100, 40, 0, 2.0), shards_total=10, shards_done=3, shards_running=2, retries=1, workers_ready=2, workers=3
)


def test_a_snapshot_is_read_as_gauges() -> None:
    seen = {(one.meter.name, one.state): one.value for one in meters.gauges(AT)}
    assert seen == {
        ("runner_workers", "ready"): 2,
        ("runner_workers", "starting"): 1,
        ("runner_shards", "waiting"): 5,
        ("runner_shards", "running"): 2,
        ("runner_shards", "done"): 3,
        ("runner_progress_rows", "done"): 40,
        ("runner_progress_rows", "left"): 60,
        ("runner_retries", ""): 1,
    }


def test_attempts_add_up_and_the_most_memory_stays() -> None:
    kept = Meters()
    for shard, held in ((0, 300.0), (1, 200.0)):
        receipt = Receipt(shard, f"e1-a1-{shard}", 1, 1, f"part-{shard}", 9, "", 25, 20, rows_rejected=5)
        kept.note(AttemptSucceeded(1.0, "w", Success(receipt, Measured({"run": 0.5}, {"rss_bytes": held}))))
    kept.note(AttemptFailed(2.0, "w", Failure(2, "e1-a1-0", 1, "w", StorageError("no answer"))))
    seen = {(one.meter.name, one.state): one.value for one in kept.readings()}
    assert seen["runner_attempts", "ok"] == 2
    assert seen["runner_attempts", "transient"] == 1
    assert seen["runner_rows", "written"] == 40
    assert seen["runner_rows", "rejected"] == 10
    assert seen["runner_stage_seconds", "run"] == 1.0
    assert seen["runner_memory_bytes", ""] == 300


def test_the_end_is_told_with_its_exit_code() -> None:
    kept = Meters()
    kept.show(AT)
    kept.ended(1_700_000_000.0, 65)
    (end,) = [one for one in kept.readings() if one.meter is meters.ENDED]
    assert (end.state, end.value) == ("65", 1_700_000_000.0)
