"""Warm-up: calls whose answers are dropped, so that the first rows of the job do not wait for what a model does once.

The requests that the model brings along (`assets.extra/tf_serving_warmup_requests`), then the batch sizes of the job.
Refuses to judge: a call that fails is noted, and the work that follows will show whether it matters. The invariant: no
row is counted, and a model that a call would change is not called.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError

from connectors.formats.tfrecord.record import CutError, unchecked
from jobs.errors import RunnerError
from runner.binding.binding import Binding
from runner.engine import Engine
from runner.model import tensor_proto
from runner.model.signature import DEFAULT_SIGNATURE, Signature
from runner.proto.runtime_pb2 import InputLog, PredictionLog
from runner.tensor import DTYPE_NAMES, Feeds, Strings
from runner.worker.trial.sample import DISTINCT_ROWS, Sample

REQUESTS = "assets.extra/tf_serving_warmup_requests"  # the name that TensorFlow Serving looks for
_MOST_REQUESTS = 1000  # as TensorFlow Serving
_MOST_BYTES = 2**31  # of one request: a protobuf message cannot be larger
_BUDGET_S = 60.0  # after so long no further call begins
# On a CPU without XLA little is made per batch size: a call is worth it only while it is short.
_CPU_CALL_S = 0.5
_STEP_ROWS = 256  # enough that a row's share of a call is its own time


@dataclass(frozen=True, slots=True)
class WarmUp:
    """seconds: all of it. requests: calls from the model's own file. calls: with batches of the job's sizes.
    rows: what these were made of ('input', 'made up', 'none'). note: what went wrong first."""

    seconds: float = 0.0
    requests: int = 0
    calls: int = 0
    rows: str = "none"
    note: str = ""

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def warm_up(
    engine: Engine,
    binding: Binding,
    signature: Signature,
    sample: Sample,
    sizes: Sequence[int],
    folder: Path,
    compiles: bool,
) -> WarmUp:
    """Call the model with everything it will meet.

    sizes:    of batches, see `batch_sizes`.
    folder:   of the model.
    compiles: every size is compiled, however long that takes.
    """
    began = time.perf_counter()
    requests, note = 0, ""
    try:
        for feeds in warm_up_requests(folder, signature):
            if time.perf_counter() - began > _BUDGET_S:
                break
            engine.run(feeds, binding.fetches)
            requests += 1
    except (RunnerError, ValueError) as error:
        note = f"the model's warm-up request {requests + 1}: {error}"
    calls = 0
    needed = compiles or binding.batch_rows is not None or any("GPU" in device for device in engine.devices)
    wanted = sorted(sizes) if sample.kind != "none" else []
    try:
        for rows in _all(wanted, began) if needed else _cheap(wanted):
            engine.run(sample.feeds(range(rows)), binding.fetches)
            calls += 1
    except RunnerError as error:
        note = note or error.message
    return WarmUp(time.perf_counter() - began, requests, calls, sample.kind if calls else "none", note)


def _all(sizes: Sequence[int], began: float) -> Iterator[int]:
    """Every size: something is made for each, or there is only one."""
    for size in sizes:
        if time.perf_counter() - began <= _BUDGET_S:
            yield size


def _cheap(sizes: Sequence[int]) -> Iterator[int]:
    """Sizes from small to large, as long as the next call can be expected to be short. The first call optimises the
    graph, whatever its size, and tells nothing of the others."""
    few = min((DISTINCT_ROWS, *sizes))
    steps = sorted({few, *(min(_STEP_ROWS, size) for size in sizes), *sizes}) if sizes else []
    yield from steps[:1]
    row_s = 0.0
    for size in steps:
        if row_s * size > _CPU_CALL_S:
            return
        start = time.perf_counter()
        yield size
        row_s = (time.perf_counter() - start) / size


def warm_up_requests(folder: Path, signature: Signature) -> Iterator[Feeds]:
    """The calls of `signature` in the model's own file of requests, a thousand at most; none where there is no file.

    raises: ValueError for what is no such file, or a request that is not of the signature.
    source: TensorFlow Serving, "SavedModel Warmup"; records as TFRecord frames them.
    """
    file = folder / REQUESTS
    if not file.is_file():
        return
    for content in islice(_records(file), _MOST_REQUESTS):
        try:
            log = PredictionLog.FromString(content)
        except DecodeError as error:
            raise ValueError(f"a record of '{REQUESTS}' is no PredictionLog") from error
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            predict = log.predict_log.request
            if _is_of(predict.model_spec.signature_name, signature):
                protos = {name: predict.inputs[name] for name in predict.inputs}
                yield {
                    name: tensor_proto.tensor(proto, DTYPE_NAMES.get(proto.dtype, str(proto.dtype)))
                    for name, proto in protos.items()
                }
        elif kind in ("classify_log", "regress_log"):
            request: InputLog = log.classify_log if kind == "classify_log" else log.regress_log
            if _is_of(request.request.model_spec.signature_name, signature) and len(signature.inputs) == 1:
                examples = list(request.request.input.example_list.examples)
                yield {next(iter(signature.inputs)): Strings(pa.array(examples, pa.large_binary()), (len(examples),))}


def _is_of(name: str, signature: Signature) -> bool:
    return (name or DEFAULT_SIGNATURE) == signature.name


def _records(path: Path) -> Iterator[bytes]:
    """The checksums are not looked at: the digest of the model covers the file."""
    try:
        with path.open("rb") as file:
            yield from unchecked(file, _MOST_BYTES)
    except CutError as error:
        raise ValueError(f"'{REQUESTS}' is no TFRecord file, or was cut off") from error
