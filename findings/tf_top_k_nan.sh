#!/usr/bin/env bash
# tf.math.top_k beside a NaN loses the largest number: the top 1 of [100, NaN, 2, 3] is 3, and tf.sort gives [2, 100, NaN, 3]. Where a NaN
# comes depends on k and on its place in the row; compiled by XLA it is always the largest.
#
# tensorflow 2.21.0, numpy 2.4.6, on a CPU, not compiled. Guess: NaN is the largest, as for np.sort and jax.lax.top_k; if not, the smallest:
# a NaN may be misplaced, but the numbers are sorted.
# Documentation: top_k, sort, argsort: found nothing on NaN.
# Why it matters: one candidate with a NaN score takes the best one off the list, and a top 1 has no NaN that a check could find.
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

row = tf.constant([100, float("nan"), 2, 3])
compiled = tf.function(tf.math.top_k, autograph=False, jit_compile=True)
for k in range(1, 5):
    print(f"top {k} of {row.numpy()}: {tf.math.top_k(row, k).values.numpy()}, compiled {compiled(row, k).values.numpy()}")
print("sort:", tf.sort(row).numpy())
random = np.random.default_rng(0)
rows = random.uniform(size=(1000, 20)).astype("float32")
rows[np.arange(1000), random.integers(0, 20, 1000)] = np.nan
lost = {}
for k in (1, 2, 5, 10):
    best = tf.math.top_k(rows, k).values.numpy()
    lost[k] = int(np.sum(~np.any(best == np.nanmax(rows, 1, keepdims=True), axis=1)))
    silent = int(np.sum(~np.any((best == np.nanmax(rows, 1, keepdims=True)) | np.isnan(best), axis=1)))
    print(f"1,000 rows of 20 with one NaN, top {k}: the largest number is missing in {lost[k]}, without a NaN among the top in {silent}")
if float(tf.math.top_k(row, 1).values[0]) != 3 or not lost[2]:
    sys.exit("top_k beside a NaN no longer loses the largest number")
END
