#!/usr/bin/env bash
# tf.argmax compiled by XLA on a CPU is the best of what stands behind the last NaN: of [3, NaN, 1] it is 2, the place of the 1; of
# [1, 3, NaN] it is the NaN. Not compiled it is the place of the largest number. argmin is the same.
#
# tensorflow 2.21.0, numpy 2.4.6. Guess: the place of the NaN, as np.argmax and jnp.argmax (XLA as well) say, or of the largest number, as not
# compiled.
# Documentation: argmax: "the index with the largest value"; XLA's known issues: found nothing on NaN.
# Why it matters: a class is an integer, which no check for NaN sees: one bad logit makes the least likely class the answer, and compiling
# a model changes its answers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - 2> log <<'END' || { code=$?; tail -3 log >&2; exit $code; }
import os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf

nan = float("nan")
rows = tf.constant([[3, nan, 1], [nan, 1, 3], [1, 3, nan], [9, 2, nan]])
seen = {}
for name, op, numpy_op in (("argmax", tf.argmax, np.argmax), ("argmin", tf.argmin, np.argmin)):
    compiled = tf.function(op, autograph=False, jit_compile=True)
    seen[name] = compiled(rows, 1).numpy().tolist()
    print(f"{name} of {rows.numpy().tolist()}: not compiled {op(rows, 1).numpy()}, compiled {seen[name]}, NumPy {numpy_op(rows.numpy(), 1)}")
if seen["argmax"][0] != 2:
    sys.exit("a compiled argmax beside a NaN is another place now")
END
