#!/usr/bin/env bash
# A JAX function with a factorisation or a solve of matrices (cholesky, eigh, qr, svd, solve) is exported by jax2tf, saved and loaded, and its
# first call in TensorFlow on a CPU is NOT_FOUND "No FFI handler registered for lapack_spotrf_ffi". `det` of 3 x 3 runs, of 4 x 4 does not.
#
# jax 0.10.2, tensorflow 2.21.0, numpy 2.4.6. Guess: they run: jax.export lists these calls as guaranteed stable, and refuses to export others.
# Documentation: jax2tf "supports virtually all operations", and refuses the export of calls that are not on the list. Found nothing on the
# handlers being in jaxlib alone.
# Why it matters: a Gaussian process, a Kalman filter or a whitening layer passes each check of the export and answers no call. TensorFlow's own
# tf.linalg.cholesky runs there, compiled by XLA too.
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

def called(name, call, x):
    try:
        seen = call(tf.constant(x)).numpy().ravel()[:3].round(3)
    except tf.errors.NotFoundError as error:
        seen = "NOT_FOUND " + next(line for line in str(error).splitlines() if "FFI" in line)
    print(f"{name:28} {seen}")
    return seen

x3, x4 = (np.eye(n, dtype="float32") * 4 + 1 for n in (3, 4))
functions = {
    "cholesky": (jnp.linalg.cholesky, x3), "eigh": (jnp.linalg.eigvalsh, x3), "qr": (lambda v: jnp.linalg.qr(v)[1], x3),
    "svd": (lambda v: jnp.linalg.svd(v)[1], x3), "solve": (lambda v: jnp.linalg.solve(v, v[0]), x3),
    "det of 3 x 3": (jnp.linalg.det, x3), "det of 4 x 4": (jnp.linalg.det, x4),
}
seen = {}
for name, (function, x) in functions.items():
    module = tf.Module()
    module.call = tf.function(jax2tf.convert(function), autograph=False, input_signature=[tf.TensorSpec(x.shape, tf.float32)])
    tf.saved_model.save(module, name)
    print(f"{name:28} {np.asarray(function(x)).ravel()[:3].round(3)} in JAX")
    seen[name] = called(name, tf.saved_model.load(name).call, x)
called("tf.linalg.cholesky, compiled", tf.function(tf.linalg.cholesky, jit_compile=True), x3)
if "lapack_spotrf_ffi" not in str(seen["cholesky"]):
    sys.exit("TensorFlow runs JAX's cholesky now")
END
