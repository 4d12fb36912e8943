#!/usr/bin/env bash
# A second library with an op that is registered already loads without a word, and the op's next first call is INVALID_ARGUMENT "Multiple
# OpKernel registrations", through the first library too. The wrapper of the second has no op at all.
#
# tensorflow 2.21.0, tensorflow-text 2.21.1 (one of its libraries, copied), numpy 2.4.6. Guess: the second load is refused, or is a no-op, as
# for the same path.
# Documentation: load_op_library: RuntimeError "when unable to load the library"; found nothing on an op that is there.
# Why it matters: two virtual environments on PYTHONPATH, or a model that ships the ops that a package registers too. What fails is the first
# call of the other party's op, and no message names a file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
{
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy==2.4.6 &&
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps tensorflow-text==2.21.1
} 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
cp venv/lib/python3*/site-packages/tensorflow_text/python/ops/_normalize_ops.so first.so
cp first.so second.so
venv/bin/python - 2> log <<'END' || { code=$?; tail -3 log >&2; exit $code; }
import os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

seen = {}

def fold(name, ops, text):
    try:
        seen[name] = str(ops.case_fold_utf8(text).numpy())
    except (tf.errors.InvalidArgumentError, AttributeError) as error:
        seen[name] = f"{type(error).__name__}: {str(error)[:80]}"
    print(f"{name:6} {seen[name]}")

first = tf.load_op_library("./first.so")
tf.load_op_library("./first.so")
second = tf.load_op_library("./second.so")
print("the second library is loaded, no error")
fold("first", first, ["B"])
fold("second", second, ["C"])
if "Multiple OpKernel registrations" not in seen["first"]:
    sys.exit("a second library with the same op does no longer spoil the first")
END
