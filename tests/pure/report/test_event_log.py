"""One line of JSON per event, with run, shard and attempt."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from schedule_play import Play, success_of

from jobs.attempt import Failure
from jobs.errors import StorageError
from jobs.plan import Plan
from jobs.schedule.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    Started,
    Tick,
    WorkerFailedToStart,
    WorkerReady,
    WorkersDiffer,
)
from runner.measure.snapshot import Snapshot
from runner.report.event_log import EventLog

PlanOf = Callable[[Sequence[int]], Plan]


def logged(notes: Sequence[Event | Action]) -> list[dict[str, Any]]:
    stream = io.StringIO()
    log = EventLog(stream, now=lambda: "then")
    log.run = "3f9c1a7e-2"
    for note in notes:
        log.note(note)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_what_happens_to_a_shard_can_be_followed_by_its_keys(plan_of: PlanOf) -> None:
    play = Play(plan_of([1]))
    notes: list[Event | Action] = [*play.start("w1"), Tick(1.0)]
    attempt = play.held["w1", 0]
    failure = Failure(0, attempt.id, 1, "w1", StorageError("no answer from s3://k:hunter2@host/x"))
    notes += [AttemptFailed(2.0, "w1", failure), *play.fail("w1", 0), *play.wait(60)]
    again = play.held["w1", 0]
    notes += [AttemptSucceeded(3.0, "w1", success_of(again, "w1")), *play.succeed("w1", 0)]
    lines = logged(notes)
    assert [line["event"] for line in lines] == [
        "start_worker",
        "dispatch",
        "attempt_failed",
        "dispatch",
        "attempt_succeeded",
        "stop_worker",
        "finish",
    ]
    assert {(line["time"], line["run"]) for line in lines} == {("then", "3f9c1a7e-2")}
    of_shard = [line for line in lines if line.get("shard") == 0]
    assert [line["attempt"] for line in of_shard] == [attempt.id, attempt.id, again.id, again.id]
    assert {line["worker"] for line in of_shard} == {"w1"}
    failed = lines[2]
    assert (failed["level"], failed["error"]) == ("warning", "StorageError")
    assert "hunter2" not in json.dumps(lines)


def test_a_worker_that_is_ready_is_told_with_its_node() -> None:
    (started, ready) = logged([Started(0.0), WorkerReady(1.0, "w1", "n1")])
    assert started["event"] == "started"
    assert (ready["worker"], ready["node"]) == ("w1", "n1")


def test_an_error_is_told_with_its_code() -> None:
    error = StorageError("cannot read 'a'", code="FILE_CHANGED")
    failed = Failure(0, "e1-s0-a1", 1, "w1", error)
    lines = logged([AttemptFailed(1.0, "w1", failed), WorkerFailedToStart(1.0, "w1", error)])
    assert {(line["code"], line["message"]) for line in lines} == {("FILE_CHANGED", "FILE_CHANGED: cannot read 'a'")}


def test_that_workers_differ_is_a_warning() -> None:
    (line,) = logged([WorkersDiffer(1.0, "the workers differ in onednn: on (w1), off (w2)")])
    assert (line["event"], line["level"]) == ("workers_differ", "warning")
    assert line["story"] == "the workers differ in onednn: on (w1), off (w2)"


def test_progress_is_told_every_ten_seconds_and_at_the_end() -> None:
    stream = io.StringIO()
    log = EventLog(stream)
    for second in range(25):
        log.show(Snapshot(100, second, 0, float(second), 10, 1, 1, 0, 1, 1))
    log.close()
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["rows_done"]) for line in lines] == [
        ("progress", 10),
        ("progress", 20),
        ("progress", 24),
    ]


def test_a_warning_is_a_line_without_the_secrets_in_it() -> None:
    stream = io.StringIO()
    EventLog(stream, now=lambda: "then").warn("still waiting after 10 s to read 'https://h/x?sig=hunter2'")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"]) == ("warning", "warning")
    assert line["message"].startswith("still waiting after 10 s to read 'https://h/x")
    assert "hunter2" not in stream.getvalue()
