"""What every engine does around a call: complete the feeds, and turn TensorFlow's status into an error of ours.

Knows TensorFlow's status codes and the look of its messages, not its library. The invariant: what passes
`complete_feeds` has every input of the signature, in the memory layout that the engines rely on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import DeviceError, InternalError, MemoryLimitError, ModelCallError, ModelError, RunnerError
from runner.engine.op_library import explained
from runner.model.signature import Signature
from runner.scan.packages import advice

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
_XLA_NEVER = ("unsupported operations", "must be a compile-time constant")  # whatever the values are
RUN_WITHOUT = "run it without: `model: {xla: false}`"
LACKS_STATE, RUN_EAGER = "MODEL_STATE", "run it with `model: {engine: eager}`"
_GUESSES = re.compile(r"\. This could mean that the variable has been deleted\..*", re.DOTALL)  # and debug information
_TRACE = re.compile(
    r"Stack trace for op definition|Errors may have originated from|Detected at node|Original stack trace"
)


class StatusError(Exception):
    """TensorFlow answered with another status than OK. Stays inside the engines."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = CODES[code] if 0 <= code < len(CODES) else "UNKNOWN"
        self.message = message
        self.reason = shorten(message)


def shorten(message: str) -> str:
    """The reason in a message of TensorFlow: without graph nodes, stack traces and printed tensors, on one line."""
    text = _GUESSES.sub("", _TRACE.split(message)[0])
    text = _ASSERTION.sub(r"\1", _GRAPH_NODES.sub("", text))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    reason = " ".join([line for line in lines if line][:_MESSAGE_LINES])
    return reason if len(reason) <= _MESSAGE_LETTERS else reason[: _MESSAGE_LETTERS - 3] + "..."


def call_error(error: StatusError, signature: Signature, path: str) -> RunnerError:
    """The error of a call that TensorFlow refused."""
    where = f"{signature.name!r} of model {path!r}"
    if any(sign in error.message for sign in _XLA_SIGNS):
        unsupported = _XLA_UNSUPPORTED.search(error.message)
        reason = f"it does not know {unsupported[1]}" if unsupported else error.reason
        message = f"cannot compile signature {where} with XLA: {reason}"
        if error.code == "INVALID_ARGUMENT" and not any(sign in error.message for sign in _XLA_NEVER):
            # Shapes are made of values, and what XLA looks at while it compiles may be wrong with those of one row.
            return ModelCallError(message, code=error.code, compiling=1)
        return ModelError(f"{message}; {RUN_WITHOUT}")
    if error.code == "RESOURCE_EXHAUSTED":
        return MemoryLimitError(f"memory ran out in signature {where}: {error.reason}", code=error.code)
    kind = DeviceError if error.code in _OF_THE_DEVICE else ModelCallError
    return kind(f"cannot call signature {where}: {error.code}: {error.reason}", code=error.code)


def load_error(reason: str, path: str, tags: Sequence[str]) -> ModelError:
    unknown = _UNKNOWN_OP.search(reason)
    if unknown and (held := advice([unknown[1]])):
        return ModelError(f"cannot load model {path!r}: {held[0]}", op=unknown[1])
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
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise library_error(path, error.strerror or str(error)) from error
    if digest != sha256:
        raise library_error(path, f"it is another one here (SHA-256 {digest[:12]}, planned {sha256[:12]})")
    return path


def library_error(path: str, reason: str) -> ModelError:
    """reason: as it was said, however long."""
    why = explained(path, reason) or shorten(reason)
    return ModelError(
        f"cannot load the op library {path!r}: {why}; expected the same file, built for this TensorFlow, on every"
        " worker"
    )


def closed_error(signature: Signature, path: str) -> InternalError:
    return InternalError(f"cannot call signature {signature.name!r} of model {path!r}: its engine is closed")
