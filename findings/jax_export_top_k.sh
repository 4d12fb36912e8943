#!/usr/bin/env bash
# A model of JAX's newest release cannot be read by TensorFlow's newest one if it takes a top_k, erf, arcsin or cosh; softmax, gelu and sort
# can. jax2tf exports it, TensorFlow saves and loads it, nobody warns; the first call is INVALID_ARGUMENT "unregistered operation
# 'vhlo.composite_v2'".
#
# jax 0.10.2, tensorflow 2.21.0, numpy 2.4.6; jax 0.10.1 is the same, models exported with jax 0.10.0 run. Guess: the newest releases fit
# together, as jax2tf has no other purpose, or the export says that TensorFlow is too old.
# Documentation: an export may be read by a build up to 3 weeks older. Found nothing on TensorFlow's newest release being older than that, nor a
# setting of jax2tf that exports for it.
# Why it matters: `pip install jax tensorflow` gives this pair. A patch release of JAX turns an export that was served yesterday into one that
# loads and answers no call, by whether the model uses erf.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - 2> log <<'END' || { code=$?; tail -3 log >&2; exit $code; }
import os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import jax, jax.numpy as jnp, numpy as np, tensorflow as tf
from jax.experimental import jax2tf

x, seen = np.array([[0.5, 0.25, 0.1]], "float32"), {}
functions = {
    "softmax": jax.nn.softmax, "gelu": jax.nn.gelu, "sort": jnp.sort,
    "top_k": lambda v: jax.lax.top_k(v, 2)[0], "erf": jax.scipy.special.erf, "arcsin": jnp.arcsin, "cosh": jnp.cosh,
}
for name, function in functions.items():
    module = tf.Module()
    module.call = tf.function(jax2tf.convert(function), autograph=False, input_signature=[tf.TensorSpec([1, 3], tf.float32)])
    tf.saved_model.save(module, name)
    loaded = tf.saved_model.load(name)
    try:
        seen[name] = str(loaded.call(x).numpy().round(3))
    except tf.errors.InvalidArgumentError as error:
        seen[name] = "INVALID_ARGUMENT " + next(line for line in str(error).splitlines() if "vhlo" in line).partition("error: ")[2]
    print(f"{name:8} JAX {np.asarray(function(x)).round(3)}, TensorFlow {seen[name]}")
if "vhlo.composite_v2" not in str(seen["top_k"]):
    sys.exit("TensorFlow reads a top_k of this JAX now")
END
