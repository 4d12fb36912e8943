#!/usr/bin/env bash
# The largest or smallest of values with a NaN is NaN in JAX, and a number in the same exported program called by TensorFlow on a CPU: the
# maximum of [1, NaN, 3] is 3, of [NaN, NaN, NaN] -inf. cummax and max-pooling do the same, and the larger of two columns; argmax and softmax
# agree. `XLA_FLAGS=--xla_cpu_enable_fast_min_max=false` before TensorFlow starts gives NaN there too: one compiler with two defaults.
#
# jax 0.10.2, tensorflow 2.21.0, numpy 2.4.6. Guess: NaN in both; jax2tf hands over the program, which says what a maximum is.
# Documentation: jax2tf: native lowering stays faithful to JAX's semantics, across platforms. StableHLO: `maximum` is that of IEEE-754, NaN wins.
# Why it matters: who tests a model with JAX sees that bad rows show as NaN. Served, such rows have clean scores.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
cat > compare.py <<'END'
import os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import jax, jax.numpy as jnp, numpy as np, tensorflow as tf
from jax.experimental import jax2tf

nan, seen = float("nan"), {}
x = np.array([[1, nan, 3], [nan, 1, 3], [3, 1, nan], [nan] * 3], "float32")
functions = {
    "max": lambda v: jnp.max(v, 1), "min": lambda v: jnp.min(v, 1), "cummax": lambda v: jax.lax.cummax(v, 1)[:, 2],
    "max_pool": lambda v: jax.lax.reduce_window(v, -jnp.inf, jax.lax.max, (1, 3), (1, 1), "VALID")[:, 0],
    "maximum": lambda v: jnp.maximum(v[:, 0], v[:, 1]), "argmax": lambda v: jnp.argmax(v, 1), "softmax": lambda v: jax.nn.softmax(v)[:, 0],
}
print("XLA_FLAGS", os.environ.get("XLA_FLAGS", "not set"))
for name, function in functions.items():
    served = tf.function(jax2tf.convert(function), autograph=False)(x).numpy()
    seen[name] = [int(np.isnan(values).sum()) for values in (np.asarray(function(x)), served)]
    print(f"{name:9} JAX {np.asarray(function(x)).tolist()}, TensorFlow {served.tolist()}")
cured = "XLA_FLAGS" in os.environ
if seen["max"] != ([4, 4] if cured else [4, 0]):
    sys.exit("JAX and TensorFlow agree on the maximum beside a NaN now" if not cured else "the flag gives no NaN any more")
END
unset XLA_FLAGS
venv/bin/python compare.py 2> log || { code=$?; tail -3 log >&2; exit $code; }
XLA_FLAGS=--xla_cpu_enable_fast_min_max=false venv/bin/python compare.py 2> log || { code=$?; tail -3 log >&2; exit $code; }
