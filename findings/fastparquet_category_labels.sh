#!/usr/bin/env bash
# fastparquet gives wrong labels for a categorical column whose parts have different categories: the codes of the first part are shown with
# the dictionary of the last. A "cat" becomes an "ant"; no error, no null, the same number of rows.
#
# fastparquet 2026.9.0, pandas 3.1.1, pyarrow 26.0.1. Guess: the union of the categories, as pyarrow, pandas, polars and DuckDB give, or an error.
# Documentation: found nothing that says that all parts must have one dictionary.
# Why it matters: predicted labels are what is stored as a categorical, each worker writes the labels it met, and
# `pandas.read_parquet(engine="fastparquet")` then reports other classes than the model gave.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fastparquet==2026.9.0 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import os, sys, warnings, pandas as pd

warnings.simplefilter("ignore", pd.errors.Pandas4Warning)  # fastparquet is deprecated
os.mkdir("labels")
parts = [pd.DataFrame({"id": [1, 2], "label": pd.Categorical(["cat", "dog"])}),
         pd.DataFrame({"id": [3, 4], "label": pd.Categorical(["ant", "dog"])})]
for number, part in enumerate(parts):
    part.to_parquet(f"labels/part-{number}.parquet", engine="pyarrow")
written = [label for part in parts for label in part["label"]]
seen = {engine: pd.read_parquet("labels", engine=engine)["label"].astype(str).tolist() for engine in ("pyarrow", "fastparquet")}
print("written    ", written)
for engine, labels in seen.items():
    print(f"{engine:12}", labels)
if seen["fastparquet"] == written:
    sys.exit("fastparquet reads the labels of each part right now")
EOF
