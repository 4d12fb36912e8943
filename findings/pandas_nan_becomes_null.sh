#!/usr/bin/env bash
# A NaN score that pandas reads into an Arrow-backed column is a NaN until the column is touched: `score * 1` is null, and so is what is
# written. With `dtype_backend="numpy_nullable"` it is null at once.
#
# pandas 3.1.1, pyarrow 26.0.1. Guess: the nullable types exist to keep NaN (the model said so) apart from null (no score), through
# arithmetic too; an untouched round trip does keep them apart.
# Documentation: the option `future.distinguish_nan_and_na` (False) says that NaN is coerced to NA by default; that an Arrow column keeps it
# until the first operation it does not say.
# Why it matters: a step between (a scale, a clip, a rename that copies) turns failed scores into missing ones; counts of NaN say 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import sys, pandas as pd, pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq

pq.write_table(pa.table({"score": [0.5, float("nan"), None]}), "in.parquet")

def after(backend, step):
    frame = pd.read_parquet("in.parquet", dtype_backend=backend)
    frame["score"] = step(frame["score"])
    frame.to_parquet("out.parquet")
    column = pq.read_table("out.parquet")["score"]
    return {"NaN": pc.sum(pc.is_nan(column)).as_py() or 0, "null": column.null_count}

seen = {}
for backend in ("pyarrow", "numpy_nullable"):
    for name, step in {"as read": lambda score: score, "score * 1": lambda score: score * 1}.items():
        seen[backend, name] = after(backend, step)
        print(f"{backend:15} {name:10}", seen[backend, name])
if seen["pyarrow", "as read"] == seen["pyarrow", "score * 1"]:
    sys.exit("an Arrow-backed column treats NaN alike before and after arithmetic now")
EOF
