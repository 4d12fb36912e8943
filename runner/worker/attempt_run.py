"""One attempt at one shard: the whole path of a row group, from its file to the part. THE SPINE.

Owns the order of the steps and what belongs to this attempt alone: its clock, its part, its rejected rows. Refuses to
know how a model is loaded and what becomes of a failure. The invariant: it publishes exactly the rows of its shard, or
leaves nothing behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from connectors.failpoint import failpoint
from connectors.output.directory import OutputDirectory
from jobs.attempt import Attempt, Receipt
from jobs.numerics import Numerics
from runner.batch.batches import MOST_BATCH_BYTES, MOST_TEXT_BYTES, Join, Where, batches
from runner.batch.bisection import Bisection, Compare, Steps, wide_rows
from runner.batch.bucketing import Bucketing
from runner.batch.headroom import Headroom
from runner.batch.rejects import Rejects
from runner.batch.standing import Standing
from runner.binding.binding import Binding
from runner.measure.stage import StageClock
from runner.tensor import Array, Feeds, Outputs
from runner.worker.gauge import Gauge
from runner.worker.reading import Located, Reading, Unit, units
from runner.worker.spec import Observe, WorkerSpec
from runner.worker.stream import Line, ReadAhead, WriteBehind, in_order

# Batches that wait to be encoded. More is memory without speed: a stage that is behind on average stays behind.
_BEHIND_BATCHES = 2

Scored = tuple[pa.RecordBatch, Array | None]  # the rows as they leave, and which of the batch they are; None: all
Score = Callable[[tuple[Where, pa.RecordBatch]], Scored]
Feed = Callable[[pa.RecordBatch], Feeds]
Run = Callable[[Feeds], Outputs]
Fetch = Callable[[pa.RecordBatch, Outputs], pa.RecordBatch]


@dataclass(frozen=True)
class Bench:
    """What the attempts of one worker share.

    readers:    threads that read and decode. room: for their row groups, over all attempts.
    calls:      of the model that are in flight at once.
    to_read:    attempts read one after the other; `to_compute`: and compute so.
    call:       the model, once.
    look:       raises StoppedError where the worker was stopped.
    beat:       called with the attempt's number and rows before each batch; raises where the attempt is to end.
    compiled:   seconds of the calls of this thread that compiled something. decoded: that they spent on pictures.
    numerics:   of the process that calls the model, once it has been called.
    standing:   of the model, over all attempts.
    compare:    each call with the same of the model uncompiled; None: the job does not want it.
    """

    spec: WorkerSpec
    worker: str
    output: OutputDirectory
    reading: Reading
    readers: int
    room: threading.Semaphore
    calls: int
    gauge: Gauge
    headroom: Headroom
    to_read: Line
    to_compute: Line
    call: Callable[[Feeds], Outputs]
    look: Callable[[], None]
    beat: Callable[[int, Attempt, int], None]
    observe: Observe
    compiled: Callable[[], float]
    decoded: Callable[[], float]
    numerics: Callable[[], Numerics]
    standing: Standing
    compare: Compare | None = None


class AttemptRun:
    """number: its place in the order of attempts of this worker."""

    def __init__(self, bench: Bench, attempt: Attempt, number: int) -> None:
        spec = bench.spec
        self._bench, self._attempt, self._number = bench, attempt, number
        self._binding, self._limits = _halved(spec.binding, attempt.halvings), spec.limits
        self._clock = StageClock()
        self._rejects = Rejects(spec.scored_schema, spec.binding.kept_columns, spec.limits, spec.max_rejected_rows)
        self._part = bench.output.open_part(attempt, spec.binding.output_schema, spec.digest, bench.worker)

    @property
    def seconds(self) -> Mapping[str, float]:
        """By stage, so far."""
        return self._clock.seconds

    def run(self) -> Receipt:
        """Carry one shard through, and publish its part.

        raises: any RunnerError; then nothing is visible at the final name unless another attempt put it there.
        """
        timed = self._clock.timed
        with self._part, self._read() as row_groups, self._encode() as encoder:
            encode, flush = timed("wait_write", encoder.put), timed("wait_encode", encoder.flush)
            with self._turn():
                score = self._bisecting(self._feed, self._run, self._fetch)
                for rows in self._scored(score, row_groups):
                    encode(rows)
            flush()
            return timed("publish", self._part.publish)(self._rejects.losses(), self._bench.numerics())

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Attempts of a worker compute one after the other; the next one reads ahead meanwhile."""
        bench = self._bench
        with bench.to_compute.turn(self._number, bench.look), bench.gauge.turn(self._clock):
            yield

    # read

    def _read(self) -> ReadAhead[Unit, Located | None]:
        """Row groups, from threads of their own; None for one that failed or of which the job wants no row."""
        bench = self._bench
        rejects = self._rejects
        readers = partial(bench.reading.reader, self._clock, rejects.readable, rejects.add, rejects.leave_out)
        turn = partial(bench.to_read.turn, self._number)
        return ReadAhead(units(self._attempt), bench.room, readers, bench.readers, turn)

    # feed, run, fetch

    def _scored(self, score: Score, row_groups: Iterator[Located | None]) -> Iterator[pa.RecordBatch]:
        """The rows as they leave, in the order of the input: cut into batches, scored, and put together again."""
        bench, binding, clock = self._bench, self._binding, self._clock
        # Before the first row group the size of a batch may be settled on it.
        tables = bench.gauge.measured(filter(None, row_groups), self._attempt.rows * bench.spec.shards, clock)
        fixed = binding.batch_rows is not None
        batch_rows = binding.batch_rows or max(1, bench.gauge.batch_rows >> self._attempt.halvings)
        note, lone = bench.gauge.note_shapes, batch_rows == 1  # a row alone goes with any
        shapes = (lambda table: None) if lone else binding.shapes
        bucketing = Bucketing(binding.lengths, batch_rows, even=fixed, shapes=shapes, note=note)
        # Where each bit counts, a row group that cannot be read must move no row of another one.
        full = fixed or bench.spec.filled
        join: Join = "none" if self._limits.reproducible else "all" if full else "small"
        most_bytes = MOST_BATCH_BYTES if join == "small" and self._limits.batch_rows == "auto" else MOST_TEXT_BYTES
        cut = batches(bucketing.pieces(tables), batch_rows, join, most_bytes)
        for rows, kept in in_order(score, clock.each("wait_read", cut), bench.calls):
            fed = rows.num_rows if kept is None else len(kept)
            filled = (binding.batch_rows or fed) - fed
            bench.gauge.note_filled(filled)
            bench.observe(fed, batch_rows, filled, clock.seconds)
            yield from bucketing.restore(rows, kept)

    def _bisecting(self, feed: Feed, run: Run, fetch: Fetch) -> Score:
        """What does all three with a batch; where that fails for some rows, with the batch in pieces without them."""
        binding, timed, most = self._binding, self._clock.timed, self._limits.max_row_bytes
        steps = Steps(
            feed=timed("feed", feed),
            run=run,
            fetch=timed("fetch", fetch),
            marks=timed("fetch", binding.marks),
            check=(lambda batch: None) if most is None else partial(wide_rows, most=most),
            call=self._bench.gauge.call,
            compare=self._bench.compare,
            nan=partial(_nan_stories, binding, [member.call.name for member in self._bench.spec.members]),
        )
        bisection = Bisection(
            steps,
            self._rejects,
            self._bench.headroom,
            nan_rejected=self._limits.nan_output == "reject",
            fixed_rows=binding.batch_rows,
            in_place=self._limits.reproducible,
            standing=self._bench.standing,
        )

        def score(at: tuple[Where, pa.RecordBatch]) -> Scored:
            self._bench.beat(self._number, self._attempt, at[1].num_rows)
            failpoint("W3.run")
            return bisection.whole(*at, binding.output_schema)

        return score

    def _feed(self, batch: pa.RecordBatch) -> Feeds:
        feeds = self._binding.feed(batch)
        if self._binding.pads:
            self._bench.gauge.note_padding(*self._binding.padding(batch, feeds))
        return feeds

    def _run(self, feeds: Feeds) -> Outputs:
        """A call that compiles is no measure of the model: it is a stage of its own, and so is decoding pictures."""
        clock, bench = self._clock, self._bench
        before, decoded = bench.compiled(), bench.decoded()
        try:
            with clock("run"):
                return bench.call(feeds)
        finally:
            for stage, seconds in (("compile", bench.compiled() - before), ("pictures", bench.decoded() - decoded)):
                if seconds:
                    clock.add("run", -seconds)
                    clock.add(stage, seconds)

    def _fetch(self, batch: pa.RecordBatch, outputs: Outputs) -> pa.RecordBatch:
        return self._binding.fetch(batch, outputs)

    # encode

    def _encode(self) -> WriteBehind[pa.RecordBatch]:
        """What takes rows and writes them into the part, in a thread of its own."""

        def write(rows: pa.RecordBatch) -> None:
            failpoint("W3.encode")
            with self._clock("encode"):
                self._part.write(rows)

        return WriteBehind(write, _BEHIND_BATCHES)


def _halved(binding: Binding, times: int) -> Binding:
    """The same, with calls of so many times half the rows, where their number is not the model's."""
    if binding.batch_rows is None or not binding.padded:
        return binding
    return replace(binding, batch_rows=max(1, binding.batch_rows >> times))


def _nan_stories(binding: Binding, members: Sequence[str], outputs: Outputs, rows: pa.RecordBatch) -> list[str]:
    """What to say of each row if its answers hold a NaN. members: the models, where there are several."""
    found: list[list[str]] = [[] for _ in range(rows.num_rows)]
    for member in members:
        mask = binding.nan_rows(outputs, rows, f"{member}.")
        for row in np.flatnonzero(mask) if mask is not None else ():
            found[row].append(repr(member))
    return [
        f"model{'s' * (len(names) > 1)} {', '.join(names)} answered NaN" if names else "the model answered NaN"
        for names in found
    ]
