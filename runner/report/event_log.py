"""What happens in a run, as one line of JSON per event, for whatever collects logs.

Owns the keys; refuses to know what follows from an event. The invariant: a line is written whole, names its run, and
its shard, attempt and worker where it has them; no message with a secret in it is repeated.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from connectors.secret import redact
from jobs.attempt import Attempt, Failure, Success
from jobs.errors import RunnerError, StoppedError
from jobs.schedule.event import (
    Action,
    AttemptFailed,
    AttemptSucceeded,
    ClusterLost,
    Dispatch,
    Event,
    GiveUp,
    Record,
    Tick,
    WorkerFailedToStart,
    WorkerLost,
    WorkerProgressed,
    WorkersDiffer,
)
from runner.measure.snapshot import Snapshot
from runner.report.console import json_text

_EVERY_S = 10.0  # of progress
_SILENT = (Tick, WorkerProgressed, Record)  # too often, or said by another event
_WARNINGS = (AttemptFailed, WorkerLost, WorkerFailedToStart, WorkersDiffer, ClusterLost)
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class EventLog:
    """Also what a display shows: progress is an event every 10 s of the run, and one at its end.

    run: the plan and the epoch.
    """

    def __init__(self, stream: TextIO, now: Callable[[], str] = _utc) -> None:
        self.run = ""
        self._stream, self._now = stream, now
        self._lock = threading.Lock()
        self._last: Snapshot | None = None
        self._said_s = 0.0

    def note(self, what: Event | Action) -> None:
        if isinstance(what, _SILENT):
            return
        level = "error" if isinstance(what, GiveUp) else "warning" if isinstance(what, _WARNINGS) else "info"
        self.say(_WORD.sub("_", type(what).__name__).lower(), level, **_facts(what))

    def say(self, event: str, level: str = "info", **facts: Any) -> None:
        line = {"time": self._now(), "level": level, "event": event, "run": self.run, **facts}
        text = json_text(line, default=str) + "\n"
        with self._lock:  # and in one piece: what libraries print stands between two lines, never in one
            self._stream.write(text)
            self._stream.flush()

    def warn(self, story: str) -> None:
        self.tell("warning", story)

    def tell(self, event: str, story: str, **facts: Any) -> None:
        """What a person should know of, as an event. story: of it, in words."""
        self.say(event, "warning", message=redact(story), **facts)

    def fail(self, error: RunnerError, **facts: Any) -> None:
        """What ended the command; `interrupted` where somebody stopped it."""
        stopped = isinstance(error, StoppedError)
        event, level = ("interrupted", "warning") if stopped else ("error", "error")
        self.say(event, level, **told_error(error), **facts)

    def screen(self) -> EventScreen:
        """It as a display."""
        return EventScreen(self)

    def show(self, at: Snapshot) -> None:
        self._last = at
        if at.seconds - self._said_s >= _EVERY_S:
            self._said_s = at.seconds
            self.say("progress", **at.document())

    def close(self) -> None:
        if self._last is not None:
            self.say("progress", **self._last.document())
            self._last = None


def told_error(error: RunnerError) -> dict[str, Any]:
    """`RunnerError.document` without a secret in it."""
    document = error.document()
    facts = {name: redact(value) if isinstance(value, str) else value for name, value in document["facts"].items()}
    return document | {"message": redact(document["message"]), "facts": facts}


class EventScreen:
    """An event log as a display."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.show, self.close = log.show, log.close
        self._waits = False

    def say(self, line: str) -> None:
        self._log.say("note", message=redact(line))

    def wait(self, what: str, seconds: float, over: bool) -> None:
        """An event when it begins, one when it is over."""
        if over or not self._waits:
            self._waits = True
            self._log.say("waited" if over else "waiting", what=what, seconds=round(seconds, 1))


def _facts(what: Event | Action) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name in type(what).__dataclass_fields__:
        value = getattr(what, name)
        match value:
            case Success(receipt, measured):
                facts |= {"shard": receipt.shard, "attempt": receipt.attempt, "number": receipt.number}
                facts |= {"rows": receipt.rows_out, "rejected": receipt.rows_rejected, "bytes": receipt.size}
                facts |= {"left_out": receipt.rows_left_out} if receipt.rows_left_out else {}
                facts |= {"seconds": {stage: round(seconds, 4) for stage, seconds in measured.seconds.items()}}
            case Failure():
                document = value.document()
                facts |= document | {"message": redact(str(document["message"]))}
            case Attempt():
                facts |= {"shard": value.shard, "attempt": value.id, "number": value.number, "rows": value.rows}
            case RunnerError():
                facts |= {"error": type(value).__name__, "message": redact(str(value))}
                facts |= {"code": code} if (code := value.facts.get("code")) else {}
            case _ if name != "now" and value not in ("", (), 0, False):
                facts[name] = value
    if isinstance(what, Dispatch | AttemptSucceeded):
        facts["worker"] = what.worker
    return facts
