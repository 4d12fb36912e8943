"""Columns of float16, time and nanoseconds, for which Spark refuses a part as a whole, are said by `plan`

Source: Spark's `ParquetToSparkSchemaConverter`, which looks at all columns of a file.
"""

import datetime as dt

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner, score, written_by_spark

KINDS = {"h": pa.float16(), "t": pa.time64("us"), "n": pa.timestamp("ns"), "m": pa.time32("ms")}
VALUES = {"h": [1.0, 2.0], "t": [dt.time(1)] * 2, "n": [dt.datetime(2024, 1, 1)] * 2, "m": [dt.time(2)] * 2}
X = pa.array([1, 2], pa.float32())

model = double()
for name, kind in KINDS.items():
    source = parquet(f"in_{name}", pa.table({"x": X, name: pa.array(VALUES[name], kind)}))
    told = runner("plan", "--model", model, "--input", source, "--output", ROOT / "o", "--keep", name)
    check("Spark 4.3 refuses the parts as a whole" in told.told, f"nothing is said of {kind}", told)
    done = score(model, source, "--keep", name, output=f"out_{name}")
    check(done.code == 0, f"a column of {kind} is not kept", done)

READ = """
import sys
for name in "htnm":
    try:
        spark.read.parquet(f"out_{name}/part-*").select("y").collect()
        print(name, "read")
    except Exception as error:
        print(name, "refused")
    print(name, [row.y for row in spark.read.schema("y float").parquet(f"out_{name}/part-*").collect()])
"""
found = written_by_spark(READ)
check(found.count("refused") == 4, f"Spark reads more than is said:\n{found}")
check(found.count("[2.0, 4.0]") == 4, f"a schema without the column does not help:\n{found}")
settings = {
    "spark__sql__timeType__enabled": "true",
    "spark__sql__legacy__parquet__nanosAsLong": "true",
}
found = written_by_spark(READ, **settings)
check("t read" in found and "n read" in found, f"the settings do not help:\n{found}")
end()
