"""What every engine does with TensorFlow's status: it becomes an error of ours.

Knows the look of TensorFlow's messages, not its library; whose fault a status is, `runner.engine.fault` says. The
invariant: a ModelCallError is one that a row may have caused, and none that is the model's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.errors import (
    DeviceError,
    InternalError,
    MemoryLimitError,
    ModelCallError,
    ModelError,
    PoisonError,
    RunnerError,
)
from runner.engine.fault import CODES, fault
from runner.engine.ops.library import explained
from runner.model.signature import Signature
from runner.scan.packages import advice

_MESSAGE_LINES, _MESSAGE_LETTERS = 2, 400
_GRAPH_NODES = re.compile(r"\[?\[?\{\{[^{}]*\}\}\]?\]?")  # {{function_node f}} before, [[{{node n}}]] behind the reason
_ASSERTION = re.compile(r"(assertion failed: \[[^\]]*\]).*", re.DOTALL)  # the first text; tensor contents follow it
_NO_KERNEL = re.compile(r"No OpKernel was registered to support Op '?(\w+)")
_UNKNOWN_OP = re.compile(r"Op type not registered '([^']+)'")
# What XLA says when it cannot compile: a list of ops, or that a shape is not known before the call.
_XLA_UNSUPPORTED = re.compile(r"unsupported operations .*? on XLA_\w+: (.+?) \(No registered")
_XLA_SIGNS = ("tf2xla conversion failed", "on XLA_CPU_JIT", "on XLA_GPU_JIT", "must be a compile-time constant")
_XLA_NEVER = ("unsupported operations", "must be a compile-time constant")  # whatever the values are
RUN_WITHOUT = "run it without: `model: {xla: false}`"
MODEL_FAULT = "MODEL_FAULT"
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
    line = fault(error.code, error.message)
    if line.whose == "machine":
        return MemoryLimitError(f"memory ran out in signature {where}: {error.reason}", code=error.code)
    if line.whose == "model":
        kernel = _NO_KERNEL.search(error.message)
        reason = f"this TensorFlow has no kernel of its op {kernel[1]!r} here" if kernel else error.reason
        return model_fault(
            f"cannot run signature {where}: {error.code}: {reason}",
            f"no row would change that; {line.advice}",
            status=error.code,
            model=path,
            signature=signature.name,
            **({"op": kernel[1]} if kernel else {}),
        )
    kind = DeviceError if line.whose == "device" else ModelCallError
    return kind(f"cannot call signature {where}: {error.code}: {error.reason}", code=error.code)


def model_fault(what: str, then: str, **facts: Any) -> PoisonError:
    """The model, and no row, is at fault: found in a call, before any row is set aside for it.

    facts: `status`, of TensorFlow; `model`, `signature`.
    """
    return PoisonError(f"{what}; {then}", code=MODEL_FAULT, **facts)


def load_error(reason: str, path: str, tags: Sequence[str], code: str = "", message: str = "") -> RunnerError:
    """code, message: of TensorFlow, where it gave a status; else it is the model's fault."""
    unknown = _UNKNOWN_OP.search(reason)
    if unknown and (held := advice([unknown[1]])):
        return ModelError(f"cannot load model {path!r}: {held[0]}", op=unknown[1])
    if unknown:
        return ModelError(
            f"cannot load model {path!r}: this TensorFlow does not know its op {unknown[1]!r}; name the library that"
            " registers it, in the job: `model: {op_libraries: [/path/of/ops.so]}`",
            op=unknown[1],
        )
    story = f"cannot load model {path!r} with tags {', '.join(map(repr, tags)) or 'none'}: {reason}"
    whose = fault(code, message or reason).whose if code else "model"
    if whose == "machine":
        return MemoryLimitError(story, code=code)
    return DeviceError(story, code=code) if whose == "device" else ModelError(story)


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
