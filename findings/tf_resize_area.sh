#!/usr/bin/env bash
# A white photograph of 375 x 500, resized to 224 x 224 with method "area", is 254 in two pixels of three after the cast to uint8: the mean of equal
# numbers comes out a little below them, and the cast cuts. So it is for all 255 grey levels above black, and for "bicubic"; "bilinear" is exact.
#
# tensorflow 2.21.0, numpy 2.4.6, on a CPU. Guess: 255 everywhere; the levels are small whole numbers, and an area mean only averages them.
# Documentation: `tf.image.resize` says that the result is float32, nothing of its last bits; `tf.cast` says that it cuts. No page puts the two
# together, and neither has an option to round.
# Why it matters: flat parts (paper, sky, a mask of zeros and ones) that are stored as uint8 after the resize are a level darker in most of their
# pixels, and a mask's 1 is 0 there. tf.round first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - 2> log <<'EOF' || { code=$?; tail -3 log >&2; exit $code; }
import os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

white, seen = tf.fill([375, 500, 1], tf.constant(255, tf.uint8)), {}
for method in ("bilinear", "area", "bicubic"):
    floats = tf.image.resize(white, [224, 224], method=method)
    cut, rounded = tf.cast(floats, tf.uint8).numpy(), tf.cast(tf.round(floats), tf.uint8).numpy()
    changed = 0
    for level in range(256):
        level_floats = tf.image.resize(tf.fill([375, 500, 1], tf.constant(level, tf.uint8)), [224, 224], method=method)
        changed += bool((tf.cast(level_floats, tf.uint8).numpy() != level).any())
    seen[method] = float((cut != 255).mean()), float((rounded != 255).mean())
    print(
        f"{method:9} {float(tf.reduce_min(floats)):.5f} to {float(tf.reduce_max(floats)):.5f}: white is lost in {seen[method][0]:.0%} of the pixels,",
        f"rounded first in {seen[method][1]:.0%}; levels that change: {changed} of 256",
    )
mask = tf.image.resize(tf.ones([375, 500, 1], tf.uint8), [224, 224], method="area")
print(f"a mask of ones: {float((tf.cast(mask, tf.uint8).numpy() == 0).mean()):.0%} zeros after the cast")
if not seen["area"][0]:
    sys.exit("an area mean of equal levels is that level now")
EOF
