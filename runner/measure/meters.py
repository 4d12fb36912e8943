"""What a run measures of itself, with names, units and labels that every exporter uses.

Owns the names; refuses to know who collects them. The invariant: a label names a state, an outcome or a stage, never a
shard, a file or a worker, so that the number of series does not grow with the data.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.attempt import Failure, Success
from jobs.schedule.event import Action, AttemptFailed, AttemptSucceeded, Event
from runner.measure.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Meter:
    """One thing that is measured. label: the name of its only label, "" where it has none."""

    name: str
    help: str
    label: str = ""
    kind: Literal["gauge", "counter"] = "gauge"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a meter. state: the value of its label."""

    meter: Meter
    value: float
    state: str = ""


WORKERS = Meter("runner_workers", "Workers by state", "state")
SHARDS = Meter("runner_shards", "Shards by state; waiting is the depth of the queue", "state")
PROGRESS = Meter("runner_progress_rows", "Rows of the plan, those in the hands of workers among the done", "state")
RETRIES = Meter("runner_retries", "Attempts of this run at shards that had been given out before")
MEMORY = Meter("runner_memory_bytes", "Most that a process which calls the model has held")
ENDED = Meter("runner_ended_seconds", "When the run ended, since 1970, by exit code", "exit_code")
ROWS = Meter("runner_rows", "Rows of shards that are published", "outcome", "counter")
BYTES = Meter("runner_bytes", "Bytes of published parts", kind="counter")
ATTEMPTS = Meter("runner_attempts", "Attempts that ended: ok, or the class of the failure", "outcome", "counter")
STAGES = Meter("runner_stage_seconds", "Seconds of published attempts by stage", "stage", "counter")


def gauges(at: Snapshot) -> Iterator[Reading]:
    """How far a run is, as its driver sees it."""
    waiting = max(0, at.shards_total - at.shards_done - at.shards_running)
    yield Reading(WORKERS, at.workers_ready, "ready")
    yield Reading(WORKERS, max(0, at.workers - at.workers_ready), "starting")
    yield Reading(SHARDS, waiting, "waiting")
    yield Reading(SHARDS, at.shards_running, "running")
    yield Reading(SHARDS, at.shards_done, "done")
    yield Reading(PROGRESS, at.rows_done, "done")
    yield Reading(PROGRESS, at.rows_total - at.rows_done, "left")
    yield Reading(RETRIES, at.retries)


def increments(result: Success | Failure) -> Iterator[Reading]:
    """What an attempt that ended adds to the counters."""
    if isinstance(result, Failure):
        yield Reading(ATTEMPTS, 1, result.error.failure_class)
        return
    receipt = result.receipt
    yield Reading(ATTEMPTS, 1, "ok")
    yield Reading(ROWS, receipt.rows_out, "written")
    yield Reading(ROWS, receipt.rows_rejected, "rejected")
    if receipt.rows_left_out:
        yield Reading(ROWS, receipt.rows_left_out, "left_out")
    yield Reading(BYTES, receipt.size)
    for stage, seconds in result.measured.seconds.items():
        yield Reading(STAGES, seconds, stage)


class Meters:
    """The readings of one run, kept by its driver; any thread may ask for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[tuple[Meter, str], float] = defaultdict(float)
        self._gauges: dict[tuple[Meter, str], float] = {}

    def note(self, what: Event | Action) -> None:
        match what:
            case AttemptSucceeded(_, _, result) | AttemptFailed(_, _, result):
                with self._lock:
                    for reading in increments(result):
                        self._totals[reading.meter, reading.state] += reading.value
                    if isinstance(result, Success) and (held := result.measured.figures.get("rss_bytes")):
                        self._gauges[MEMORY, ""] = max(held, self._gauges.get((MEMORY, ""), 0.0))

    def show(self, at: Snapshot) -> None:
        with self._lock:
            self._gauges |= {(one.meter, one.state): one.value for one in gauges(at)}

    def ended(self, now_s: float, exit_code: int) -> None:
        """now_s: seconds since 1970."""
        with self._lock:
            self._gauges[ENDED, str(exit_code)] = now_s

    def readings(self) -> list[Reading]:
        with self._lock:
            return [Reading(meter, value, state) for (meter, state), value in (self._gauges | self._totals).items()]
