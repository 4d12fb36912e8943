"""The Worker: one loaded model, one attempt at a time. `Worker.run` is the whole path of a row group.

Knows nothing of Ray, of other workers or of retries. The invariant: an attempt either publishes exactly the
rows of its shard, or leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import threading
import traceback
from collections.abc import Generator
from dataclasses import dataclass

import pyarrow as pa

from connectors import SOURCES, load_class
from connectors.failpoint import failpoint
from connectors.output import OutputDirectory
from connectors.schema import conform
from connectors.store import Store
from jobs.attempt import Attempt, Failure, Receipt
from jobs.errors import DataError, InternalError, MemoryLimitError, ModelError, RunnerError, StoppedError, StorageError
from jobs.job import Input, Output
from runner import engine
from runner.batches import Where, batches
from runner.binding import Binding
from runner.saved_model import Signature, read_model
from runner.stage import StageClock
from runner.stream import ReadAhead, WriteBehind

# Row groups decoded and batches encoded ahead: one in use, one waiting. More is memory without speed, because a
# stage that is behind on average stays behind.
_AHEAD_ROW_GROUPS = 1
_BEHIND_BATCHES = 2


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker must know, beside its device. Small and picklable; carries no secrets, only references."""

    model_path: str
    model_digest: str
    tags: tuple[str, ...]
    signature: Signature
    engine: str
    input: Input  # format resolved
    input_schema: pa.Schema  # of the columns that are read, over all files
    binding: Binding
    batch_rows: int
    output: Output
    plan_id: str
    shards: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows done in the attempt that is running; attempt "" while there is none."""

    attempt: str = ""
    rows: int = 0


class Worker:
    def __init__(self, spec: WorkerSpec, name: str, options: engine.EngineOptions) -> None:
        """Load the model. raises: ModelError if it cannot be loaded, or is no longer the one that was planned."""
        self.name = name
        self.progress = Progress()
        self._stop = threading.Event()
        self._spec = spec
        self._source = load_class(SOURCES, spec.input.format or "")()
        self._store = Store(spec.input.url[0], spec.input.options)
        self._output = OutputDirectory(spec.output, spec.plan_id, spec.shards)
        pa.set_cpu_count(options.threads)  # beside the session's threads, so that workers of one machine do not fight
        found = read_model(spec.model_path).digest
        if found != spec.model_digest:
            raise ModelError(
                f"cannot use model '{spec.model_path}': its files changed since the plan was made"
                f" (digest {found[:12]}, planned {spec.model_digest[:12]}); restore it, or run again with a new output"
            )
        failpoint("W1.load")
        self._engine = engine.load(spec.engine, spec.model_path, spec.tags, spec.signature, options)
        self.devices = self._engine.devices

    def run(self, attempt: Attempt) -> Receipt:
        """Read, feed, run, fetch and write one shard, and publish its part.

        raises: any RunnerError; then nothing is visible at the final name unless another attempt put it there.
        """
        clock, binding = StageClock(), self._spec.binding
        part = self._output.open_part(attempt, binding.output_schema, self._spec.model_digest, self.name)

        def encode(rows: pa.RecordBatch) -> None:
            failpoint("W3.encode")
            with clock("encode"):
                part.write(rows)

        with (
            part,
            ReadAhead(self._read(attempt, clock), _AHEAD_ROW_GROUPS) as row_groups,
            WriteBehind(encode, _BEHIND_BATCHES) as writer,
        ):
            cut = batches(row_groups, self._spec.batch_rows, exact=binding.batch_rows is not None)
            for where, batch in clock.each("wait_read", cut):
                self._heartbeat(attempt, batch.num_rows)
                failpoint("W3.run")
                try:
                    with clock("feed"):
                        feeds = binding.feed(batch)
                    with clock("run"):
                        outputs = self._engine.run(feeds, binding.fetches)
                    with clock("fetch"):
                        rows = binding.fetch(batch, outputs)
                except DataError as error:
                    raise _located(error, where) from error
                with clock("wait_write"):
                    writer.put(rows)
            with clock("wait_write"):
                writer.flush()
            with clock("publish"):
                receipt = part.publish(clock.seconds)
        return dataclasses.replace(receipt, seconds=dict(clock.seconds))

    def attempt(self, attempt: Attempt) -> Receipt | Failure:
        """`run` behind the boundary of the worker: whatever goes wrong comes back as a Failure."""
        self.progress = Progress(attempt.id)
        try:
            return self.run(attempt)
        except RunnerError as error:
            failed: RunnerError = error
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
            self.progress = Progress()
        return Failure(attempt.shard, attempt.id, attempt.number, self.name, failed)

    def stop(self) -> None:
        """End the running attempt before its next batch."""
        self._stop.set()

    def close(self) -> None:
        self._engine.close()

    def _read(self, attempt: Attempt, clock: StageClock) -> Generator[tuple[Where, pa.Table], None, None]:
        columns = self._spec.binding.columns
        for piece in attempt.inputs:
            with self._source.open(self._store, piece, columns) as reader:
                for row_group in range(piece.first, piece.first + len(piece.rows)):
                    failpoint("W3.fetch")
                    with clock("read"):
                        table = conform(reader.read(row_group), self._spec.input_schema, piece.url)
                    yield Where(piece.url, row_group, 0), table
                    del table  # the reader's hold on it ends here, one row group before the next is decoded

    def _heartbeat(self, attempt: Attempt, rows: int) -> None:
        if self._stop.is_set():
            raise StoppedError(f"shard {attempt.shard} was stopped on worker {self.name} before it was done")
        self.progress = Progress(attempt.id, self.progress.rows + rows)


def _located(error: DataError, where: Where) -> DataError:
    """The same error with the file, the row group and the row counted within it."""
    facts = dict(error.facts)
    place = f"'{where.file}' row group {where.row_group}"
    if "row" in facts:
        facts["row"] += where.first_row
        place += f" row {facts['row']}"
    return DataError(f"{error.message} [{place}]", **facts, file=where.file, row_group=where.row_group)
