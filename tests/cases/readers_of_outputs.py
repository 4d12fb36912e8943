"""Programs that read the folder of an output find the rows of its parts, and never those that were rejected

Spark reads it by the very line of the README. Expected is what pyarrow reads of the parts.
"""

import pyarrow as pa
from case import ROOT, check, double, end, parquet, score, written_by, written_by_spark
from reading_lines import reading_lines

model = double()
rows = pa.table({"id": [1, 2, 3], "x": pa.array([1.0, None, 3.0], pa.float32())})
fixed = ["--set", "limits.on_bad_row=reject", "--set", "limits.max_rejected_rows=50%", "--set", "limits.shard_rows=1"]
done = score(model, parquet("in", rows, row_group_size=1), "--keep", "id", *fixed, output="scores")
check(done.table is not None and done.table["id"].to_pylist() == [1, 3], "the good rows are not scored", done)
check(len([*(ROOT / "scores" / "_run").rglob("rejects/*")]) == 1, "no row was rejected", done)

(spark,) = [line for library, line in reading_lines("README.md", "reads scores") if library == "spark"]
found = written_by_spark(f"print(sorted(row.id for row in {spark}.collect()))")
check(found.strip().endswith("[1, 3]"), f"`{spark}` finds other rows: {found}")

found = written_by(
    """
    import deltalake, datafusion, chdb, shutil
    context = datafusion.SessionContext()
    context.register_parquet("scores", "scores/")
    print("datafusion", sorted(context.sql("SELECT id FROM scores").to_arrow_table()["id"].to_pylist()))
    print("clickhouse", str(chdb.query("SELECT id FROM file('scores/**.parquet') ORDER BY id")).split())
    shutil.copytree("scores", "delta")
    deltalake.convert_to_deltalake("delta")
    print("delta", sorted(deltalake.DeltaTable("delta").to_pyarrow_table()["id"].to_pylist()))
    """
)
for line in ("datafusion [1, 3]", "clickhouse ['1', '3']", "delta [1, 3]"):
    check(line in found, f"expected {line}:\n{found}")
end()
