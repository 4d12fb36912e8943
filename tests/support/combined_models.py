"""SavedModels that stand beside each other in one job, of JAX and of TensorFlow: `python combined_models.py FOLDER`.

A program of its own, because importing JAX takes seconds, and it warns.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}

LABELS = ["red", "green", "blue", "grey"]


def write(root: Path) -> None:
    """`jax`: signatures `probs`, `twice` and `words`; `eight`: plain TensorFlow, 8 rows a call; see below."""
    import jax.numpy as jnp
    import tensorflow as tf
    from jax.experimental import jax2tf

    def network(function: Any) -> Any:
        return jax2tf.convert(function, polymorphic_shapes=["b, _"], with_gradient=False)

    def signature(function: Any, *shape: int | None, dtype: Any = tf.float32) -> Any:
        specs = [tf.TensorSpec(shape, dtype, name="x")]
        return tf.function(function, input_signature=specs, autograph=False)

    double, scores = network(lambda x: 2 * x), network(lambda x: jnp.concatenate([x, x[:, :1] + x[:, 1:2]], 1))

    labels = root / "labels.txt"
    labels.write_text("\n".join(LABELS) + "\n")
    jax = tf.Module()
    jax.labels = tf.saved_model.Asset(str(labels))
    signatures = {
        # x[0], x[1], x[2], x[0] + x[1]
        "probs": signature(lambda x: {"probs": scores(x)}, None, 3),
        # twice x
        "twice": signature(lambda x: {"y": double(x)}, None, 3),
        # twice a number in words, of which TensorFlow refuses one that is none before JAX sees it
        "words": signature(
            lambda text: {"y": double(tf.strings.to_number(text)[:, None])[:, 0]}, None, dtype=tf.string
        ),
    }
    _save(tf, jax, root / "jax", signatures)

    def eight(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(x[:, 2], 1000.0, message="too far")]):
            return {"logits": tf.concat([x, x[:, :1] - x[:, 1:2]], 1)}

    # x[0], x[1], x[2], x[0] - x[1], of 8 rows a call; refuses x[2] from 1,000 on. `never`: refuses every row.
    never = signature(lambda x: {"y": tf.reshape(tf.strings.to_number(tf.fill([tf.shape(x)[0]], "no")), [-1])}, None, 3)
    _save(tf, tf.Module(), root / "eight", {"logits": signature(eight, 8, 3), "never": never})


def _save(tf: Any, module: Any, path: Path, signatures: dict[str, Any]) -> None:
    for name, function in signatures.items():
        setattr(module, f"call_{name}", function)
    tf.saved_model.save(module, str(path), signatures=signatures)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
