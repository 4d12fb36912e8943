"""A folder `_year=2020` of Spark is read, also as a glob, and a column that stands in its name is told so

Source: Spark, partition discovery: hidden is what begins with "_" and has no "=".
"""

from case import ROOT, check, double, end, runner, score, written_by_spark

written_by_spark(
    """
    rows = "(1F, 2020), (2F, 2020), (3F, 2021)"
    spark.sql(f"SELECT * FROM VALUES {rows} AS t(x, _year)").coalesce(1).write.partitionBy("_year").parquet("in")
    """
)
model = double()
for source, rows in {"in": 3, "in/_year=2020": 2, "in/_year=*/*.parquet": 3}.items():
    done = score(model, ROOT / source)
    check(done.table is not None and done.table.num_rows == rows, f"{source} has {rows} rows", done)
plan = runner("plan", "--model", model, "--input", "in", "--output", "out", "--keep", "_year")
told = "COLUMN_MISSING" in plan.told and "_year=20" in plan.told
check(plan.code == 2 and told, "the column in the folder's name is not mentioned", plan)
end()
