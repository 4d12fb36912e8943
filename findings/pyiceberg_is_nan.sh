#!/usr/bin/env bash
# pyiceberg: `scan("score is nan")` returns nothing where all other scores of the row group are one number, in a file that pyiceberg wrote
# itself. `score != 1.0` loses the NaN rows too. With two different numbers beside the NaN both are right.
#
# pyiceberg 0.12.0, pyarrow 26.0.1. Guess: right in both; Iceberg counts NaN values per file and says that bounds leave NaN out.
# Cause: the filter is handed to pyarrow's dataset, which takes Parquet's min = max for "every value is this number".
# Documentation: pyiceberg's and pyarrow's pages say nothing; the Parquet format says "when looking for NaN values, min and max should be ignored".
# Why it matters: saturated scores (a sigmoid's 1.0, a model that always says one class) make such row groups, and the check for NaN says none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyiceberg[sql-sqlite]==0.12.0 pyarrow==26.0.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import os, sys, warnings, pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

warnings.simplefilter("ignore")
catalog = SqlCatalog("local", uri=f"sqlite:///{os.getcwd()}/catalog.db", warehouse=f"file://{os.getcwd()}/warehouse")
catalog.create_namespace("scoring")
nan, seen = float("nan"), {}
for name, scores in {"saturated": [1.0, 1.0, nan], "mixed": [1.0, 0.9, nan]}.items():
    rows = pa.table({"id": [0, 1, 2], "score": scores})
    table = catalog.create_table(f"scoring.{name}", schema=rows.schema)
    table.append(rows)
    for query in ("score is nan", "score != 1.0", "id >= 0"):
        seen[name, query] = table.scan(row_filter=query).to_arrow()["id"].to_pylist()
        print(f"{name:10} {scores} where {query:13}: ids {seen[name, query]}")
if seen["saturated", "score is nan"] == [2] or seen["mixed", "score is nan"] != [2]:
    sys.exit("pyiceberg finds the NaN row in both tables, or in none, now")
EOF
