#!/usr/bin/env bash
# A cast of decimals to float64 is off by one bit in one of eight prices: 9334.88 becomes 9334.880000000001. By way of text each value is
# the nearest double.
#
# pyarrow 26.0.1. Guess: the nearest double, which is what Python's float(Decimal), SQL engines and the cast of text give.
# Documentation: `pyarrow.compute.cast` says of `safe` "Check for overflows or other unsafe conversions", and nothing of rounding.
# Why it matters: a join or a test for equality with the same price from CSV or JSON misses rows; a sum of cents is printed with twelve nines.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import random, sys, pyarrow as pa
from decimal import Decimal

random.seed(0)
prices = [Decimal(random.randrange(10**6)) / 100 for _ in range(20_000)]
nearest = [float(price) for price in prices]
column = pa.array(prices, pa.decimal128(20, 2))

def off(how, found):
    wrong = [(str(price), value) for price, value, right in zip(prices, found.to_pylist(), nearest) if value != right]
    print(f"{how}: {len(wrong)} of {len(prices)} are not the nearest double", *wrong[:3])
    return len(wrong)

direct = off("cast to float64", column.cast(pa.float64()))
by_text = off("cast to text, then to float64", column.cast(pa.string()).cast(pa.float64()))
if not direct or by_text:
    sys.exit("pyarrow no longer rounds decimals to other doubles than the nearest")
EOF
