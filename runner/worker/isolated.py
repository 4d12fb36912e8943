"""Process isolation: the model runs in a child process, so that a row that ends, hangs or floods it is known.

An isolated worker loads no TensorFlow. For all other code it is an engine: a call that the child does not survive is a
ModelCallError with the code `process_abort`, `timeout` or `oom`, and `runner.batch.bisection` finds the rows as it
does for any other call that fails. The invariant: a row is condemned only alone, in a process of its own, after the
whole patience of the job.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from connectors.failpoint import failpoint
from connectors.store.store import Store
from connectors.tables.source import source_of
from jobs.attempt import InputSlice
from jobs.errors import DataError, MemoryLimitError, ModelCallError, ModelError, PoisonError, RunnerError
from jobs.numerics import UNKNOWN, Numerics
from runner.binding.constant import ConstantSource
from runner.engine import Engine, EngineOptions
from runner.engine.status import LACKS_STATE, RUN_EAGER
from runner.tensor import Feeds, Outputs, Strings
from runner.worker.child import Child, ChildEnded
from runner.worker.room import address_space_bytes, available_bytes, mebibytes
from runner.worker.trial.sample import DISTINCT_ROWS, Sample

if TYPE_CHECKING:
    from runner.worker.spec import WorkerSpec

# Several rows that hang are only cut in two, so their patience may be short: the final word needs the whole of it.
_PATIENCE_S, _SLOWER = 10.0, 10.0
_HOPELESS = 20  # rows that ended a process, one after another, and none that did not: it is not the rows
_SHARE = 0.8  # of the memory that is free, for a child without a limit of its own
_OTHER_ENGINE_S, _FEW_TRIES = 300.0, 3  # to load the model with the other engine, and to answer a row; of so many
_FEW_ROWS = 256  # of a first call: enough to meet the kernels of a whole batch


class IsolatedEngine:
    """See `runner.engine.Engine`. The first call starts the child, and so does each after one that it did not survive.

    path:   of the model on this machine.
    memory: bytes that the child may hold; None: most of what is free.
    """

    def __init__(self, spec: WorkerSpec, path: str, options: EngineOptions, memory: int | None) -> None:
        self.devices: tuple[str, ...] = ()
        self.numerics = UNKNOWN  # of the children, once there was one
        self._spec, self._path, self._options, self._memory = spec, path, options, memory
        self._child: Child | None = None
        self._longest = 0.0  # seconds of a call that went well; 0: there was none
        self._deaths = 0
        self._patience_s = spec.limits.stall_s
        fed = [bound.name for bound in spec.binding.inputs if bound.source is not None]
        constant = {bound.name for bound in spec.binding.inputs if isinstance(bound.source, ConstantSource)}
        self._rows_of = next(name for name in fed if name not in constant)

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        spec = self._spec
        alone, fixed = self._alone(feeds), spec.binding.batch_rows is not None
        began = time.monotonic()
        try:
            self._child = self._child or self._start()
            outputs: Outputs = self._child.ask((dict(feeds), tuple(fetches)), self._patience(alone))
        except ChildEnded as ended:
            self._child = None
            self._count(alone, ended)
            what = "this row alone" if alone else "these rows"
            story = f"a process that ran the model on {what} {ended.story}"
            if ended.how == "oom" and spec.limits.reproducible:  # a row is not bad because this machine is small
                raise MemoryLimitError(story) from None
            raise ModelCallError(story, code=ended.how) from None
        except RunnerError as error:
            if not error.replaces_worker:
                raise
            self.close()  # what it says is believed of a fresh process only
            if not error.breaks_device and (spec.limits.reproducible or not (alone or fixed)):
                raise
            code = "UNKNOWN" if error.breaks_device else "oom"
            raise ModelCallError(error.message, code=code) from error
        self._longest = max(self._longest, time.monotonic() - began)
        return outputs

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return {}

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _start(self) -> Child:
        spec = self._spec
        memory = self._memory if self._memory is not None else int(_SHARE * available_bytes()) or None
        model = (spec.engine, self._path, spec.tags, spec.signature, self._options)
        child = Child("runner.worker.isolated:load_model", model, memory)
        self.numerics = child.ask(None, self._patience_s)
        return child

    def _alone(self, feeds: Feeds) -> bool:
        """Whether this is one row, or one row that fills a batch of fixed size."""
        tensor = feeds[self._rows_of]
        rows = tensor.shape[0]
        if self._spec.binding.batch_rows is None or rows == 1:
            return rows == 1
        if isinstance(tensor, Strings):
            width = len(tensor.values) // rows
            return bool(tensor.values[width:].equals(tensor.values[:-width]))
        return tensor[1:].tobytes() == tensor[:-1].tobytes()

    def _patience(self, alone: bool) -> float:
        if alone or not self._longest:
            return self._patience_s
        return min(self._patience_s, max(_PATIENCE_S, _SLOWER * self._longest))

    def _count(self, alone: bool, ended: ChildEnded) -> None:
        self._deaths += alone
        if not self._longest and self._deaths >= _HOPELESS:
            raise PoisonError(
                f"the model survived none of {self._deaths} rows that it was given one by one: it is the model, or the"
                f" machine, and not the rows; the last {_story(ended)}; try the model by hand",
                attempts=self._deaths,
            )


def load_model(model: tuple[Any, ...]) -> Callable[[tuple[Feeds, Sequence[str]] | None], Outputs | Numerics]:
    """In the child. A call that is None asks for the numerics of this process."""
    failpoint("W1.child")
    from runner import engine
    from runner.engine.numerics import numerics

    loaded: Engine = engine.load(*model)
    own = numerics(model[-1], loaded.devices)
    return lambda call: own if call is None else loaded.run(*call)


def survive_first_calls(
    spec: WorkerSpec, path: str, options: EngineOptions, memory: int | None, sample: Sample, risks: Sequence[str]
) -> None:
    """Load the model and call it with a few rows in a process that may die of it, as this one would have to.

    risks:  see `runner.engine.risk`.
    raises: PoisonError where that process died. Whatever else is wrong shows when this one does the same.
    cost:   the model is loaded twice, one after the other.
    """
    most = min(spec.batch_rows, _FEW_ROWS) if sample.kind != "none" and spec.repeatable else 0
    try:
        model = (spec.engine, path, spec.tags, spec.signature, options)
        child = Child("runner.worker.isolated:load_model", model, memory, start_s=spec.limits.stall_s)
        try:
            for rows in sorted({*range(1, DISTINCT_ROWS + 1), most}) if most else ():
                child.ask((dict(sample.feeds(range(rows))), spec.binding.fetches), spec.limits.stall_s)
        finally:
            child.close()
    except ChildEnded as ended:
        if ended.how == "process_abort":
            raise PoisonError(
                f"cannot run signature {spec.signature.name!r} of model '{spec.url}' here: a process that loaded"
                f" it and called it with a few rows {_story(ended)}; suspected: {' together with '.join(risks)}; try"
                " without"
            ) from None
    except RunnerError:
        pass


def tried_eagerly(
    error: ModelError, spec: WorkerSpec, path: str, options: EngineOptions, memory: int | None, sample: Sample
) -> ModelError:
    """`error` of a session that lacks a variable or a table, with what the other engine does with the same rows.

    memory: bytes that the process of the other engine may hold; None: most of what is free.
    cost:   the model is loaded once more, in a process that imports TensorFlow.
    """
    if error.facts.get("code") != LACKS_STATE or spec.engine != "session":
        return error
    patience_s = min(spec.limits.stall_s, _OTHER_ENGINE_S)
    memory = memory if memory is not None else int(_SHARE * available_bytes()) or None
    session, refused = error.message.partition(f"; {RUN_EAGER}")[0], "there is no row to try it on"
    try:
        model = ("eager", path, spec.tags, spec.signature, options)
        child = Child("runner.worker.isolated:load_model", model, memory, start_s=patience_s)
        try:
            for row in islice(sample.distinct(), _FEW_TRIES):
                try:
                    child.ask((dict(sample.feeds([row])), spec.binding.fetches), patience_s)
                except RunnerError as other:
                    refused = other.message
                else:
                    tried = "tried with a row in a process of its own, it answers"
                    return ModelError(f"{session}; {RUN_EAGER}: {tried}", **error.facts)
        finally:
            child.close()
    except ChildEnded as ended:
        refused = f"a process that tried it {_story(ended)}"
    except RunnerError as other:
        refused = other.message
    return ModelError(
        f"{session}; engine 'eager' was tried, and does not run it either: {refused}; export the model again",
        **error.facts,
    )


def _story(ended: ChildEnded) -> str:
    return f"{ended.story} and said: {ended.words}" if ended.words else ended.story


def survive_decoding(spec: WorkerSpec, piece: InputSlice, row_group: int) -> None:
    """Decode a row group in a process that may die of it.

    raises: DataError PAGE_CORRUPT where it did; MemoryLimitError where bits count and this machine has too little
            memory for it: another one would have the rows. What else is wrong shows when it is decoded for the shard.
    """
    most = min(spec.limits.max_row_group_bytes, available_bytes() // 2 or spec.limits.max_row_group_bytes)
    where = (spec.input, piece, row_group, tuple(spec.input_schema.names))
    try:
        child = Child("runner.worker.isolated:decoder", most)
        try:
            failed = child.ask(where, spec.limits.stall_s)
            memory = bool(failed) and most < spec.limits.max_row_group_bytes
        finally:
            child.close()
    except ChildEnded as ended:
        failed, memory = f"a process that decoded it {ended.story}", ended.how == "oom"
    if memory and spec.limits.reproducible:
        raise MemoryLimitError(
            f"cannot read '{piece.url}' row group {row_group}: {failed}; give each worker more memory"
        )
    if failed:
        raise DataError(
            f"cannot read '{piece.url}' row group {row_group}: {failed}",
            code="PAGE_CORRUPT",
            file=piece.url,
            row_group=row_group,
        )


def decoder(most: int) -> Callable[[tuple[Any, ...]], str]:
    """In the child: decode within `most` bytes more than it has. Its answer: why that failed for want of memory."""
    import pyarrow as pa

    def decode(where: tuple[Any, ...]) -> str:
        input, piece, row_group, columns = where
        try:
            with source_of(input).open(Store(input.url[0], input.options), piece, columns) as reader:
                reader.read(row_group)
        except (MemoryError, pa.ArrowMemoryError, MemoryLimitError):
            return f"it needs more than {mebibytes(most)} when decoded"
        except Exception:  # it shows again when the row group is decoded for the shard
            pass
        return ""

    pa.set_memory_pool(pa.system_memory_pool())  # the others reserve far more address space than they use
    if taken := address_space_bytes():
        resource.setrlimit(resource.RLIMIT_AS, (taken + most, taken + most))
    return decode
