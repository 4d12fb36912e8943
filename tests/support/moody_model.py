"""A SavedModel that one row can break in every way: python moody_model.py FOLDER. With real ops of TensorFlow.

`serving_default`: f (rows, 4) float32, n (rows,) int32, example (rows,) serialized tf.train.Example with a float 'v';
y = f[0] / 2 + 2, m = n + 1, v. What is wrong with a row says f[1]; a single such row breaks its whole call.
REFUSE is an assertion, ABORT ends the process, HANG never answers, HUGE is refused by TensorFlow's allocator after ten
seconds, FLOOD takes as many times 10 MB as f[2] says.
`leaky`: x (rows,) float32; y = x / 2 + 2, and every call keeps LEAK bytes for ever.
"""

from __future__ import annotations

import struct
import sys

GOOD, REFUSE, ABORT, HANG, HUGE, FLOOD = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
LEAK = 50_000_000
BLOCK = 10_000_000


def example(value: float) -> bytes:
    """A serialized tf.train.Example with one float 'v'."""
    packed = b"\x0a\x04" + struct.pack("<f", value)
    for tag in (b"\x12", b"\x0a\x01v\x12", b"\x0a", b"\x0a"):  # float_list, map entry, feature, features
        packed = tag + bytes([len(packed)]) + packed
    return packed


def write(folder: str) -> None:
    import tensorflow as tf

    def when(mood: float, f: object, deed: object) -> object:
        return tf.cond(tf.reduce_any(tf.equal(f[:, 1], mood)), deed, lambda: tf.constant(0.0))

    def abort() -> object:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="a row that no process survives")]):
            return tf.constant(0.0)

    def hang() -> object:
        return tf.while_loop(lambda i: i < 1.0, lambda i: (i * 0.5,), [tf.constant(0.5)])[0]

    def huge() -> object:
        return tf.reduce_sum(tf.fill([2**46 + tf.cast(tf.timestamp(), tf.int64) % 2], 1.0))

    def flood(blocks: object) -> object:  # bit by bit
        some = tf.while_loop(
            lambda i, kept: i < blocks,
            lambda i, kept: (i + 1, kept.write(i, tf.random.uniform([BLOCK // 4]))),
            [0, tf.TensorArray(tf.float32, blocks)],
        )[1]
        return tf.reduce_sum(some.stack()[:, 0])

    class Moody(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 4], tf.float32, name="f"),
                tf.TensorSpec([None], tf.int32, name="n"),
                tf.TensorSpec([None], tf.string, name="example"),
            ]
        )
        def moody(self, f: object, n: object, example: object) -> object:
            blocks = tf.cast(tf.reduce_max(f[:, 2]), tf.int32)
            deeds = [when(ABORT, f, abort), when(HANG, f, hang), when(HUGE, f, huge)]
            deeds.append(when(FLOOD, f, lambda: flood(blocks)))
            deeds.append(tf.debugging.Assert(tf.reduce_all(tf.not_equal(f[:, 1], REFUSE)), ["out of its domain"]))
            v = tf.io.parse_example(example, {"v": tf.io.FixedLenFeature([], tf.float32)})["v"]
            with tf.control_dependencies(deeds):
                return {"y": f[:, 0] / 2 + 2, "m": n + 1, "v": tf.identity(v)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def leaky(self, x: object) -> object:
            kept = tf.random.uniform([LEAK // 4])
            with tf.control_dependencies([tf.raw_ops.Stage(values=[kept], shared_name="kept")]):
                return {"y": x / 2 + 2}

    module = Moody()
    tf.saved_model.save(module, folder, signatures={"serving_default": module.moody, "leaky": module.leaky})


if __name__ == "__main__":
    write(sys.argv[1])
