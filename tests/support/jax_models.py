"""SavedModels with programs of JAX, written by jax2tf in a process of its own: `python jax_models.py FOLDER`.

`plain` computes, for several shapes and platforms; `reaches` calls what is outside of its programs; `newer` needs what
not every TensorFlow has; `state` sets variables, to what they are or to something else.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLAIN = {  # signature -> what it is compiled for
    "open": "compiled for CPU, CUDA; once per batch size",
    "fixed": "compiled for CPU; for fixed shapes, once",
    "cuda": "compiled for CUDA; once per batch size",
    "drawn": "compiled for CPU; once per batch size",
    "called": "compiled for CPU; for fixed shapes, once",
    "sorted": "compiled for CPU; once per batch size",
}

STATE = {  # signature -> whether it leaves the variables as they are
    "kept": True,
    "kept_on_each_platform": True,
    "kept_through_a_function": True,
    "counted": False,
    "swapped": False,
    "drawn_from": False,
    "one_of_two": False,
}


def write(root: Path) -> None:
    import jax
    import jax.numpy as jnp
    import tensorflow as tf
    from jax.experimental import jax2tf

    row, answer = tf.TensorSpec([None, 3], tf.float32, name="x"), jax.ShapeDtypeStruct((2, 3), "float32")

    def converted(compute: Callable[[Any], Any], rows: int | None = None, **options: Any) -> Any:
        given = {"polymorphic_shapes": ["(b, 3)"]} if rows is None else {}
        inner = jax2tf.convert(compute, with_gradient=False, **given, **options)
        spec = tf.TensorSpec([rows, *row.shape[1:]], row.dtype, name="x")
        return tf.function(lambda x: {"y": inner(x)}, input_signature=[spec], autograph=False)

    def through(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: jax2tf.call_tf(function, call_tf_graph=True, output_shape_dtype=answer)(x)

    def reach(x: Any) -> Any:
        tf.io.write_file(str(root / "escaped"), "1")
        return x + 1

    def foreign(x: Any) -> Any:
        return jax.ffi.ffi_call("outside", answer)(x)

    key = jax.random.PRNGKey(0)
    _save(
        tf,
        root / "plain",
        open=converted(lambda x: jnp.tanh(x) * 2, native_serialization_platforms=["cpu", "cuda"]),
        fixed=converted(lambda x: x + 1, rows=2),
        cuda=converted(lambda x: x + 1, native_serialization_platforms=["cuda"]),
        drawn=converted(lambda x: x + jax.random.normal(key, x.shape)),
        called=converted(through(lambda x: x + 1), rows=2),
        sorted=converted(lambda x: jnp.cumsum(jnp.sort(x, axis=-1), axis=0)),
    )
    allowed = [jax2tf.DisabledSafetyCheck.custom_call("outside")]
    _save(
        tf,
        root / "reaches",
        calls=converted(foreign, rows=2, native_serialization_disabled_checks=allowed),
        writes=converted(through(reach), rows=2),
    )
    anywhere = [jax2tf.DisabledSafetyCheck.platform()]
    unchecked = converted(
        lambda x: x + 1, native_serialization_platforms=["cuda"], native_serialization_disabled_checks=anywhere
    )
    _save(tf, root / "unchecked", cuda=unchecked)
    _save(
        tf,
        root / "newer",
        best=converted(lambda x: jax.lax.top_k(x, 2)[0]),
        kernel=converted(lambda x: jnp.linalg.cholesky(x[:, :, None] * jnp.eye(3))),
    )
    state = [tf.Variable(tf.random.stateless_normal([3], (number, 5))) for number in range(2)]
    _save(tf, root / "state", state, **_stateful(tf, jax, jax2tf, *state))


def _stateful(tf: Any, jax: Any, jax2tf: Any, a: Any, b: Any) -> dict[str, Any]:
    """Signatures as Keras on JAX makes them: all state goes in, and comes out to be assigned."""

    def stateful(compute: Callable[..., Any], **options: Any) -> Any:
        inner = jax2tf.convert(compute, polymorphic_shapes=[None, None, "(b, 3)"], with_gradient=False, **options)

        def call(x: Any) -> Any:
            y, *new = inner(a, b, x)
            for variable, value in zip((a, b), new, strict=True):
                variable.assign(value)
            return {"y": y}

        return tf.function(call, input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")], autograph=False)

    within = jax.jit(lambda a, b, x: (x * b, b, a))

    def through(a: Any, b: Any, x: Any) -> Any:
        y, second, first = within(a, b, x)
        return y + 1, first, second

    return {
        "kept": stateful(lambda a, b, x: (x * a + b, a, b)),
        "kept_on_each_platform": stateful(
            lambda a, b, x: (x * a + b, a, b), native_serialization_platforms=["cpu", "cuda"]
        ),
        "kept_through_a_function": stateful(through),
        "counted": stateful(lambda a, b, x: (x * a, a + 1, b)),
        "swapped": stateful(lambda a, b, x: (x * a, b, a)),
        "drawn_from": stateful(lambda a, b, x: (x * a, a, x.sum(axis=0))),
        "one_of_two": stateful(lambda a, b, x: (x * a, a, b * 2)),
    }


def _save(tf: Any, path: Path, state: Any = (), **signatures: Any) -> None:
    module = tf.Module()
    for name, function in signatures.items():
        setattr(module, name, function)
    module.state = state
    tf.saved_model.save(module, str(path), signatures=signatures)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(Path(sys.argv[1]))
