#!/usr/bin/env bash
# In a tf.function a division by a constant is a product with its reciprocal, so a number is not what the same line gives eagerly: x * 1e4,
# rounded, / 1e4 is -0.12350000000000001 and not -0.1235, for a third of all float64 numbers of 6 digits. Cents / 100 differ for one in eight.
#
# tensorflow 2.21.0, numpy 2.4.6, on a CPU. Guess: the same bits; IEEE-754 rounds a division correctly, and only powers of two have an exact
# reciprocal. It is Grappler's constant folding: with that off the graph divides; with arithmetic_optimization off it does not.
# Documentation: constant folding: "statically infers the value of tensors when possible by folding constant nodes". Found nothing on
# reciprocals, or on changed results.
# Why it matters: rounded scores are written with 17 digits, joined on, or compared with those of a notebook, and prices computed in a served
# model are no longer the ones of the table.
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

def rounded(x):
    return tf.round(x * 1e4) / 1e4

def price(cents):
    return cents / 100

one = tf.constant([-0.12346], tf.float64)
scores = tf.constant(np.round(np.random.default_rng(0).uniform(-1, 1, 100_000), 6))
cents = tf.constant(np.arange(1, 100_001), tf.float64)
seen = {}
for name, options in {"default": {}, "arithmetic_optimization off": {"arithmetic_optimization": False}, "constant_folding off": {"constant_folding": False}}.items():
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True, "constant_folding": True} | options)
    graph_rounded, graph_price = tf.function(rounded, autograph=False), tf.function(price, autograph=False)
    seen[name] = int(np.sum(graph_rounded(scores).numpy() != rounded(scores).numpy()))
    prices = int(np.sum(graph_price(cents).numpy() != price(cents).numpy()))
    print(f"{name}: -0.12346 is {float(graph_rounded(one)[0])!r}, eagerly {float(rounded(one)[0])!r};", end=" ")
    print(f"of 100,000 rounded scores {seen[name]} differ, of 100,000 prices {prices}")
if seen["default"] == 0 or seen["constant_folding off"] != 0:
    sys.exit("a division by a constant has the same bits in a graph now, or constant folding is not the reason")
END
