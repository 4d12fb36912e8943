#!/usr/bin/env bash
# pyarrow reads 1500-03-01 of an ORC file that Spark wrote as 1500-03-11. The file's footer says that its dates are counted in Java's old calendar,
# which is Julian before 1582-10-15; Spark and Hive write so, and pyarrow takes no notice. The same table as Parquet is read right.
#
# pyspark 4.3.0 (needs Java 17 or later), pyarrow 26.0.1. Guess: both files hold the same days, as Spark 3 went over to the calendar of ISO 8601.
# Documentation: Footer.calendar of orc_proto.proto says which calendar it is; the page of `pyarrow.orc` says nothing of it.
# Why it matters: 0001-01-01 and 0100-01-01 stand for "unknown" in many tables, and compare unequal after the detour.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v java > /dev/null || { echo "needs Java 17 or later" >&2; exit 2; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyspark==4.3.0 pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - 2> spark.log <<'PY' || { tail -n 5 spark.log >&2; exit 1; }
import sys
import pyarrow as pa, pyarrow.orc, pyarrow.dataset as ds
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
rows = spark.sql("SELECT * FROM VALUES (DATE '1500-03-01'), (DATE '0001-01-01'), (DATE '1582-10-15') AS t(day)").coalesce(1)
rows.write.orc("orc")
rows.write.parquet("parquet")

seen = {"Spark": [str(row.day) for row in spark.read.orc("orc").collect()]}
for kind in ("orc", "parquet"):
    days = ds.dataset(kind, format=kind).to_table()["day"].cast(pa.string())
    seen[f"pyarrow, {kind}"] = days.to_pylist()
for reader, days in seen.items():
    print(f"{reader:17}", *days)
written = ["1500-03-01", "0001-01-01", "1582-10-15"]
if not seen["Spark"] == seen["pyarrow, parquet"] == written or seen["pyarrow, orc"][0] != "1500-03-11":
    sys.exit("pyarrow heeds the calendar of an ORC file now, or Spark writes another one")
PY
