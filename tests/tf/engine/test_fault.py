"""Whose fault a status is: each line of the table, by an op of TensorFlow that answers so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import DeviceError, MemoryLimitError, ModelCallError, ModelError, PoisonError, RunnerError
from runner.engine import EngineOptions
from runner.engine.capi import Session
from runner.engine.fault import CODES, FAULTS, Line, fault
from runner.engine.session import SessionEngine, session_config
from runner.engine.status import StatusError, call_error, load_error
from runner.model.signature import Signature
from runner.tensor import Strings

ReadSignature = Callable[[str | Path, str], Signature]

# A module whose shapes depend on no argument that XLA could refine. MLIR reads its text as well as its bytes.
IDENTITY = b"""module @id attributes {mhlo.num_partitions = 1 : i32, mhlo.num_replicas = 1 : i32} {
  func.func public @main(%arg0: tensor<?xf32>) -> tensor<?xf32> { return %arg0 : tensor<?xf32> }
}"""
CLASSES = {"row": ModelCallError, "model": PoisonError, "device": DeviceError, "machine": MemoryLimitError}


def models(tf: Any) -> dict[str, Any]:
    """Functions of one input that TensorFlow refuses, by the line of the table that is to speak for each."""
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops  # no part of the public API has XlaCallModule

    raw = tf.raw_ops

    def after(op: Any, x: Any) -> Any:
        with tf.control_dependencies([op]):
            return tf.identity(x)

    def each(function: Callable[[Any], Any], x: Any, dtype: Any = None) -> Any:
        return tf.map_fn(function, x, fn_output_signature=dtype or tf.string)

    def compiled(x: Any, module: bytes = IDENTITY, version: int = 9, platform: str = "CPU") -> Any:
        return gen_xla_ops.xla_call_module(
            *([x], version, module, [[None]], [tf.float32], [], [platform], [], False, []),
        )[0]

    def closed_queue(x: Any) -> Any:
        queue = raw.FIFOQueueV2(component_types=[tf.float32], shapes=[[]], shared_name="closed")
        with tf.control_dependencies([raw.QueueCloseV2(handle=queue)]):
            return after(raw.QueueEnqueueV2(handle=queue, components=[x[0]]), x)

    def cudnn(x: Any) -> Any:
        state, rows = tf.zeros([1, 1, 4]), tf.reshape(x, [1, -1, 1]) * tf.ones([1, 1, 4])
        rnn = raw.CudnnRNN(input=rows, input_h=state, input_c=state, params=tf.zeros([100]), is_training=False)
        return x + tf.reduce_sum(rnn.output)

    def table(x: Any) -> Any:
        handle = raw.HashTableV2(key_dtype=tf.int64, value_dtype=tf.float32, shared_name="twice")
        keys = tf.constant([1, 1], tf.int64)
        return after(raw.LookupTableImportV2(table_handle=handle, keys=keys, values=[1.0, 2.0]), x)

    def pooled(x: Any) -> Any:
        window = tf.cast(tf.stack([x[0] * 0 + 2, 1.0, 1.0, 1.0]), tf.int32)
        images = tf.reshape(x, [-1, 1, 1, 1])
        pool = raw.MaxPoolV2(input=images, ksize=window, strides=window, padding="VALID")
        return tf.reduce_sum(pool, [1, 2, 3])

    def cropped(x: Any) -> Any:
        box = tf.cast(x[:1], tf.int32)
        return x + tf.reduce_sum(tf.image.crop_and_resize(tf.zeros([1, 2, 2, 1]), tf.zeros([1, 4]), box, [1, 1]))

    return {
        "kernel": cudnn,
        "placeholder": lambda x: x * tf.compat.v1.placeholder(tf.float32, []),
        "no_stablehlo": lambda x: compiled(x, b"no module"),
        "newer": lambda x: compiled(x, version=99),
        "python": lambda x: tf.reshape(raw.PyFuncStateless(input=[x], token="pyfunc_77", Tout=[tf.float32])[0], [-1]),
        "scheme": lambda s: each(lambda one: tf.io.read_file(tf.strings.join(["foo://", one])), s),
        "missing_file": lambda s: each(tf.io.read_file, s),
        "folder": lambda s: each(lambda one: tf.io.read_file(tf.strings.substr("/tmp", 0, 4 + 0 * tf.size(one))), s),
        "image": lambda s: each(lambda one: tf.strings.as_string(tf.size(tf.io.decode_image(one))), s),
        "example": lambda s: tf.io.parse_example(s, {"a": tf.io.FixedLenFeature([], tf.float32)})["a"],
        "gather": lambda x: tf.gather(tf.range(8.0), tf.cast(x, tf.int32)),
        "assertion": lambda x: after(tf.debugging.Assert(tf.reduce_all(x < 0), ["not below"]), x),
        "reshape": lambda x: tf.reshape(x, [-1, 3])[:, 0],
        "box": cropped,
        "compressed": lambda s: tf.io.decode_compressed(s, "GZIP"),
        "proto": lambda s: tf.io.decode_proto(s, "tensorflow.Example", ["features"], [tf.string]).sizes[:, 0],
        "platform": lambda x: compiled(x, platform="CUDA"),
        "pooling": pooled,
        "table": table,
        "queue": closed_queue,
        "unrefined": lambda x: compiled(x),
    }


SPEAKS = {  # line, by its code and a part of its words -> whose fault it is, and what is refused by it
    ("INVALID_ARGUMENT", "OpKernel"): ("model", ("kernel",)),
    ("INVALID_ARGUMENT", "placeholder"): ("model", ("placeholder",)),
    ("INVALID_ARGUMENT", "deserialize"): ("model", ("no_stablehlo", "unrefined")),
    ("INVALID_ARGUMENT", "version"): ("model", ("newer",)),
    ("INVALID_ARGUMENT", "callback"): ("model", ("python",)),
    ("UNIMPLEMENTED", "scheme"): ("row", ("scheme",)),
    ("", "No such file"): ("row", ("missing_file", "folder")),
    ("INVALID_ARGUMENT", ""): ("row", ("image", "example", "gather", "assertion", "reshape")),
    ("OUT_OF_RANGE", ""): ("row", ("box",)),
    ("DATA_LOSS", ""): ("row", ("compressed", "proto")),
    ("NOT_FOUND", ""): ("model", ("platform",)),
    ("UNIMPLEMENTED", ""): ("model", ("pooling",)),
    ("FAILED_PRECONDITION", ""): ("model", ("table",)),
    ("CANCELLED", ""): ("device", ("queue",)),
}
OF_TEXT = {"scheme", "missing_file", "folder", "image", "example", "compressed", "proto"}


@pytest.fixture(scope="module")
def refusing(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    tf, path = tensorflow, str(tmp_path_factory.mktemp("refusing"))
    calls = {
        name: tf.function(lambda x, call=call: {"y": call(x)}, autograph=False).get_concrete_function(
            tf.TensorSpec([None], tf.string if name in OF_TEXT else tf.float32, name="x")
        )
        for name, call in models(tf).items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(tf.Module(), path, signatures=calls)
    return path


@pytest.fixture(scope="module")
def refused(refusing: str, read_signature: ReadSignature) -> Callable[[str], StatusError]:
    """refused(name): what a call of that signature with two rows is answered. All of them in one session."""
    session = Session(refusing, ("serve",), session_config(EngineOptions(threads=1)))

    def refused(name: str) -> StatusError:
        signature = read_signature(refusing, name)
        x, y = (session.tensor(spec["xy"[at]].tensor) for at, spec in enumerate((signature.inputs, signature.outputs)))
        assert x is not None
        assert y is not None
        words = Strings(pa.array([b"\xffbad\0.", b"zz"], pa.large_binary()), (2,))
        with pytest.raises(StatusError) as caught:
            session.run([(x, words if name in OF_TEXT else np.array([100, 101], np.float32))], [y], None)
        return caught.value

    return refused


def line_of(code: str, part: str) -> Line:
    (line,) = (one for one in FAULTS if one.code == code and (part in one.words if part else not one.words))
    return line


@pytest.mark.parametrize("key", SPEAKS, ids=["-".join(filter(None, key)) for key in SPEAKS])
def test_a_line_speaks_for_what_tensorflow_answers(
    refused: Callable[[str], StatusError], read_signature: ReadSignature, refusing: str, key: tuple[str, str]
) -> None:
    line, (whose, names) = line_of(*key), SPEAKS[key]
    for name in names:
        status = refused(name)
        assert (line.code or status.code) == status.code
        assert fault(status.code, status.message) is line, status.message
        error = call_error(status, read_signature(refusing, name), "m")
        assert type(error) is CLASSES[whose], error.message
        if whose == "model":
            assert line.advice in error.message
            assert error.facts["code"] == "MODEL_FAULT"
            assert (error.facts["status"], error.facts["model"], error.facts["signature"]) == (status.code, "m", name)


def test_every_line_that_names_an_op_is_tried_and_every_code_has_a_line() -> None:
    waits = line_of("RESOURCE_EXHAUSTED", "")  # 10 s for memory, in TensorFlow; `test_engines.py` meets it
    assert {line_of(*key) for key in SPEAKS} == {line for line in FAULTS if line.of} - {waits}
    assert {line.code for line in FAULTS if not line.words} == {*CODES} - {"OK"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, ModelCallError) for code in ("INVALID_ARGUMENT", "OUT_OF_RANGE", "DATA_LOSS", "UNKNOWN")),
        *((code, PoisonError) for code in ("NOT_FOUND", "UNIMPLEMENTED", "FAILED_PRECONDITION", "ALREADY_EXISTS")),
        *((code, PoisonError) for code in ("PERMISSION_DENIED", "UNAUTHENTICATED")),
        *((code, DeviceError) for code in ("CANCELLED", "INTERNAL", "ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")),
        ("RESOURCE_EXHAUSTED", MemoryLimitError),
    ],
)
def test_a_code_without_words_is_decided_for_calls_and_for_loading(code: str, kind: type[RunnerError]) -> None:
    status = StatusError(CODES.index(code), "it failed")
    assert type(call_error(status, Signature("s", "", {}, {}), "m")) is kind
    at_load = {ModelCallError: ModelError, PoisonError: ModelError}.get(kind, kind)
    assert type(load_error(f"{code}: it failed", "m", ("serve",), code, "it failed")) is at_load
    assert str(load_error("it failed", "m", ())) == "cannot load model 'm' with tags none: it failed"


def test_a_file_that_a_row_names_and_one_that_the_model_lacks_are_told_apart() -> None:
    assert fault("NOT_FOUND", "/in/7.jpg; No such file or directory\n\t [[{{node ReadFile}}]]").whose == "row"
    assert fault("PERMISSION_DENIED", "/in/7.jpg; Permission denied").whose == "row"
    assert fault("NOT_FOUND", "Resource localhost/table/N does not exist").whose == "model"
    assert fault("no code of TensorFlow", "?").whose == "row"


def test_a_program_for_another_platform_is_named_with_what_to_do(refusing: str, read_signature: ReadSignature) -> None:
    signature = read_signature(refusing, "platform")
    engine = SessionEngine(refusing, ("serve",), signature, EngineOptions(threads=1, name="m"))
    with pytest.raises(PoisonError, match=r"'platform' of model 'm': NOT_FOUND: .*CUDA.*; no row would") as caught:
        engine.run({"x": np.ones(2, np.float32)}, ["y"])
    assert caught.value.exit_code == 70
    assert "run on workers with the device it wants" in caught.value.message
    engine.close()
