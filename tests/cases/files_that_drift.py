"""Files of one table that Spark, Polars, pandas and DuckDB wrote with types of their own are one table, value by value

What differs: digits of decimals, units of times, small integers beside floats, text beside bytes, lists of a fixed
size, fields of structs. Source: pyarrow, `unify_schemas` with `promote_options="permissive"`.
"""

import datetime as dt
import decimal

import tensorflow as tf
from case import ROOT, check, end, runner, saved_model, score, written_by, written_by_spark

written_by_spark(
    """
    spark.sql("SELECT 0 id, CAST(1.5 AS DECIMAL(10, 2)) price, TIMESTAMP '2024-02-29 12:30:00' at, CAST(3 AS SHORT) n,"
              " 'text' t, array(1F, 2F) v, named_struct('b', 1, 'a', 2F) s").coalesce(1).write.parquet("in")
    """,
    spark__sql__parquet__outputTimestampType="TIMESTAMP_MICROS",  # INT96 has no zone
)
written_by(
    """
    import datetime as dt, decimal
    import duckdb, pandas as pd, polars as pl

    at = dt.datetime(2024, 2, 29, 12, 30, 0, 250000)
    schema = {"id": pl.Int32, "price": pl.Decimal(12, 4), "at": pl.Datetime("ms", "UTC"), "n": pl.Float32,
              "t": pl.Binary, "v": pl.Array(pl.Float32, 2), "s": pl.Struct({"a": pl.Float32, "b": pl.Int64})}
    struct = {"a": 1.5, "b": 2**40}
    row = [1, decimal.Decimal("2.0625"), at.replace(tzinfo=dt.timezone.utc), 0.5, b"bytes", [3, 4], struct]
    pl.DataFrame([row], schema=schema, orient="row").write_parquet("in/polars.parquet")
    duckdb.sql(
        "COPY (SELECT 2::BIGINT id, 12345678901.25::DECIMAL(18, 2) price,"
        " TIMESTAMPTZ '2024-02-29 12:30:00.000001+00' AS at, 7::TINYINT n,"
        " 'duck' t, [5.0::FLOAT, 6.0::FLOAT] v, {'a': 0.25::FLOAT, 'b': 3, 'c': 'grown'} s)"
        " TO 'in/duckdb.parquet'"
    )
    frame = pd.DataFrame({"id": [3], "price": [decimal.Decimal("9")], "at": pd.to_datetime([at]).tz_localize("UTC"),
                          "n": pd.array([8], "Int64"), "t": [None], "v": [[7.0, 8.0]], "s": [{"a": 2.0}]})
    frame.to_parquet("in/pandas.parquet", index=False)
    """
)
model = saved_model(
    lambda n, v, a: {"y": n + tf.reduce_sum(v, 1) + a},
    tf.TensorSpec([None], tf.float32, "n"),
    tf.TensorSpec([None, 2], tf.float32, "v"),
    tf.TensorSpec([None], tf.float32, "a"),
)
kept = [word for name in ("id", "price", "at", "n", "t", "s") for word in ("--keep", name)]
done = score(model, ROOT / "in", "--map", "a=s.a", *kept)
rows = sorted(done.table.to_pylist(), key=lambda row: row["id"]) if done.table else []
noon, utc = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC), dt.timedelta(microseconds=1)
wanted = {
    "y": [8.0, 9.0, 18.25, 25.0],
    "price": [decimal.Decimal(text) for text in ("1.5", "2.0625", "12345678901.25", "9")],
    "at": [noon, noon + 250_000 * utc, noon + utc, noon + 250_000 * utc],
    "n": [3.0, 0.5, 7.0, 8.0],
    "t": [b"text", b"bytes", b"duck", None],
    "s": [
        {"a": 2.0, "b": 1, "c": None},
        {"a": 1.5, "b": 2**40, "c": None},
        {"a": 0.25, "b": 3, "c": "grown"},
        {"a": 2.0, "b": None, "c": None},
    ],
}
check(bool(rows), "they are not one table", done)
for name, values in wanted.items():
    found = [row[name] for row in rows]
    check(not rows or found == values, f"{name} became {found}; expected {values}")

written_by("import polars; polars.read_parquet('in/duckdb.parquet').drop('v').write_parquet('in/without.parquet')")
lacking = runner("plan", "--model", model, "--input", ROOT / "in", "--output", "out", "--map", "a=s.a")
told = "COLUMN_MISSING" in lacking.told and "without.parquet" in lacking.told
check(lacking.code == 2 and told, "which file lacks a column is not said", lacking)
end()
