#!/usr/bin/env bash
# `to_parquet(partition_cols=, engine="fastparquet")` leaves out every row whose partition value is null. Nothing is raised or warned, and
# the row count in the footers is that of the rows left.
#
# fastparquet 2026.9.0, pandas 3.1.1, pyarrow 26.0.1. Guess: they go to `label=__HIVE_DEFAULT_PARTITION__`, as pyarrow, polars, DuckDB and Delta do.
# Documentation: pandas and fastparquet say nothing of nulls in the columns to partition on.
# Why it matters: outputs are partitioned by label, model or day; rows that were rejected or not scored have no label, and exactly they vanish.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fastparquet==2026.9.0 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import os, sys, warnings, pandas as pd, pyarrow.dataset as ds

warnings.simplefilter("ignore", pd.errors.Pandas4Warning)  # fastparquet is deprecated
scores = pd.DataFrame({"id": range(5), "label": ["a", None, "b", None, "a"]})
seen = {}
for engine in ("pyarrow", "fastparquet"):
    scores.to_parquet(engine, engine=engine, partition_cols=["label"])
    folders = sorted(name for name in os.listdir(engine) if name.startswith("label="))
    seen[engine] = ds.dataset(engine, exclude_invalid_files=True).count_rows()
    print(f"{engine:12} wrote {len(scores)} rows, {seen[engine]} can be read, folders {folders}")
if seen["fastparquet"] == len(scores):
    sys.exit("fastparquet keeps rows with a null partition value now")
EOF
