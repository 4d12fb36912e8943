"""All that Spark writes into Parquet is kept, value by value: times, decimals, maps, structs, intervals, variants

Expected is what pyarrow reads of the file, and some values as they were written.
"""

import datetime as dt
from decimal import Decimal

import pyarrow.parquet as pq
from case import ROOT, check, double, end, score, written_by_spark

written_by_spark(
    """
    columns = [
        "CAST(1 AS FLOAT) x", "CAST(-128 AS BYTE) i8", "CAST(2 AS BIGINT) i64", "CAST(1.25 AS DECIMAL(10, 2)) price",
        "CAST('-12345678901234567890.12' AS DECIMAL(38, 2)) wide", "'text' text", "X'00ff' bytes", "true truth",
        "DATE '9999-12-31' day", "TIMESTAMP '2024-02-29 12:30:00' at", "array(1, NULL) list",
        "TIMESTAMP_NTZ '0001-01-01 00:00:00' local", "map('k', 1) pairs", "named_struct('a', 1, 'b', 'x') struct",
        "array(named_struct('a', array('b'))) lists", "INTERVAL '1-2' YEAR TO MONTH span",
        "INTERVAL '1 02:03:04' DAY TO SECOND took", "parse_json('{\\"a\\": 1}') v", "CAST(NULL AS STRING) nothing",
    ]
    for codec in ("snappy", "gzip", "zstd", "lz4_raw"):
        spark.sql(f"SELECT {', '.join(columns)}").coalesce(1).write.option("compression", codec).parquet(f"in/{codec}")
    """
)
model = double()
truth = {
    "price": Decimal("1.25"),
    "wide": Decimal("-12345678901234567890.12"),
    "day": dt.date(9999, 12, 31),
    "local": dt.datetime(1, 1, 1),
    "pairs": [("k", 1)],
    "span": 14,
}
for codec in ("snappy", "gzip", "zstd", "lz4_raw"):
    (path,) = (ROOT / "in" / codec).glob("*.parquet")
    wanted = pq.read_table(path)
    kept = [word for column in wanted.schema.names if column != "x" for word in ("--keep", column)]
    done = score(model, ROOT / "in" / codec, *kept)
    check(done.table is not None, f"{path.name}: not all columns are kept", done)
    for column in wanted.schema.names[1:] if done.table else []:
        values, found = wanted[column].to_pylist(), done.table[column].to_pylist()
        check(found == values, f"{path.name}: {column} ({wanted.schema.field(column).type}): {found}, not {values}")
    for column, value in truth.items() if done.table else []:
        found = done.table[column].to_pylist()
        check(found == [value], f"{path.name}: {column} became {found}; {value!r} was written")
# Arrays that hold no null say so in the file.
written_by_spark('spark.sql("SELECT array(1F, 2F) x").coalesce(1).write.parquet("arrays")')
done = score(double(shape=(None, 2), name="wide"), ROOT / "arrays")
check(done.table is not None and done.table["y"].to_pylist() == [[2.0, 4.0]], "an array of Spark", done)
end()
