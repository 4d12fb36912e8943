"""One line of JSON per event, with run, shard and attempt."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from schedule_play import Play, success_of

from jobs.attempt import Attempt, Failure
from jobs.errors import DataError, RunnerError, StoppedError, StorageError
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


ROOT = Path(__file__).parents[3]
COMMON = {"time", "level", "event", "run"}


def documented() -> dict[str, set[str]]:
    """Event -> the fields that the README names for it."""
    text = (ROOT / "runner" / "README.md").read_text(encoding="utf-8")
    _, _, table = text.partition("<!-- events:")
    rows = [line.split("|") for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    names = re.compile(r"`(\w+)`")
    return {event: set(names.findall(fields)) for _, events, _, fields, _ in rows for event in names.findall(events)}


def samples() -> Iterator[Event | Action]:
    """One of each kind that there is, with every field filled in."""
    tried = Attempt("e1-a1-0", 3, 1, 1, (), 10)
    error = DataError("a null", code="ROW_NULL")
    values: dict[str, object] = {
        "float": 1.0,
        "str": "a",
        "int": 1,
        "bool": True,
        "tuple[str, ...]": ("n1",),
        "RunnerError": error,
        "Attempt": tried,
        "Success": success_of(tried, "w1"),
        "Failure": Failure(3, "e1-a1-0", 1, "w1", error),
        "tuple[Failure, ...]": (),
    }
    for kind in (*get_args(Event), *get_args(Action)):
        yield kind(**{field.name: values[str(field.type)] for field in dataclasses.fields(kind)})


def written_by_name() -> Iterator[tuple[str, set[str]]]:
    """The events that are named where they are written, with the fields that are named there."""
    for file in (ROOT / "runner").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="say" | "tell"), args=[ast.Constant(value=str(event)), *_], keywords=keys
                ):
                    yield event, {key.arg for key in keys if key.arg}


def test_every_event_and_every_field_that_can_be_written_is_documented() -> None:
    stream = io.StringIO()
    log = EventLog(stream)
    for sample in samples():
        log.note(sample)
    log.show(Snapshot(100, 10, 0, 10.0, 10, 1, 1, 0, 1, 1, "room"))
    screen = log.screen()
    screen.wait("starting a local Ray", 0.5, over=False)
    screen.wait("starting a local Ray", 5.0, over=True)
    screen.say("1 shard: scored in this process")
    log.warn("slow")
    log.fail(DataError("a null"), to_continue="runner run job.yaml", traceback="...")
    log.fail(StoppedError("interrupted"))
    table = documented()
    seen = {line["event"]: line.keys() - COMMON for line in map(json.loads, stream.getvalue().splitlines())}
    for event, fields in [*seen.items(), *written_by_name()]:
        assert event in table, f"'{event}' has no row under 'A log of events'"
        assert fields <= table[event], f"fields of '{event}' without a word"
    assert table.keys() - seen.keys() == {"waiting_for_driver", "driver_gone", "done", "died"}


@pytest.mark.parametrize(
    ("error", "event", "level", "code"),
    [
        (DataError("a null in 's3://k:hunter2@h/x'", code="ROW_NULL", file="s3://k:hunter2@h/x"), "error", "error", 65),
        (StoppedError("interrupted", exit_code=143), "interrupted", "warning", 143),
    ],
)
def test_what_ended_a_run_is_an_event_without_secrets(error: RunnerError, event: str, level: str, code: int) -> None:
    stream = io.StringIO()
    EventLog(stream).fail(error, to_continue="runner run job.yaml")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"], line["exit_code"], line["class"]) == (
        event,
        level,
        code,
        type(error).__name__,
    )
    assert line["to_continue"] == "runner run job.yaml"
    assert "hunter2" not in stream.getvalue()


def test_a_line_is_written_in_one_piece() -> None:
    """However long it is: what a library prints at the same time must not stand in it."""
    pieces: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    EventLog(Stream()).say("warning", message="x" * 100_000)
    assert [(piece.count("\n"), piece[-1]) for piece in pieces] == [(1, "\n")]


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


def test_a_wait_is_an_event_when_it_begins_and_one_when_it_is_over_and_a_line_is_a_note() -> None:
    stream = io.StringIO()
    screen = EventLog(stream, now=lambda: "then").screen()
    for seconds in (0.5, 1.0, 1.5):
        screen.wait("starting a local Ray", seconds, False)
    screen.wait("starting a local Ray", 1.74, True)
    screen.say("1 shard of 'https://h/x?sig=hunter2'")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line.get("what"), line.get("seconds")) for line in lines] == [
        ("waiting", "starting a local Ray", 0.5),
        ("waited", "starting a local Ray", 1.7),
        ("note", None, None),
    ]
    assert "hunter2" not in stream.getvalue()
