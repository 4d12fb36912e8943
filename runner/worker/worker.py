"""The Worker: one loaded model, ready for attempts. The path of a row group is in `attempt_run.py`.

Two attempts may be in hand, each in a thread of its caller's: the second reads ahead while the first computes, and
computes while the first publishes. Knows nothing of Ray, of other workers or of retries. The invariant: an attempt
either publishes exactly the rows of its shard, or leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.failpoint import failpoint
from connectors.formats.registry import is_verbatim
from connectors.output.directory import OutputDirectory
from connectors.store.client_error import no_room
from connectors.store.scratch import scratch_home
from connectors.store.store import Store
from connectors.tables.source import source_of
from jobs.attempt import Advice, Attempt, Failure, InputSlice, Measured, Receipt, Success
from jobs.errors import (
    CapacityError,
    DeviceError,
    InternalError,
    MemoryLimitError,
    ModelError,
    RunnerError,
    StoppedError,
    StorageError,
    WorkerError,
    out_of_threads,
)
from jobs.numerics import UNKNOWN, Numerics, unlike
from jobs.section.workers import reader_threads
from runner import engine
from runner.batch.comparison import Comparison
from runner.batch.headroom import Headroom
from runner.batch.spot_check import SpotCheck
from runner.batch.standing import Standing
from runner.binding.blame import RowError
from runner.binding.picture.bound import pictures_of
from runner.engine.counted import CountedEngine
from runner.engine.numerics import numerics
from runner.engine.picture import PicturesEngine, PicturesError
from runner.engine.risk import risks
from runner.engine.several import SeveralEngine
from runner.model.planned import opened
from runner.selection.selection import Selection
from runner.tensor import Feeds, Outputs
from runner.worker.attempt_run import AttemptRun, Bench
from runner.worker.gauge import Gauge
from runner.worker.health import Health
from runner.worker.in_hand import InHand
from runner.worker.isolated import IsolatedEngine, survive_decoding, survive_first_calls, tried_eagerly
from runner.worker.reading import Reading, row_groups_ahead
from runner.worker.room import MemoryLimit, require_room
from runner.worker.spec import Observe, Progress, WorkerSpec
from runner.worker.stream import Line
from runner.worker.trial.rows import refused_alone
from runner.worker.trial.sample import DISTINCT_ROWS, Sample, read_rows
from runner.worker.trial.subject import Subject
from runner.worker.trial.trial import Trial, try_nan, try_out
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
        isolated: bool = False,
        memory: int | None = None,
    ) -> None:
        """Load the model.

        isolated: not here but in child processes, which may die of a row; see `runner.worker.isolated`.
        memory:  bytes that this process may hold: with more it is to be replaced. None: as much as there is.
        raises:  ModelError if the model cannot be loaded, or is no longer the one that was planned.
        """
        self.name, self._spec, self._isolated = name, spec, isolated
        self.observe: Observe = lambda rows, most, padding, seconds: None  # called for each batch, to measure
        self._stop = threading.Event()
        self._numbers, self._in_hand = itertools.count(), InHand()
        readers = spec.readers or reader_threads(options.threads)
        require_room(spec)
        reading = self._opened_reading(options.threads, readers)
        self._models = opened([member.model for member in spec.members] or [spec.model])
        failpoint("W1.load")
        if spec.limits.reproducible and options.gpu:
            os.environ["TF_DETERMINISTIC_OPS"] = "1"  # else cuDNN chooses by time, and sums come in any order
        placed = zip(spec.members, self._models, strict=False)
        members = tuple(dataclasses.replace(member.call, path=model.path) for member, model in placed)
        options = dataclasses.replace(options, model=spec.options, name=spec.model.url, members=members)
        pictures, most = pictures_of(spec.binding), spec.limits.max_row_bytes
        options = dataclasses.replace(options, pictures=pictures, max_row_bytes=most)
        threads = engine.pool_threads(options.threads)  # a child's are the same
        given = dataclasses.replace(options, threads=threads, compiles=spec.compiles)
        self._given = given, memory
        self._engine, self._sample = self._loaded(given, memory)
        self._comparison, self._spot_check = self._compared(given), self._checked()
        self.devices = self._engine.devices
        self._own_numerics = UNKNOWN if isolated else numerics(options, self.devices)
        limit, self._headroom = MemoryLimit(memory), Headroom(spec.most_batch_rows)
        limit.check_start()
        self._health = Health(name, limit, self._headroom)
        tried = spec.repeatable and not isolated  # an isolated worker's calls are for the rows that it is there for
        calls = _CALLS_ON_GPU if options.gpu else 1
        fixed = {"cpus": options.threads, "calls": calls}
        tuned = tried and spec.most_rows is None  # a model that batches by itself makes calls of a few rows wait
        self._gauge = Gauge(self._engine, spec.binding, spec.batch_rows, spec.most_batch_rows, tuned, fixed)
        self._subject = Subject(self._engine, spec.binding, spec.signature, self._sample, spec.batch_rows, spec.url)
        self._standing = self._doubted()
        self._bench = self._shared(reading, readers, calls)
        if spec.limits.reproducible and not isolated:
            self._require_like_the_first(self._own_numerics)
        self.warm_up = self._warmed_up() if tried else WarmUp()
        if self.warm_up.requests or self.warm_up.calls:
            self._standing.note_taken()

    def trial(self) -> Trial:
        """Prove the model on a few rows. raises: ModelError; see `runner.worker.trial.trial`."""
        failpoint("W1.trial")
        spec = self._spec
        if self._isolated:
            return Trial("none", False)
        if not spec.repeatable:
            return Trial("none", False)  # a call would change the model; `plan` says so
        try:
            found = try_out(
                self._subject,
                self._standing,
                draws=spec.draws,
                bits=spec.limits.reproducible,
                elsewhere=self._rows_elsewhere,
            )
        except ModelError as error:
            raise tried_eagerly(error, spec, self._models[0].path, *self._given, self._sample) from error
        return try_nan(found, self._subject, spec.limits)

    def run(self, attempt: Attempt, number: int) -> Success:
        """Carry one shard through, see `AttemptRun.run`. number: its place in the order of attempts."""
        run = AttemptRun(self._bench, attempt, number)
        return self._reported(run.run(), run.seconds)

    def attempt(self, attempt: Attempt, number: int | None = None) -> Success | Failure:
        """`run` behind the boundary of the worker: whatever goes wrong comes back as a Failure.

        number: counts the attempts of this worker from 0, in the order in which they were given out, where several
                are in hand; None: they come one by one.
        """
        number = next(self._numbers) if number is None else number
        refusal = self._health.refusal()
        if refusal is not None:  # the driver knows, and gives this shard to another
            self._leave(number)
            return Failure(attempt.shard, attempt.id, attempt.number, self.name, refusal)
        self._headroom.learn(attempt.safe_rows)
        if attempt.works:
            self._standing.note_taken()
        with self._in_hand.attempt(number, attempt.id):
            try:
                with self._gauge.attempt():
                    return self.run(attempt, number)
            except Exception as error:
                failed = _as_ours(error, attempt.shard, self.name)
                if self._health.broken and isinstance(error, WorkerError):  # the cause comes before what followed
                    self._in_hand.await_earlier(number, _CAUSE_S)
                self._health.note(failed)
            finally:
                self._leave(number)
        return Failure(attempt.shard, attempt.id, attempt.number, self.name, failed)

    def stop(self) -> None:
        """End the running attempt before its next batch."""
        self._stop.set()

    def close(self) -> None:
        if self._comparison is not None:
            self._comparison.close()
        self._engine.close()
        for model in dict.fromkeys(self._models):
            model.close()

    @property
    def progress(self) -> Progress:
        return self._in_hand.progress

    def _opened_reading(self, threads: int, readers: int) -> Reading:
        # Beside the session's threads, so that the workers of one machine do not fight.
        pa.set_cpu_count(threads)
        pa.set_io_thread_count(readers)
        spec = self._spec
        source = source_of(spec.input, spec.limits.max_row_group_bytes, spec.limits.max_row_bytes)
        store = Store(spec.input.url[0], spec.input.options)
        survive = partial(survive_decoding, spec) if self._isolated and not is_verbatim(spec.input) else None
        columns = spec.input_schema.names
        return Reading(
            source, store, columns, spec.input_schema, spec.binding.columns, Selection.of(spec.input), survive
        )

    def _loaded(self, options: engine.EngineOptions, memory: int | None) -> tuple[engine.Engine, Sample]:
        """The model, and rows to try it on, which are read while it loads."""
        spec, path = self._spec, self._models[0].path
        with ThreadPoolExecutor(1) as beside:
            sampled = spec.sample if spec.repeatable and not self._isolated else None
            most = max(spec.batch_rows, DISTINCT_ROWS)
            rows = beside.submit(self._sample_rows, sampled, most) if sampled is not None else None
            found = risks(options.model, os.environ)
            if found and not self._isolated:
                sample = Sample(spec.binding, spec.signature, rows.result() if rows is not None else None)
                survive_first_calls(spec, path, options, memory, sample, found)
            isolated = self._isolated
            loaded = IsolatedEngine(spec, path, options, memory) if isolated else _loaded_here(spec, path, options)
            return loaded, Sample(spec.binding, spec.signature, rows.result() if rows is not None else None)

    def _compared(self, options: engine.EngineOptions) -> Comparison | None:
        """What scores the first rows uncompiled too, where the job wants it; not where a row may end the process."""
        spec, path = self._spec, self._models[0].path
        if spec.limits.compare_uncompiled is None or self._isolated:
            return None
        plain = options.uncompiled
        return Comparison(
            spec.limits.compare_uncompiled,
            lambda: engine.load(spec.engine, path, spec.tags, spec.signature, plain),
            spec.binding,
            halves=options.model.mixed_precision is not None,
        )

    def _sample_rows(self, piece: InputSlice, most: int) -> pa.RecordBatch | None:
        return read_rows(self._spec.input, self._spec.scored_schema, self._spec.binding, piece, most)

    def _doubted(self) -> Standing:
        """What is known of the model here. An isolated worker's rows did worse to other processes."""
        spec, subject = self._spec, self._subject

        def elsewhere() -> Sequence[RunnerError] | None:
            own = [] if subject.sample.rows is None else [subject.sample.rows]
            return refused_alone(subject, [*own, *self._rows_elsewhere()])

        calls = [member.call for member in spec.members]
        return Standing(
            subject.where,
            elsewhere if spec.repeatable else tuple,  # a call that goes well would change the model
            members={call.name: (call.signature.name, call.where) for call in calls},
            trusted=spec.rejected or self._isolated,
            model=spec.url,
            signature=spec.signature.name,
        )

    def _rows_elsewhere(self) -> list[pa.RecordBatch]:
        pieces = (piece for piece in self._spec.elsewhere if piece != self._spec.sample)
        found = (self._sample_rows(piece, DISTINCT_ROWS) for piece in pieces)
        return [rows for rows in found if rows is not None]

    def _warmed_up(self) -> WarmUp:
        spec, folder = self._spec, Path(self._models[0].path)
        sizes, compiles = spec.batch_sizes, spec.compiles
        return warm_up(self._engine, spec.binding, spec.signature, self._sample, sizes, folder, compiles)

    def _shared(self, reading: Reading, readers: int, calls: int) -> Bench:
        spec = self._spec
        return Bench(
            spec=spec,
            worker=self.name,
            output=OutputDirectory(spec.output, spec.plan_id, spec.shards),
            reading=reading,
            readers=readers,
            room=threading.Semaphore(row_groups_ahead(readers)),
            calls=calls,
            gauge=self._gauge,
            headroom=self._headroom,
            to_read=Line(),
            to_compute=Line(),
            call=self._call,
            look=self._look,
            beat=self._beat,
            observe=lambda *batch: self.observe(*batch),
            compiled=lambda: self._counting.seconds_here if self._counting is not None else 0.0,
            decoded=lambda: self._engine.seconds_here if isinstance(self._engine, PicturesEngine) else 0.0,
            numerics=self._numerics,
            standing=self._standing,
            compare=self._compare,
        )

    @property
    def _counting(self) -> CountedEngine | SeveralEngine | None:
        """What knows how often XLA compiled; None where nothing does."""
        engine = self._engine.model if isinstance(self._engine, PicturesEngine) else self._engine
        return engine if isinstance(engine, CountedEngine | SeveralEngine) else None

    def _compare(self, *call: Any) -> None:
        """See `runner.batch.bisection.Steps`."""
        if self._comparison is not None:
            self._comparison(*call)
        if self._spot_check is not None:
            self._spot_check(*call)

    def _checked(self) -> SpotCheck | None:
        """What looks whether answers stay with their rows, where a call more changes nothing."""
        spec = self._spec
        alone = self._isolated or not spec.repeatable or spec.draws or max(spec.batch_rows, spec.most_batch_rows) == 1
        subject = f"signature {spec.signature.name!r} of model '{spec.url}'"
        return None if alone else SpotCheck(self._call, spec.binding, subject)

    def _numerics(self) -> Numerics:
        """raises: CapacityError where bits count, and an isolated worker's would be others."""
        engine = self._engine
        if not isinstance(engine, IsolatedEngine):
            return self._own_numerics
        if self._spec.limits.reproducible:
            self._require_like_the_first(engine.numerics)
        return engine.numerics

    def _require_like_the_first(self, own: Numerics) -> None:
        """raises: CapacityError where this worker, or its machine, is not like the first one of the plan."""
        found = unlike(self._bench.output.first_numerics(own), own)
        if not found:
            return
        cpus = "; `workers.cpus` decides the threads" if any(story.startswith("threads:") for story in found) else ""
        raise CapacityError(
            f"worker {self.name} would not write the bits of the first worker of this output, as `limits.reproducible`"
            f" asks: {'; '.join(found)}{cpus}; run it on machines of that kind, or begin anew with --overwrite"
        )

    def _call(self, feeds: Feeds) -> Outputs:
        if self._isolated:
            self._in_hand.count_call()
        try:
            return self._engine.run(feeds, self._spec.binding.fetches)
        except DeviceError as error:
            self._health.note(error)  # before the next attempt has its turn
            raise
        except PicturesError as error:  # the rows to blame are known: none has to be searched for
            at, stories = np.array(error.facts["at"], np.int64), error.facts["stories"]
            raise RowError.of(error.message, at, stories, code=error.facts["code"]) from error

    def _reported(self, receipt: Receipt, seconds: Mapping[str, float]) -> Success:
        """The receipt, with what the driver is to know of this process."""
        compiled = self._counting.figures() if self._counting is not None else {}
        most = self._headroom.most_rows or self._spec.most_rows
        said = compiled | ({"most_rows": most} if most else {})
        measured = Measured(dict(seconds), self._gauge.figures() | said)
        return Success(receipt, measured, Advice(self._headroom.limits, self._health.after_shard()))

    def _leave(self, number: int) -> None:
        """Let the next attempt read and compute, whether this one came so far or not."""
        self._bench.to_read.leave(number)
        self._bench.to_compute.leave(number)

    def _look(self) -> None:
        if self._stop.is_set():
            raise StoppedError(f"worker {self.name} was stopped")

    def _beat(self, number: int, attempt: Attempt, rows: int) -> None:
        if self._stop.is_set():
            raise StoppedError(f"shard {attempt.shard} was stopped on worker {self.name} before it was done")
        self._health.look()
        self._in_hand.count(number, rows)


def _loaded_here(spec: WorkerSpec, path: str, options: engine.EngineOptions) -> engine.Engine:
    plain = dataclasses.replace(options, pictures={})
    loaded = engine.load(spec.engine, path, spec.tags, spec.signature, plain)
    if spec.compiles and not options.members:
        loaded = CountedEngine(loaded, spec.deciders)
    return PicturesEngine(loaded, options) if options.pictures else loaded


def _as_ours(error: Exception, shard: int, worker: str) -> RunnerError:
    if isinstance(error, RunnerError):
        return error
    if isinstance(error, (MemoryError, pa.ArrowMemoryError)):
        return MemoryLimitError(f"shard {shard} did not fit into the memory of worker {worker}: {error}")
    if (refused := out_of_threads(error)) is not None:
        return refused
    if isinstance(error, OSError):  # the spool's disk, most likely
        full = no_room(f"go on with shard {shard} in", scratch_home(), error)
        return full or StorageError(f"shard {shard} failed on worker {worker}: {error}")
    where = traceback.extract_tb(error.__traceback__)[-1]
    return InternalError(
        f"shard {shard} failed on worker {worker} in an unforeseen way:"
        f" {type(error).__name__}: {error} ({where.filename}:{where.lineno}); please report it",
        traceback="".join(traceback.format_exception(error)),
    )
