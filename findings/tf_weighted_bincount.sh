#!/usr/bin/env bash
# tf.math.bincount with weights gives different results in equal calls on a CPU, with determinism switched on. Each thread sums into bins of its
# own, and which values a thread gets depends on timing.
#
# tensorflow 2.21.0, numpy 2.4.6. Guess: `enable_op_determinism` makes the op deterministic, or refuses it (UNIMPLEMENTED).
# Documentation: enable_op_determinism: an op run with the same inputs gives the same outputs, or raises.
# Why it matters: who turns determinism on for scores that can be compared byte by byte believes the switch. The form by rows (`axis=-1`) is
# the same each time, as are unsorted_segment_sum and reduce_sum.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(4)
tf.config.experimental.enable_op_determinism()
random = np.random.default_rng(0)
ids = tf.constant(random.integers(0, 5, 200_000), tf.int32)
weights = tf.constant(random.standard_normal(200_000), tf.float32)
counts = {
    "bincount": lambda: tf.math.bincount(ids, weights=weights),
    "unsorted_segment_sum": lambda: tf.math.unsorted_segment_sum(weights, ids, 5),
}
seen = {name: len({count().numpy().tobytes() for _ in range(200)}) for name, count in counts.items()}
for name, results in seen.items():
    print(f"{name:21} {results} different results in 200 equal calls, determinism on")
if seen["bincount"] == 1:
    sys.exit("weighted bincount was the same 200 times: it may be deterministic now (or the machine has one core)")
EOF
