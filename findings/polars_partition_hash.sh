#!/usr/bin/env bash
# polars makes float64 of partition values that look like one: the commits 1234e567 and 4321e999 are both infinity, model versions 1.10 and
# 1.1 are one, and a group_by or join over the partition merges them.
#
# polars 2.1.0, pyarrow 26.0.1. Guess: `try_parse_hive_dates` and whole numbers are inferred; a text such as 1234e567 stays text, as in DuckDB
# and pyarrow.
# Documentation: `hive_schema` says that the schema of the partitions is inferred, not that floats are, nor that an overflow is infinity.
# Why it matters: scores of two models are partitioned by commit or version, and are averaged as those of one. Give `hive_schema`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import os, sys, polars as pl, pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq

def groups(name, values):
    for number, value in enumerate(values):
        os.makedirs(f"{name}/model={value}")
        pq.write_table(pa.table({"score": [float(number)]}), f"{name}/model={value}/part-0.parquet")
    found = pl.scan_parquet(name).group_by("model").agg(pl.len(), pl.col("score").mean()).collect().rows()
    arrow = sorted(ds.dataset(name, partitioning="hive").to_table()["model"].to_pylist())
    print(f"{values}: polars {found}, pyarrow {arrow}")
    return len(found)

commits, versions = groups("commits", ["1234e567", "4321e999"]), groups("versions", ["1.1", "1.10"])
if commits != 1:
    sys.exit("polars keeps the two commits apart now")
EOF
