#!/usr/bin/env bash
# An outer or right pandas.merge of an uint64 key with an int64 key matches the right rows and returns other ids: the key is float64 then, so ids beyond
# 2**53 are rounded after the match. An inner or left merge of the same tables keeps them. No warning.
#
# pandas 3.1.1, numpy 2.4.6. Guess: exact and an integer in all (polars and DuckDB are), or the warning that a merge of int with float has.
# Documentation: merge's page says nothing of the type of the key in the result.
# Why it matters: hashes as ids are uint64 (DuckDB's hash, xxhash), Delta and Iceberg have signed ones only, and an outer merge with
# `indicator` is how one looks for rows that were not scored. The number of rows is right, under ids that exist nowhere, or in several rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import sys, warnings, numpy as np, pandas as pd

base, ids = 2**60, {}
scores = pd.DataFrame({"id": np.array([base + 1, base + 2, base + 3], "uint64"), "score": [0.1, 0.2, 0.3]})
asked = pd.DataFrame({"id": np.array([base + 1, base + 2, base + 9], "int64")})
print("scores of", scores["id"].tolist(), "asked for", asked["id"].tolist())
for how in ("inner", "left", "right", "outer"):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        key = scores.merge(asked, on="id", how=how)["id"]
    ids[how] = [int(value) for value in key]
    print(f"{how:6} {key.dtype} {ids[how]}, distinct {len(set(ids[how]))}, warnings {len(said)}")
if len(set(ids["outer"])) == 4:
    sys.exit("pandas keeps the ids of an outer merge of uint64 with int64 now")
EOF
