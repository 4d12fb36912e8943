"""All that Polars, DuckDB, ClickHouse, DataFusion, pandas and fastparquet write into Parquet is kept, value by value

Expected is what pyarrow reads of the file, and some values as they were written, so that both cannot be wrong alike.
"""

import json

import pyarrow.parquet as pq
from case import ROOT, check, double, end, score, written_by

TRUTH = json.loads(
    written_by(
        '''
        import datetime as dt, decimal, json
        import chdb, datafusion, duckdb, numpy as np, pandas as pd, polars as pl

        D = decimal.Decimal
        pl.DataFrame([
            pl.Series("x", [1.0, 2.0], pl.Float32), pl.Series("i8", [-128, None], pl.Int8),
            pl.Series("u64", [2**64 - 1, None], pl.UInt64), pl.Series("text", ["longer than twelve bytes", None]),
            pl.Series("kind", ["b", None], pl.Categorical), pl.Series("level", ["hi", None], pl.Enum(["lo", "hi"])),
            pl.Series("price", [D("-2.50"), None], pl.Decimal(38, 2)), pl.Series("day", [dt.date(1, 1, 1), None]),
            pl.Series("time", [dt.time(23, 59, 59, 999999), None]), pl.Series("took", [dt.timedelta(days=1), None]),
            pl.Series("at", [dt.datetime(2024, 2, 29), None], pl.Datetime("ns", "Europe/Berlin")),
            pl.Series("bytes", [bytes([0]), None]), pl.Series("truth", [True, None]), pl.Series("void", [None, None]),
            pl.Series("list", [[1, None], None]), pl.Series("array", [[1.0, 2.0], None], pl.Array(pl.Float32, 2)),
            pl.Series("struct", [{"a": 1, "b": "x"}, None]), pl.Series("lists", [[["a"], []], None]),
        ]).write_parquet("polars.parquet")
        pl.scan_parquet("polars.parquet").sink_parquet("polars_sink.parquet")
        duckdb.sql("""
            COPY (SELECT 1::FLOAT x, 2::HUGEINT huge, 18446744073709551615::UBIGINT u64, 1.25::DECIMAL(38, 2) price,
                '00000000-0000-0000-0000-000000000001'::UUID uuid, 'lo'::ENUM('lo', 'hi') AS level,
                INTERVAL '1 month 2 days 3 seconds' AS span, [1, 2] list, array_value(1.0::FLOAT, 2.0::FLOAT) AS array,
                {'a': 1, 'b': 'x'} struct, MAP {'k': 1} pairs, '{"a": 1}'::JSON json, '101'::BIT bits, 'b'::BLOB bytes,
                TIMESTAMP_NS '2024-02-29 00:00:00.000000001' ns, TIMESTAMPTZ '2024-02-29 00:00:00+00' AS tz,
                TIME '23:59:59' AS clock, DATE '9999-12-31' AS day, NULL::INTEGER nothing) TO 'duckdb.parquet'
        """)
        chdb.query("""
            SELECT toFloat32(1) x, toInt128(2) huge, toUInt256(7) larger, toUInt64(18446744073709551615) u64,
                toUUID('00000000-0000-0000-0000-000000000001') uuid, toLowCardinality('low') kind,
                CAST('hi' AS Enum8('lo' = 1, 'hi' = 2)) level, toDateTime('2024-02-29 12:00:00', 'UTC') at,
                toDateTime64('2024-02-29 12:00:00.123456789', 9, 'UTC') ns, toDate('2024-02-29') day,
                toDate32('1900-01-01') early, toDecimal128('1.25', 2) price, toDecimal256('1.25', 2) wide,
                [1, 2]::Array(UInt8) list, map('k', 1) pairs, tuple(1, 'a')::Tuple(a UInt8, b String) struct,
                toIPv4('1.2.3.4') ip4, toIPv6('::1') ip6, NULL::Nullable(String) nothing, toFixedString('ab', 2) fixed,
                true truth INTO OUTFILE 'clickhouse.parquet' FORMAT Parquet
        """)
        datafusion.SessionContext().sql("""
            COPY (SELECT arrow_cast(1, 'Float32') x, 'text' AS "text", arrow_cast('view', 'Utf8View') AS "view",
                arrow_cast('d', 'Dictionary(Int32, Utf8)') kind, make_array(1, 2) list, named_struct('a', 1) struct,
                arrow_cast(1.25, 'Decimal128(20, 2)') price, arrow_cast(1.5, 'Float16') half,
                arrow_cast('2024-02-29T00:00:00', 'Timestamp(ns, Some("UTC"))') at, arrow_cast('b', 'Binary') bytes,
                arrow_cast('12:00:00', 'Time64(ns)') clock, arrow_cast(3, 'Duration(s)') took
            ) TO 'datafusion.parquet' STORED AS PARQUET
        """).collect()
        frame = pd.DataFrame({
            "x": np.array([1, 2], "f4"), "kind": pd.Categorical(["a", None]), "rank": pd.Categorical([2, 1]),
            "text": ["a", None], "n": pd.array([2**53 + 1, None], "Int64"), "truth": pd.array([True, None], "boolean"),
            "at": pd.to_datetime(["1600-01-01", None]), "took": pd.to_timedelta([1, None], unit="s"),
            "month": pd.PeriodIndex(["2024-01", None], freq="M"), "span": pd.IntervalIndex.from_breaks([0, 1, 2]),
            "bytes": [b"a", None], "single": pd.array([1.5, None], "Float32"),
        }, index=pd.Index([5, 6], name="key"))
        frame.to_parquet("pandas.parquet")
        frame["at"] = pd.to_datetime(["2024-02-29 12:30:00.000000001", None])
        frame = frame.drop(columns=["month", "span", "rank"])
        frame.to_parquet("fastparquet.parquet", engine="fastparquet")
        frame.drop(columns=["took"]).to_parquet("fastparquet96.parquet", engine="fastparquet", times="int96")
        truth = {
            "polars": {"u64": 2**64 - 1, "kind": "b", "level": "hi", "day": "0001-01-01", "price": "-2.50"},
            "polars_sink": {"u64": 2**64 - 1, "kind": "b", "level": "hi"},
            "duckdb": {"u64": 2**64 - 1, "level": "lo", "day": "9999-12-31", "price": "1.25", "huge": 2.0},
            "clickhouse": {"u64": 2**64 - 1, "kind": "low", "day": "2024-02-29", "early": "1900-01-01", "wide": "1.25"},
            "datafusion": {"view": "view", "kind": "d", "price": "1.25", "half": 1.5},
            "pandas": {"kind": "a", "rank": 2, "n": 2**53 + 1, "at": "1600-01-01 00:00:00", "key": 5},
            "fastparquet": {"kind": "a", "n": 2**53 + 1, "key": 5},
            "fastparquet96": {"kind": "a", "n": 2**53 + 1, "key": 5},
        }
        print(json.dumps(truth))
        '''
    ).splitlines()[-1]
)
model = double()
for name, truth in TRUTH.items():
    path = ROOT / f"{name}.parquet"
    kept = [word for column in pq.read_schema(path).names if column != "x" for word in ("--keep", column)]
    done = score(model, path, *kept)
    check(done.table is not None, f"{name}: not all columns are kept", done)
    if done.table is None:
        continue
    wanted = pq.read_table(path)
    for column in wanted.schema.names[1:]:
        if column == "x":
            continue
        values = wanted[column].to_pylist()
        found = done.table[column].to_pylist()
        check(found == values, f"{name}: {column} ({wanted.schema.field(column).type}) became {found}; not {values}")
    for column, value in truth.items():
        first = done.table[column].to_pylist()[0]
        first = first.decode() if isinstance(first, bytes) else first
        right = first == value or str(first) == value
        check(right, f"{name}: {column} became {first!r}; {value!r} was written")
# Lists whose elements are never null, as ClickHouse states them, feed a tensor too.
wide = double("int64", (None, 2), "wide")
done = score(wide, ROOT / "clickhouse.parquet", "--map", "x=list")
check(done.table is not None and done.table["y"].to_pylist() == [[2, 4]], "an array of ClickHouse", done)
end()
