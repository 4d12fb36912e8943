#!/usr/bin/env bash
# The minimum or maximum of a ragged or sparse row that holds a NaN is the best of what stands behind the last NaN: the minimum of [1, NaN, 3]
# is 3, although 1 is there. It is NaN only if the NaN stands last. The dense row gives NaN.
#
# tensorflow 2.21.0, numpy 2.4.6, on a CPU, not compiled. Guess: NaN as in the dense form; if NaN were skipped, 1.
# Documentation: found nothing on NaN at reduce_min, segment_max or tf.sparse.reduce_max.
# Why it matters: a feature fed as a dense row shows its NaN; fed as a list column it becomes another number, by the order of the list, and the
# score is clean.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import math, os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

nan, seen = float("nan"), {}
for row in ([1.0, nan, 3.0], [nan, 1.0, 3.0], [1.0, 3.0, nan]):
    dense = tf.constant([row])
    ragged, sparse = tf.RaggedTensor.from_tensor(dense), tf.sparse.from_dense(dense)
    results = {
        "dense min": tf.reduce_min(dense, 1), "dense max": tf.reduce_max(dense, 1),
        "ragged min": tf.reduce_min(ragged, 1), "ragged max": tf.reduce_max(ragged, 1),
        "sparse max": tf.sparse.reduce_max(sparse, 1),
    }
    seen[str(row)] = {name: float(value[0]) for name, value in results.items()}
    print(row, seen[str(row)])
if math.isnan(seen["[1.0, nan, 3.0]"]["ragged min"]):
    sys.exit("a ragged minimum with a NaN is NaN now")
EOF
