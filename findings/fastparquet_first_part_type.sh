#!/usr/bin/env bash
# fastparquet reads a folder of parts into arrays of the first part's types: 64-bit ids are cut to 32 bits and scores lose their
# fraction, without a word. A column that a pandas writer left empty (all None) in the first part turns all later scores into 0.
#
# fastparquet 2026.9.0, pandas 3.1.1, pyarrow 26.0.1. Guess: refused, or the common type, as pandas.concat gives.
# Documentation: `ParquetFile` says nothing of parts whose types differ.
# Why it matters: ids 2**40+5 and 5 become one row in a join, and a table of zeros passes every check of counts and nulls.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fastparquet==2026.9.0 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import os, sys, pandas as pd, pyarrow as pa, pyarrow.parquet as pq
from fastparquet import ParquetFile

def read(name, first, second):
    os.mkdir(name)
    pq.write_table(pa.table({"v": first}), f"{name}/part-0.parquet")
    pq.write_table(pa.table({"v": second}), f"{name}/part-1.parquet")
    try:
        seen = ParquetFile(name).to_pandas()["v"].tolist()
    except Exception as error:
        seen = type(error).__name__
    print(f"{name:13} {first.type} {first.to_pylist()} then {second.type} {second.to_pylist()}: read {seen}")
    return seen

ids = read("ids", pa.array([1, 2], pa.int32()), pa.array([2**40 + 5, 7]))
scores = read("scores", pa.array([0, 1]), pa.array([0.7, 0.99]))
read("empty_first", pa.array([None, None], pa.null()), pa.array([0.7, 0.99]))
if ids != [1, 2, 5, 7] or scores != [0, 1, 0, 0]:
    sys.exit("fastparquet no longer forces later parts into the first part's types")
EOF
