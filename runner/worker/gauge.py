"""What a worker measures of itself: the batch that pays, the ceiling of its model, and the figures of its receipts.

Refuses to know files and attempts. The invariant: measuring changes no result. The model is run twice on the same rows
only where that leaves no trace in it.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from jobs.errors import RunnerError
from runner.batch.batches import MOST_BATCH_BYTES, batches
from runner.binding.binding import Binding
from runner.engine import Engine
from runner.measure.stage import StageClock
from runner.worker.reading import Located
from runner.worker.tuning import Spent, Tuned, tune

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


class Gauge:
    """One per worker; its attempts take turns, so only `call` meets several threads at once."""

    def __init__(
        self,
        engine: Engine,
        binding: Binding,
        batch_rows: int,
        most_rows: int,
        repeatable: bool,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        """
        batch_rows: to begin with. most_rows: up to which it may grow.
        repeatable: the same rows may be run twice.
        fixed:      figures that do not change: `cpus` and `calls` in flight.
        """
        self.batch_rows = batch_rows
        self._engine, self._binding, self._most_rows = engine, binding, most_rows
        self._to_tune, self._fixed = repeatable, dict(fixed or {})
        self._ceiling = 0.0  # rows/s of the model alone, the best seen
        self._ended: float | None = None  # when the last turn did
        self._padded = [0, 0]  # places of padded inputs since the last receipt, and how many of them rows filled
        self._filled = 0  # rows since then that only filled batches up
        self._shaped = [0, 0]  # rows of row groups of several shapes since then, and the batches of one shape they made

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around everything that is done for one attempt."""
        with _processor.at_work():
            yield

    @contextmanager
    def turn(self, clock: StageClock) -> Iterator[None]:
        """Around the computing of one attempt."""
        if self._ended is not None:
            clock.add("idle", time.perf_counter() - self._ended)
        try:
            yield
        finally:
            self._ended = time.perf_counter()

    def measured(self, row_groups: Iterator[Located], rows_ahead: int, clock: StageClock) -> Iterator[Located]:
        """The same row groups, after the first of them was used to measure the model, where that is still to do.

        rows_ahead: about how many rows this worker will have to do.
        """
        if not self._to_tune:
            return row_groups
        with clock("wait_read"):
            first = next(row_groups, None)
        if first is None:
            return row_groups
        if first[1].num_rows:
            self._to_tune = False
            with clock("tune"), _processor.off():
                tuned = self._tune(first, rows_ahead)
            self.batch_rows, self._ceiling = tuned.batch_rows, tuned.rows_per_s
        return _again(first, row_groups)

    def _tune(self, first: Located, rows_ahead: int) -> Tuned:
        where, at_hand = first[0], self._binding.alike(first[1])

        def call(rows: int) -> Spent:
            _, batch = next(batches([(where, at_hand.slice(0, rows))], rows, "none", MOST_BATCH_BYTES))
            start = time.perf_counter()
            feeds = self._binding.feed(batch)
            fed = time.perf_counter()
            outputs = self._engine.run(feeds, self._binding.fetches)
            run = time.perf_counter()
            self._binding.fetch(batch, outputs)
            return Spent(run - fed, time.perf_counter() - start)

        with suppress(RunnerError):  # it comes again with the first batch, where it is raised with its place
            return tune(call, self.batch_rows, self._most_rows, at_hand.num_rows, rows_ahead)
        return Tuned(self.batch_rows)

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """Around a call of the model. What the model reached beside everything else, it can reach alone."""
        start = time.perf_counter()
        yield
        if rows >= self.batch_rows or not self._ceiling:
            self._ceiling = max(self._ceiling, rows / (time.perf_counter() - start))

    def note_padding(self, places: int, values: int) -> None:
        self._padded[0] += places
        self._padded[1] += values

    def note_filled(self, rows: int) -> None:
        self._filled += rows

    def note_shapes(self, rows: int, batches: int) -> None:
        self._shaped[0] += rows
        self._shaped[1] += batches

    def figures(self) -> dict[str, float]:
        """For a receipt; see `runner.measure.ceiling`. cpu_s: of this process since the last receipt."""
        (places, values), self._padded = self._padded, [0, 0]
        padded = {"pad_places": places, "pad_values": values} if places else {}
        (rows, batches), self._shaped = self._shaped, [0, 0]
        padded |= {"shape_rows": rows, "shape_batches": batches} if batches else {}
        filled, self._filled = self._filled, 0
        padded |= {"filled_rows": filled} if filled else {}
        return (
            self._fixed
            | padded
            | {
                "batch_rows": self.batch_rows,
                "ceiling_rows_per_s": round(self._ceiling, 1),
                "cpu_s": round(_processor.lap(), 4),
                "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT,
            }
        )


def _again(first: Located, rest: Iterator[Located]) -> Iterator[Located]:
    yield first
    del first  # a row group is let go as soon as the loop asks for the next
    yield from rest


class _Processor:
    """CPU seconds of this process while any attempt is in hand, in laps: each counts once for all its workers."""

    def __init__(self) -> None:
        self._mark = 0.0  # what was used when the lap began
        self._attempts = 0  # in hand
        self._lock = threading.Lock()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self._lock:
            if not self._attempts:
                self._mark = time.process_time()
            self._attempts += 1
        try:
            yield
        finally:
            with self._lock:
                self._attempts -= 1

    def lap(self) -> float:
        with self._lock:
            before, self._mark = self._mark, time.process_time()
            return self._mark - before

    @contextmanager
    def off(self) -> Iterator[None]:
        """What is done inside does not count."""
        before = time.process_time()
        yield
        with self._lock:
            self._mark += time.process_time() - before


_processor = _Processor()
