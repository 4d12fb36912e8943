#!/usr/bin/env bash
# DuckDB reads many Parquet files with the types of the first one, and casts the rest: where the first part's scores are whole numbers,
# the double scores of all other parts are rounded to 0 and 1, without a word.
#
# duckdb 2.0.1, pyarrow 26.0.1. Guess: refused for a type mismatch, as pyarrow and polars do; a lossy cast would be an error.
# Documentation: "Combining Schemas" says that the first file's schema is taken, and that this "works correctly as long as all files have the same
# schema"; of a lossy cast it says nothing. union_by_name gives the common type.
# Why it matters: writers that infer types per part (pandas, JSON) write int64 where a part's scores happen to be 0 and 1. Every score of the
# other parts is then wrong, and sums and counts above a threshold look plausible.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import os, sys, duckdb, pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq

os.mkdir("scores")
pq.write_table(pa.table({"score": pa.array([0, 1], pa.int64())}), "scores/part-0.parquet")
pq.write_table(pa.table({"score": [0.7, 0.51, 0.12]}), "scores/part-1.parquet")
plain = [row[0] for row in duckdb.sql("from 'scores/*.parquet'").fetchall()]
above = duckdb.sql("select count(*) from 'scores/*.parquet' where score > 0.6").fetchall()[0][0]
named = [row[0] for row in duckdb.sql("from read_parquet('scores/*.parquet', union_by_name=true)").fetchall()]
print("written          [0, 1] and [0.7, 0.51, 0.12]: 2 scores above 0.6")
print("duckdb          ", plain, f"{above} scores above 0.6")
print("union_by_name   ", named)
try:
    print("pyarrow         ", ds.dataset("scores").to_table()["score"].to_pylist())
except pa.ArrowInvalid as error:
    print("pyarrow refuses:", error)
if plain != [0, 1, 1, 1, 0]:
    sys.exit("DuckDB no longer rounds the scores of later files to the first file's integers")
EOF
