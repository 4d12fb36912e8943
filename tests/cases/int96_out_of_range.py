"""Spark's INT96 timestamps of the years 1 and 9999 are kept as the instants that they are

Reports: apache/datafusion#1359, aws/aws-sdk-pandas#3358. Source: Parquet, LogicalTypes.md (a Julian day, nanoseconds).
"""

import datetime as dt

import pyarrow as pa
from case import ROOT, check, double, end, score, written_by_spark

DATES = ["0001-01-01 00:00:00", "1900-01-01 00:00:00", "2024-02-29 12:30:00", "9999-12-31 23:59:59"]

written_by_spark(
    """
    import sys
    values = ", ".join(f"(CAST(1 AS FLOAT), TIMESTAMP '{date}')" for date in sys.argv[1:])
    spark.sql(f"SELECT * FROM VALUES {values} AS t(x, until)").coalesce(1).write.parquet("in")
    """,
    *DATES,
    spark__sql__parquet__outputTimestampType="INT96",
)
done = score(double(), ROOT / "in", "--keep", "until")
wanted = [dt.datetime.fromisoformat(date) for date in DATES]
found = done.table and done.table["until"].cast(pa.timestamp("us"), safe=False).to_pylist()
check(found == wanted, f"{wanted} became {found}", done)
end()
