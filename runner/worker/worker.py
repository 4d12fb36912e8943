"""The Worker: one loaded model, ready for attempts. The path of a row group is in `attempt_run.py`.

Two attempts may be in hand, each in a thread of its caller's: the second reads ahead while the first computes, and
computes while the first publishes. Knows nothing of Ray, of other workers or of retries. The invariant: an attempt
either publishes exactly the rows of its shard, or leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa

from connectors.failpoint import failpoint
from connectors.formats.registry import source_of
from connectors.output.directory import OutputDirectory
from connectors.store.store import Store
from jobs.attempt import Attempt, Failure, Receipt
from jobs.errors import (
    DeviceError,
    InternalError,
    MemoryLimitError,
    RunnerError,
    StoppedError,
    StorageError,
    WorkerError,
)
from jobs.job import reader_threads
from runner import engine
from runner.batch.headroom import TIRED, Headroom
from runner.model.planned import OpenModel
from runner.tensor import Feeds, Outputs
from runner.worker.attempt_run import AttemptRun, Bench
from runner.worker.careful import CarefulEngine, survive_decoding
from runner.worker.gauge import Gauge
from runner.worker.memory import MemoryLimit
from runner.worker.reading import Reading, row_groups_ahead
from runner.worker.sample import DISTINCT_ROWS, Sample, read_rows
from runner.worker.spec import Observe, Progress, WorkerSpec
from runner.worker.stream import Line
from runner.worker.trial import Trial, try_out
from runner.worker.warm_up import WarmUp, warm_up

# In flight, so that copies and kernels overlap; on a CPU a second one only takes cores from the first.
_CALLS_ON_GPU = 2
# How long an attempt behind one whose device failed waits until that one has reported it.
_CAUSE_S = 10.0


class Worker:
    def __init__(
        self,
        spec: WorkerSpec,
        name: str,
        options: engine.EngineOptions,
        *,
        careful: bool = False,
        memory: int | None = None,
    ) -> None:
        """Load the model.

        careful: not here but in child processes, which may die of a row; see `runner.worker.careful`.
        memory:  bytes that this process may hold: with more it asks to be replaced. None: as much as there is.
        raises:  ModelError if the model cannot be loaded, or is no longer the one that was planned.
        """
        self.name = name
        self.observe: Observe = lambda rows, most, padding, seconds: None  # called for each batch, to measure
        self._stop = threading.Event()
        self._spec = spec
        self._readers = spec.readers or reader_threads(options.threads)
        self._room = threading.Semaphore(row_groups_ahead(self._readers))
        self._reading = self._opened_reading(options.threads, careful)
        self._output = OutputDirectory(spec.output, spec.plan_id, spec.shards)
        self._calls = _CALLS_ON_GPU if options.gpu else 1
        self._numbers = itertools.count()
        self._to_read, self._to_compute = Line(), Line()
        self._rows: dict[int, tuple[str, int]] = {}  # number of an attempt in hand -> its id, rows done
        self._counting, self._ended = threading.Lock(), threading.Condition()
        self._model = OpenModel(spec.model)
        failpoint("W1.load")
        self._careful, self._called = careful, 0
        options = dataclasses.replace(options, model=spec.options, name=spec.model.url)
        self._engine, self._sample = self._loaded(options, memory)
        self._headroom = Headroom(spec.most_batch_rows)
        self._memory = MemoryLimit(memory)
        self._memory.check_start()
        self._recycle = ""  # why this process is to be replaced, between two shards
        self._broken = ""  # why it is at once
        self.devices = self._engine.devices
        fixed = {"cpus": options.threads, "calls": self._calls}
        tried = spec.repeatable and not careful  # a careful worker's calls are for the rows that it is there for
        self._gauge = Gauge(self._engine, spec.binding, spec.batch_rows, spec.most_batch_rows, tried, fixed)
        self.warm_up = WarmUp()
        if tried:
            folder, xla = Path(self._model.path), spec.options.xla
            self.warm_up = warm_up(
                self._engine, spec.binding, spec.signature, self._sample, spec.batch_sizes, folder, xla
            )

    def trial(self) -> Trial:
        """Prove the model on a few rows. raises: ModelError; see `runner.trial`."""
        failpoint("W1.trial")
        spec = self._spec
        if self._careful:
            return Trial("none", False)
        if not spec.repeatable:
            return Trial("none", False)  # a call would change the model; whoever planned the job was told
        return try_out(
            self._engine, spec.binding, spec.signature, self._sample, spec.batch_rows, spec.model.url, draws=spec.draws
        )

    def run(self, attempt: Attempt, number: int) -> Receipt:
        """Carry one shard through, see `AttemptRun.run`. number: its place in the order of attempts."""
        run = AttemptRun(self._bench(), attempt, number)
        return self._told(run.run(), run.seconds)

    def attempt(self, attempt: Attempt, number: int | None = None) -> Receipt | Failure:
        """`run` behind the boundary of the worker: whatever goes wrong comes back as a Failure.

        number: counts the attempts of this worker from 0, in the order in which they were given out, where several
                are in hand; None: they come one by one.
        """
        number = next(self._numbers) if number is None else number
        if self._recycle:  # the driver knows, and gives this shard to another
            self._leave(number)
            gone = WorkerError(f"worker {self.name} is to be replaced: {self._recycle}")
            return Failure(attempt.shard, attempt.id, attempt.number, self.name, gone)
        self._rows[number] = attempt.id, 0
        self._headroom.learn(attempt.safe_rows)
        try:
            with self._gauge.attempt():
                return self.run(attempt, number)
        except RunnerError as error:
            failed: RunnerError = error
            if self._broken and isinstance(error, WorkerError):  # the cause is heard of before what followed from it
                with self._ended:
                    self._ended.wait_for(lambda: min(self._rows) == number, _CAUSE_S)
        except (MemoryError, pa.ArrowMemoryError) as error:
            failed = MemoryLimitError(
                f"shard {attempt.shard} did not fit into the memory of worker {self.name}: {error}"
            )
        except OSError as error:  # the spool's disk, most likely: another worker may have room
            failed = StorageError(f"shard {attempt.shard} failed on worker {self.name}: {error}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            failed = InternalError(
                f"shard {attempt.shard} failed on worker {self.name} in a way nobody foresaw:"
                f" {type(error).__name__}: {error} ({where.filename}:{where.lineno}); please report it",
                traceback=traceback.format_exc(),
            )
        finally:
            self._leave(number)
            with self._ended:
                del self._rows[number]
                self._ended.notify_all()
        if isinstance(failed, MemoryLimitError):
            self._recycle = f"it failed: {failed.message}"
        return Failure(attempt.shard, attempt.id, attempt.number, self.name, failed)

    def stop(self) -> None:
        """End the running attempt before its next batch."""
        self._stop.set()

    def close(self) -> None:
        self._engine.close()
        self._model.close()

    @property
    def progress(self) -> Progress:
        in_hand = [rows for _, rows in sorted(self._rows.copy().items())]
        beside = sum(rows for _, rows in in_hand[1:])
        return Progress(*in_hand[0], beside, self._called) if in_hand else Progress()

    def _leave(self, number: int) -> None:
        self._to_read.leave(number)
        self._to_compute.leave(number)

    def _opened_reading(self, threads: int, careful: bool) -> Reading:
        # Beside the session's threads, so that the workers of one machine do not fight.
        pa.set_cpu_count(threads)
        pa.set_io_thread_count(self._readers)
        spec = self._spec
        source, store = source_of(spec.input), Store(spec.input.url[0], spec.input.options)
        survive = partial(survive_decoding, spec) if careful else None
        return Reading(source, store, spec.binding.columns, spec.input_schema, survive)

    def _loaded(self, options: engine.EngineOptions, memory: int | None) -> tuple[engine.Engine, Sample]:
        """The model, and rows to try it on, which are read while it loads."""
        spec, path = self._spec, self._model.path
        with ThreadPoolExecutor(1) as beside:
            sampled = spec.repeatable and spec.sample is not None and not self._careful
            rows = beside.submit(self._sample_rows) if sampled else None
            loaded: engine.Engine = (
                CarefulEngine(spec, path, options, memory)
                if self._careful
                else engine.load(spec.engine, path, spec.tags, spec.signature, options)
            )
            return loaded, Sample(spec.binding, spec.signature, rows.result() if rows is not None else None)

    def _sample_rows(self) -> pa.RecordBatch | None:
        spec = self._spec
        assert spec.sample is not None
        return read_rows(spec.input, spec.input_schema, spec.binding, spec.sample, max(spec.batch_rows, DISTINCT_ROWS))

    def _bench(self) -> Bench:
        return Bench(
            spec=self._spec,
            worker=self.name,
            output=self._output,
            reading=self._reading,
            readers=self._readers,
            room=self._room,
            calls=self._calls,
            gauge=self._gauge,
            headroom=self._headroom,
            to_read=self._to_read,
            to_compute=self._to_compute,
            call=self._call,
            look=self._look,
            beat=self._heartbeat,
            observe=self.observe,
        )

    def _call(self, feeds: Feeds) -> Outputs:
        self._called += self._careful
        try:
            return self._engine.run(feeds, self._spec.binding.fetches)
        except DeviceError as error:  # before the next attempt has its turn
            self._broken = self._recycle = f"it failed: {error.message}"
            raise

    def _told(self, receipt: Receipt, seconds: Mapping[str, float]) -> Receipt:
        """The receipt with what the driver is to know of this process."""
        if self._headroom.failures >= TIRED:
            self._recycle = self._recycle or f"memory ran out {self._headroom.failures} times in it"
        else:
            # What another attempt in hand has found out stays: a process that was given up once is not trusted again.
            self._recycle = self._recycle or self._memory.excess()
        return dataclasses.replace(
            receipt,
            seconds=dict(seconds),
            figures=self._gauge.figures(),
            safe_rows=self._headroom.limits,
            recycle=self._recycle,
        )

    def _look(self) -> None:
        if self._stop.is_set():
            raise StoppedError(f"worker {self.name} was stopped")

    def _heartbeat(self, number: int, attempt: Attempt, rows: int) -> None:
        if self._stop.is_set():
            raise StoppedError(f"shard {attempt.shard} was stopped on worker {self.name} before it was done")
        if self._broken:
            raise WorkerError(f"worker {self.name} is to be replaced: {self._broken}")
        with self._counting:  # two calls may be in flight
            self._rows[number] = attempt.id, self._rows[number][1] + rows
