"""The ops that the installed TensorFlow knows.

`python -m runner.engine.registry` writes them down for `runner.scan.trust`, which must judge a model where TensorFlow
is not loaded.
"""

from __future__ import annotations

import ctypes

from runner.engine.capi import library
from runner.proto.saved_model_pb2 import OpList
from runner.scan import ops


def registered_ops() -> dict[str, bool]:
    """Name -> whether it is stateful, of every op that a model can hold. Those that begin with '_' are TensorFlow's
    own, put into graphs only after they are loaded."""
    tf = library()
    buffer = tf.TF_GetAllOpList()
    try:
        listed = OpList.FromString(ctypes.string_at(buffer.contents.data, buffer.contents.length))
    finally:
        tf.TF_DeleteBuffer(buffer)
    return {op.name: op.is_stateful for op in sorted(listed.op, key=lambda op: op.name) if not op.name.startswith("_")}


if __name__ == "__main__":
    ops.PATH.write_text(ops.updated(ops.tensorflow_version(), registered_ops()), encoding="utf-8")
