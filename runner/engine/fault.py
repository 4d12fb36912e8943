"""Whose fault a status of TensorFlow is: a row's, the model's, the device's or the machine's. Data, in one table.

Knows the status codes, and the words of those that say too little; refuses to know what becomes of a fault. The
invariant: the first line that fits speaks, and there is one for every code. That a row *may* be at fault is all that
its code says: `runner.batch.standing` weighs whether it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Whose = Literal["row", "model", "device", "machine"]

# The status codes of TensorFlow (tsl/c/tsl_status.h), which are those of gRPC.
CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

_EXPORT = "export the model again, for the TensorFlow that is installed"
_ELSEWHERE = f"{_EXPORT}, or run on workers with the device it wants"
# The words of the operating system behind the name of a file: where an op opens files, a row names them.
_OF_A_FILE = (
    r"; (No such file or directory|Is a directory|Not a directory|Permission denied|File name too long"
    r"|Input/output error)\b"
)


@dataclass(frozen=True, slots=True)
class Line:
    """code: "" for any. words: a pattern in the message; "": whatever it says. whose: may be at fault.

    of:     an op of TensorFlow 2.21 that was seen to answer so; "": none is known on a CPU.
    advice: what to do about a model's fault.
    """

    code: str
    words: str
    whose: Whose
    of: str = ""
    advice: str = _EXPORT


FAULTS = (
    # What a code alone does not tell.
    Line("INVALID_ARGUMENT", r"No OpKernel was registered", "model", "CudnnRNN on a CPU", _ELSEWHERE),
    Line(
        *("INVALID_ARGUMENT", r"You must feed a value for placeholder", "model", "Placeholder"),
        "export a signature that has this placeholder as an input, or gives it a default",
    ),
    Line("INVALID_ARGUMENT", r"Cannot deserialize computation|Module has dynamic shapes", "model", "XlaCallModule"),
    Line("INVALID_ARGUMENT", r"XlaCallModuleOp with version \d+", "model", "XlaCallModule, of a newer exporter"),
    Line(
        *("INVALID_ARGUMENT", r"Could not find callback with key", "model", "PyFuncStateless"),
        "export the model without Python functions (`tf.py_function`, `tf.numpy_function`): they stay in the process",
    ),
    Line("UNIMPLEMENTED", r"File system scheme '", "row", "ReadFile, of 'foo://x'"),
    Line("", _OF_A_FILE, "row", "ReadFile, of a name that a row holds"),
    # And each code.
    Line("INVALID_ARGUMENT", "", "row", "DecodeImage, ParseExampleV2, GatherV2, Assert, Reshape"),
    Line("OUT_OF_RANGE", "", "row", "CropAndResize, of a box that is none"),
    Line("DATA_LOSS", "", "row", "DecodeCompressed, DecodeProtoV2"),
    Line("UNKNOWN", "", "row"),  # says nothing at all: nobody is accused but by what other rows do
    Line("NOT_FOUND", "", "model", "XlaCallModule, compiled for another platform", _ELSEWHERE),
    Line("UNIMPLEMENTED", "", "model", "MaxPoolV2, over rows", _ELSEWHERE),
    Line("FAILED_PRECONDITION", "", "model", "LookupTableImportV2, of a key that has another value"),
    Line("ALREADY_EXISTS", "", "model"),
    Line("PERMISSION_DENIED", "", "model"),
    Line("UNAUTHENTICATED", "", "model"),
    Line("CANCELLED", "", "device", "QueueEnqueueV2, of a queue that is closed"),
    Line("INTERNAL", "", "device"),
    Line("ABORTED", "", "device"),
    Line("UNAVAILABLE", "", "device"),
    Line("DEADLINE_EXCEEDED", "", "device"),
    Line("RESOURCE_EXHAUSTED", "", "machine", "Fill, of more than there is"),
)


def fault(code: str, message: str) -> Line:
    """The line of the table that speaks for a status. message: as TensorFlow wrote it."""
    for line in FAULTS:
        if line.code in ("", code) and re.search(line.words, message):
            return line
    return fault("UNKNOWN", "")
