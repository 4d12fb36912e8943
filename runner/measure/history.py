"""What happened in a run: every attempt with its times, and what each worker used.

Fed by the driver; refuses to know clocks and files. The invariant: some 40 bytes for each attempt, however many.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.attempt import ODD, Failure, Success
from jobs.numerics import Numerics
from jobs.schedule.event import AttemptFailed, AttemptSucceeded, Event, WorkerLost, WorkerReady
from jobs.versions import Versions
from runner.measure.ceiling import Use, computing_s

Outcome = Literal["published", "adopted", "failed", "lost"]
_MOST_ROWS = 2**31 - 1  # of one attempt, for the timeline
_SUMMED = (
    "pad_places",
    "pad_values",
    "shape_rows",
    "shape_batches",
    "filled_rows",
)  # of the figures of a receipt: those since the last
_OUTCOMES: tuple[Outcome, ...] = ("published", "adopted", "failed", "lost")


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt on the timeline, in seconds since the run began. computed: when it gave up the compute thread."""

    worker: str
    shard: int
    number: int
    began: float
    computed: float
    ended: float
    rows: int
    outcome: Outcome


@dataclass
class _Tally:
    """Of one worker."""

    index: int
    rows: int = 0
    shards: int = 0
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    last: Mapping[str, float] = field(default_factory=dict)  # its latest figures
    summed: Counter[str] = field(default_factory=Counter)  # the figures of `_SUMMED`, see `Use`
    ended: float = 0.0  # when its last attempt did


class History:
    """Times of spans are those of the driver's clock, less `start`: when the command began."""

    def __init__(self) -> None:
        self.start = 0.0
        self._workers: dict[str, _Tally] = {}
        self._given: dict[str, tuple[float, str, int, int]] = {}  # attempt -> when, worker, shard, number
        self._times = array("d")  # began, computed, ended of each attempt
        self._facts = array("i")  # worker, shard, number, rows, outcome
        self._starts: dict[str, float] = {}  # worker -> when it was asked for
        self._loads: dict[str, tuple[float, float]] = {}  # and until when it started, by the driver's clock
        self.first_dispatch: float | None = None  # both by the driver's clock
        self.last_commit: float | None = None
        self.numerics: dict[Numerics, dict[str, None]] = {}  # of parts that were computed -> by which workers
        self.versions: dict[Versions, dict[str, None]] = {}  # of such parts -> by which workers
        self.odd = Counter[str]()  # rows that were written and yet are odd, by the words of `jobs.attempt.ODD`
        self.first_part: float | None = None  # when the first of this run was committed, by the driver's clock

    def __len__(self) -> int:
        return len(self._times) // 3

    def starting(self, now: float, worker: str) -> None:
        self._starts[worker] = now

    def dispatched(self, now: float, worker: str, attempt: str, shard: int, number: int) -> None:
        self.first_dispatch = now if self.first_dispatch is None else self.first_dispatch
        if worker in self._starts:
            self._loads[worker] = self._starts.pop(worker), now
        self._given[attempt] = now, worker, shard, number

    def note(self, event: Event) -> None:
        """Anything else that happened; most of it changes nothing here."""
        match event:
            case AttemptSucceeded(now, worker, success):
                self._note_success(now, worker, success)
            case AttemptFailed(now, worker, failure):
                self._note_failure(now, worker, failure)
            case WorkerReady(now, worker) if worker in self._starts:
                self._loads[worker] = self._starts[worker], now
            case WorkerLost(now, worker):
                self.stopped(now, worker)

    def stopped(self, now: float, worker: str) -> None:
        """A worker is gone, or is stopped: with it, what it had in hand."""
        for attempt in [name for name, given in self._given.items() if given[1] == worker]:
            self._end(now, attempt, "lost")

    def _note_success(self, now: float, worker: str, success: Success) -> None:
        receipt, seconds, figures = success.receipt, success.measured.seconds, success.measured.figures
        self.last_commit = now
        self.first_part = now if self.first_part is None else self.first_part
        if receipt.attempt not in self._given:  # it was published before: the attempt that did it is gone
            return
        if receipt.adopted or not seconds:
            self._end(now, receipt.attempt, "adopted")
            return
        self.numerics.setdefault(receipt.numerics, {})[worker] = None
        self.versions.setdefault(receipt.versions, {})[worker] = None
        self.odd.update({name: getattr(receipt, name) for name in ODD})
        tally = self._tally(worker)
        tally.rows += receipt.rows_in
        tally.shards += 1
        tally.bytes += receipt.size
        tally.cpu_s += figures.get("cpu_s", 0.0)
        tally.last = figures
        tally.summed.update({name: int(figures.get(name, 0)) for name in _SUMMED})
        for stage, spent in seconds.items():
            tally.seconds[stage] = tally.seconds.get(stage, 0.0) + spent
        behind = seconds.get("wait_encode", 0.0) + seconds.get("publish", 0.0)
        busy = computing_s(seconds) + seconds.get("tune", 0.0)
        self._end(now, receipt.attempt, "published", receipt.rows_in, behind, busy)

    def _note_failure(self, now: float, worker: str, failure: Failure) -> None:
        self._end(now, failure.attempt, "failed")

    def _end(
        self, now: float, attempt: str, outcome: Outcome, rows: int = 0, behind: float = 0.0, busy: float | None = None
    ) -> None:
        given = self._given.pop(attempt, None)
        if given is None:
            return
        when, worker, shard, number = given
        tally = self._tally(worker)
        computed = now - behind
        began = max(when, tally.ended if busy is None else computed - busy)
        tally.ended = now
        self._times.extend((began - self.start, max(began, computed) - self.start, now - self.start))
        self._facts.extend((tally.index, shard, number, min(rows, _MOST_ROWS), _OUTCOMES.index(outcome)))

    def _tally(self, worker: str) -> _Tally:
        return self._workers.setdefault(worker, _Tally(len(self._workers)))

    @property
    def busy_s(self) -> float:
        """From the first dispatch to the last commit, less what each worker spent on tuning."""
        if self.first_dispatch is None or self.last_commit is None:
            return 0.0
        tuned = [tally.seconds.get("tune", 0.0) for tally in self._workers.values() if tally.shards]
        return max(0.0, self.last_commit - self.first_dispatch - sum(tuned) / max(1, len(tuned)))

    def loads(self) -> dict[str, tuple[float, float]]:
        """Worker -> from when to when it started, loaded the model and waited until it was tried, as a Span's times."""
        return {worker: (began - self.start, ended - self.start) for worker, (began, ended) in self._loads.items()}

    def uses(self) -> dict[str, Use]:
        """What each worker did; only those that published something."""
        return {
            name: Use(
                rows=tally.rows,
                shards=tally.shards,
                bytes=tally.bytes,
                seconds=dict(tally.seconds),
                cpu_s=tally.cpu_s,
                cpus=tally.last.get("cpus", 1.0),
                calls=int(tally.last.get("calls", 1)),
                batch_rows=int(tally.last.get("batch_rows", 0)),
                ceiling=tally.last.get("ceiling_rows_per_s", 0.0),
                rss_bytes=int(tally.last.get("rss_bytes", 0)),
                **{name: tally.summed[name] for name in _SUMMED},
                most_rows=int(tally.last.get("most_rows", 0)),
                compilations=int(tally.last.get("compilations", 0)),
                compiled_shapes=int(tally.last.get("compiled_shapes", 0)),
                compile_s=tally.last.get("compile_s", 0.0),
            )
            for name, tally in self._workers.items()
            if tally.shards
        }

    def spans(self) -> Iterator[Span]:
        """Every attempt that ended, in the order in which they did."""
        names = list(self._workers)
        for at in range(len(self)):
            began, computed, ended = self._times[3 * at : 3 * at + 3]
            worker, shard, number, rows, outcome = self._facts[5 * at : 5 * at + 5]
            yield Span(names[worker], shard, number, began, computed, ended, rows, _OUTCOMES[outcome])
