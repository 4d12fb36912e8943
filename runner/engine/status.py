"""What every engine does around a call: complete the feeds, and turn TensorFlow's status into an error of ours.

Knows TensorFlow's status codes and the look of its messages, not its library. The invariant: what passes
`complete_feeds` has every input of the signature, in the memory layout that the engines rely on.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.errors import DeviceError, InternalError, MemoryLimitError, ModelCallError, ModelError, RunnerError, one_of
from runner.model.saved_model import Signature, TensorSpec
from runner.tensor import DTYPES, Feeds, Strings, Tensor

# The status codes of TensorFlow (tsl/c/tsl_status.h), which are those of gRPC.
CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

# What says nothing about the values that were fed: the same batch may go well in another process.
_OF_THE_DEVICE = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNAVAILABLE"})

_MESSAGE_LINES, _MESSAGE_LETTERS = 2, 400
_GRAPH_NODES = re.compile(r"\[?\[?\{\{[^{}]*\}\}\]?\]?")  # {{function_node f}} before, [[{{node n}}]] behind the reason
_ASSERTION = re.compile(r"(assertion failed: \[[^\]]*\]).*", re.DOTALL)  # the first text; tensor contents follow it
_UNKNOWN_OP = re.compile(r"Op type not registered '([^']+)'")
# What XLA says when it cannot compile: a list of ops, or that a shape is not known before the call.
_XLA_UNSUPPORTED = re.compile(r"unsupported operations .*? on XLA_\w+: (.+?) \(No registered")
_XLA_SIGNS = ("tf2xla conversion failed", "on XLA_CPU_JIT", "on XLA_GPU_JIT", "must be a compile-time constant")
_TRACE = re.compile(r"Errors may have originated from|Detected at node|Original stack trace")


class StatusError(Exception):
    """TensorFlow answered with another status than OK. Stays inside the engines."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = CODES[code] if 0 <= code < len(CODES) else "UNKNOWN"
        self.message = message
        self.reason = shorten(message)


def shorten(message: str) -> str:
    """The reason in a message of TensorFlow: without graph nodes, stack traces and printed tensors, on one line."""
    text = _TRACE.split(message)[0]
    text = _ASSERTION.sub(r"\1", _GRAPH_NODES.sub("", text))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    reason = " ".join([line for line in lines if line][:_MESSAGE_LINES])
    return reason if len(reason) <= _MESSAGE_LETTERS else reason[: _MESSAGE_LETTERS - 3] + "..."


def call_error(error: StatusError, signature: Signature, path: str) -> RunnerError:
    """The error of a call that TensorFlow refused."""
    where = f"{signature.name!r} of model {path!r}"
    if any(sign in error.message for sign in _XLA_SIGNS):
        unsupported = _XLA_UNSUPPORTED.search(error.message)
        found = f"it does not know {unsupported[1]}" if unsupported else error.reason
        return ModelError(
            f"cannot compile signature {where} with XLA: {found}; run it without: `model: {{xla: false}}`"
        )
    if error.code == "RESOURCE_EXHAUSTED":
        return MemoryLimitError(f"memory ran out in signature {where}: {error.reason}", code=error.code)
    kind = DeviceError if error.code in _OF_THE_DEVICE else ModelCallError
    return kind(f"cannot call signature {where}: {error.code}: {error.reason}", code=error.code)


def load_error(reason: str, path: str, tags: Sequence[str]) -> ModelError:
    unknown = _UNKNOWN_OP.search(reason)
    if unknown:
        return ModelError(
            f"cannot load model {path!r}: this TensorFlow does not know its op {unknown[1]!r}; name the library that"
            " registers it, in the job: `model: {op_libraries: [/path/of/ops.so]}`",
            op=unknown[1],
        )
    return ModelError(f"cannot load model {path!r} with tags {', '.join(map(repr, tags)) or 'none'}: {reason}")


def checked_library(path: str, sha256: str) -> str:
    """The path of a library of ops. raises: ModelError if it is not there, or not the one that was planned."""
    try:
        with Path(path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise library_error(path, error.strerror or str(error)) from error
    if found != sha256:
        raise library_error(path, f"it is another one here (SHA-256 {found[:12]}, planned {sha256[:12]})")
    return path


def library_error(path: str, reason: str) -> ModelError:
    return ModelError(
        f"cannot load the op library {path!r}: {reason}; expected the same file, built for this TensorFlow, on every"
        " worker"
    )


def closed_error(signature: Signature, path: str) -> InternalError:
    return InternalError(f"cannot call signature {signature.name!r} of model {path!r}: its engine is closed")


def supported(spec: TensorSpec, signature: Signature, path: str) -> TensorSpec:
    """`spec`, if the engines can carry it. raises: ModelError naming what they cannot."""
    if spec.encoding == "dense" and spec.dtype in DTYPES:
        return spec
    kind = f"{spec.encoding} encoding" if spec.encoding != "dense" else f"dtype {spec.dtype}"
    raise ModelError(
        f"cannot feed or fetch {spec.name!r} of signature {signature.name!r} in model {path!r}: "
        f"it has {kind}, which is not supported; export the signature with dense tensors"
    )


def fetched(signature: Signature, fetches: Sequence[str], path: str) -> list[TensorSpec]:
    """The outputs called `fetches`. raises: ModelCallError for an unknown name, ModelError for an unsupported one."""
    for name in fetches:
        if name not in signature.outputs:
            reason = f"it has no output {name!r}; choose from {one_of(list(signature.outputs), name)}"
            raise _refused(signature, path, reason)
    return [supported(signature.outputs[name], signature, path) for name in fetches]


def complete_feeds(signature: Signature, feeds: Feeds, path: str) -> dict[str, Tensor]:
    """Every input of the signature with its value, defaults filled in.

    returns: {input name: C-contiguous carrier array or Strings}, in the order of the signature.
    raises:  ModelCallError (`code` INVALID_ARGUMENT) for a missing or unknown input, another dtype or shape
             than the signature's, or two values for one graph tensor.
    """
    for name in feeds:
        if name not in signature.inputs:
            reason = f"it has no input {name!r}; choose from {one_of(list(signature.inputs), name)}"
            raise _refused(signature, path, reason)
    complete: dict[str, Tensor] = {}
    by_tensor: dict[str, str] = {}
    for name, spec in signature.inputs.items():
        value = feeds.get(name, spec.default)
        if value is None:
            raise _refused(signature, path, f"no value for input {name!r}, which has no default")
        twin = by_tensor.setdefault(spec.tensor, name) if spec.tensor else name
        if twin != name and not _same(complete[twin], value):
            raise _refused(signature, path, f"inputs {twin!r} and {name!r} are one tensor and were given two values")
        complete[name] = _checked(value, spec, signature, path)
    return complete


def _checked(value: Tensor, spec: TensorSpec, signature: Signature, path: str) -> Tensor:
    if not _fits(value.shape, spec):  # TensorFlow itself does not look
        reason = f"input {spec.name!r} has shape {list(spec.shape or ())}, and {list(value.shape)} was given"
        raise _refused(signature, path, reason.replace("None", "?"))
    carrier = DTYPES[spec.dtype][1]
    if isinstance(value, Strings):
        if carrier is not None:
            raise _refused(signature, path, f"input {spec.name!r} is {spec.dtype}, and strings were given")
        if len(value.values) != math.prod(value.shape):
            reason = f"input {spec.name!r} holds {len(value.values)} strings for the shape {list(value.shape)}"
            raise _refused(signature, path, reason)
        return value
    if value.dtype != carrier:
        wanted = f"{spec.dtype}, carried as {carrier or 'strings'}"
        raise _refused(signature, path, f"input {spec.name!r} is {wanted}, and {value.dtype} was given")
    return value if value.flags.c_contiguous else np.ascontiguousarray(value)


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    if spec.shape is None:
        return True
    return len(shape) == len(spec.shape) and all(
        declared in (None, given) for declared, given in zip(spec.shape, shape, strict=True)
    )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two values are one piece of memory seen the same way."""
    if isinstance(one, Strings) or isinstance(other, Strings):
        return one is other
    return one is other or (one.__array_interface__ == other.__array_interface__)


def _refused(signature: Signature, path: str, reason: str) -> ModelCallError:
    message = f"cannot call signature {signature.name!r} of model {path!r}: {reason}"
    return ModelCallError(message, code="INVALID_ARGUMENT")
