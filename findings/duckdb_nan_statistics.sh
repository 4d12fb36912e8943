#!/usr/bin/env bash
# A NaN in a Parquet file is lost by DuckDB's filter as soon as the row group's statistics leave no room for it: `where isnan(score)`
# finds nothing, `max(score)` says no NaN, and how many rows `score > 0.5` has depends on the size of the row groups.
#
# duckdb 2.0.1, pyarrow 26.0.1. Guess: in DuckDB NaN is the greatest number, so all three see the rows, as they do over a table in memory.
# Documentation: `read_parquet` has an option `can_have_nan` (pull request 17883), which is false by default.
# Why it matters: the first check of a scoring output is "how many scores are NaN?"; here it answers 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import sys, duckdb, numpy as np, pyarrow as pa, pyarrow.parquet as pq

nan = float("nan")
scores = pa.table({"id": range(6), "score": [0.1, 0.4, nan, nan, 0.6, 0.4]})
pq.write_table(scores, "small.parquet", row_group_size=3)
pq.write_table(scores, "large.parquet", row_group_size=6)

def look(source):
    one = lambda sql: duckdb.sql(sql.format(source)).fetchall()[0][0]
    return {
        "isnan": one("select count(*) from {} where isnan(score)"),
        "> 0.5": one("select count(*) from {} where score > 0.5"),
        "max": one("select max(score) from {}"),
    }

seen = {name: look(source) for name, source in {
    "memory": "scores", "3 rows a group": "'small.parquet'", "6 rows a group": "'large.parquet'",
    "can_have_nan": "read_parquet('small.parquet', can_have_nan=true)"}.items()}
for name, values in seen.items():
    print(f"{name:15}", values)
if seen["3 rows a group"]["isnan"] == 2 and seen["3 rows a group"]["> 0.5"] == seen["6 rows a group"]["> 0.5"] == 3:
    sys.exit("DuckDB sees the NaN rows of a Parquet file now")
EOF
