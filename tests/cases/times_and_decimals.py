"""DuckDB's timestamps, dates and decimals feed tensors where the job says how, and name their bad rows

Source: Parquet, LogicalTypes.md (DECIMAL, TIMESTAMP, DATE).
"""

import tensorflow as tf
from case import ROOT, check, end, saved_model, score, written_by

written_by(
    """
    import duckdb
    duckdb.sql(
        "COPY (SELECT TIMESTAMP '2024-02-29 12:30:00.25' AS at, DATE '1969-12-31' AS day,"
        " 0.10::DECIMAL(10, 2) AS price, 7.00::DECIMAL(38, 2) AS pieces"
        " UNION ALL SELECT TIMESTAMP '1970-01-01', DATE '2024-02-29', 1234567.89, 3.50)"
        " TO 'in.parquet'"
    )
    """
)
names = {"at": "int64", "day": "int32", "price": "float64", "pieces": "int64"}
model = saved_model(
    lambda at, day, price, pieces: {"at_is": at, "day_is": day, "price_is": price, "pieces_are": pieces},
    *(tf.TensorSpec([None], dtype, name) for name, dtype in names.items()),
)
refused = score(model, ROOT / "in.parquet")
told = all(key in refused.told for key in ("columns.inputs.at.timestamp: us", "columns.inputs.day.timestamp: d"))
check(refused.code == 2 and told, "the lines that help are not all named", refused)

rules = [
    ("--set", f"columns.inputs.{name}={{column: {name}, {key}}}")
    for name, key in (("at", "timestamp: us"), ("day", "timestamp: d"))
]
fixed = [word for rule in rules for word in rule]
bad = score(model, ROOT / "in.parquet", *fixed)
check(bad.code == 65 and "ROW_INEXACT" in bad.told, "3.50 pieces became a number", bad)
done = score(
    model, ROOT / "in.parquet", *fixed, "--set", "limits.on_bad_row=reject", "--set", "limits.max_rejected_rows=1"
)
wanted = {"at_is": [1709209800250000], "day_is": [-1], "price_is": [0.1], "pieces_are": [7]}
check(done.table is not None and done.table.to_pydict() == wanted, f"expected {wanted}", done)
end()
