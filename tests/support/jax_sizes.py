"""A SavedModel whose networks are JAX's, exported by jax2tf: `python jax_sizes.py FOLDER` writes it.

A program of its own, because importing JAX takes seconds, and it warns.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}


def write(folder: str) -> None:
    """Signatures `log`, `most`, `eight`, `words`, `steps`, `plain` and `own`; see each below."""
    import jax.numpy as jnp
    import tensorflow as tf
    from jax.experimental import jax2tf

    def network(polymorphic: str | None, function: Any) -> Any:
        shapes = None if polymorphic is None else [polymorphic]
        return jax2tf.convert(function, polymorphic_shapes=shapes, with_gradient=False)

    def spec(*shape: int | None, dtype: Any = tf.float32) -> list[Any]:
        return [tf.TensorSpec(shape, dtype, name="x")]

    log = network("b, _", lambda x: jnp.log(x[:, 0]) + x[:, 1])
    most = network("b, _", lambda x: x.max(axis=1))
    eight = network(None, lambda x: x[:, 0] + x[:, 1])
    double = network("b", lambda x: 2 * x)
    total = network("b, t", lambda x: x.sum(axis=1))
    batched = tf.nondifferentiable_batch_function(1, 64, 10_000, autograph=False)(lambda x: double(x))

    module = tf.Module()
    signatures = {
        # log(x[0]) + x[1]: NaN where x[0] is negative
        "log": tf.function(lambda x: {"y": log(x)}, input_signature=spec(None, 2), autograph=False),
        # the largest of x: NaN where one of them is
        "most": tf.function(lambda x: {"y": most(x)}, input_signature=spec(None, 2), autograph=False),
        # x[0] + x[1], of 8 rows and no other number
        "eight": tf.function(lambda x: {"y": eight(x)}, input_signature=spec(8, 2), autograph=False),
        # twice a number in words: TensorFlow refuses a row that is none before JAX sees it
        "words": tf.function(
            lambda x: {"y": double(tf.strings.to_number(x))},
            input_signature=spec(None, dtype=tf.string),
            autograph=False,
        ),
        # the sum of a row of any width
        "steps": tf.function(lambda x: {"y": total(x)}, input_signature=spec(None, None), autograph=False),
        # 3 x, without JAX
        "plain": tf.function(lambda x: {"y": 3 * x}, input_signature=spec(None), autograph=False),
        # 2 x, in batches of the model's own, of at most 64 rows
        "own": tf.function(
            lambda x: {"y": tf.ensure_shape(batched(x), [None])}, input_signature=spec(None), autograph=False
        ),
    }
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, folder, signatures=signatures)


if __name__ == "__main__":
    write(sys.argv[1])
