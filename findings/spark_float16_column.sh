#!/usr/bin/env bash
# Spark refuses a whole Parquet file because of one column of FLOAT16, also where that column is not selected. So it does for TIME. With a
# schema that leaves the column out, `spark.read.schema(...)`, the same file is read.
#
# pyspark 4.3.0 (needs Java 17 or later), pyarrow 26.0.1. Guess: only a query that selects the column fails; columns are read one by one.
# Documentation: `spark.read.parquet` says nothing of a column whose type Spark lacks. FLOAT16 and TIME are in Parquet's LogicalTypes.md.
# Why it matters: a writer that adds one embedding as half floats, to save room, ends the jobs of all readers of the table.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v java > /dev/null || { echo "needs Java 17 or later" >&2; exit 2; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyspark==4.3.0 pyarrow==26.0.1 numpy==2.4.6 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - 2> spark.log <<'EOF' || { tail -n 5 spark.log >&2; exit 1; }
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()

def ids(how, read):
    try:
        seen = [row.id for row in read().select("id").collect()]
    except Exception as error:
        seen = " ".join(str(error).split()[:8])
    print(f"{how}: {seen}")
    return seen

seen = {}
for name, column in {"half": pa.array(np.array([1, 2], "f2")), "time": pa.array([1, 2], pa.time64("us"))}.items():
    pq.write_table(pa.table({"id": [1, 2], "other": column}), f"{name}.parquet")
    path = f"{name}.parquet"
    seen[name] = ids(f"select id beside {column.type}", lambda: spark.read.parquet(path))
    seen[name + " with a schema"] = ids("  with a schema of id alone", lambda: spark.read.schema("id BIGINT").parquet(path))
spark.stop()
if [type(value) for value in seen.values()] != [str, list, str, list]:
    sys.exit("Spark no longer refuses a file for a column that is not selected")
EOF
