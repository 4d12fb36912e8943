#!/usr/bin/env bash
# The date 9999-12-31 in an INT96 column of Parquet is read as 1816-03-29, without a word: read_table counts nanoseconds in 64 bits and wraps.
# With the option that helps, coerce_int96_timestamp_unit="us", digits below a microsecond are cut off without a word instead.
#
# pyarrow 26.0.1. Guess: an error, as a safe cast gives for both ("would result in out of bounds timestamp", "would lose data").
# Documentation: `read_table` says of `coerce_int96_timestamp_unit` that it casts to a resolution and that None is 'ns', not what becomes of a
# value that the unit does not hold.
# Why it matters: Spark, Hive and Impala write INT96, and "for ever" in a warehouse is 9999-12-31: contracts end 200 years before they begin.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import datetime as dt, sys, pyarrow as pa, pyarrow.parquet as pq

def read(name, values, **options):
    """As text, of a file that says INT96 and no more."""
    pq.write_table(pa.table({"t": values}), f"{name}.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    column = pq.read_table(f"{name}.parquet", **options)["t"]
    seen = column.cast(pa.string()).to_pylist()
    print(f"{name} {options or ''}: wrote {values.cast(pa.string()).to_pylist()}, read {column.type} {seen}")
    return seen

dates = pa.array([dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1), dt.datetime(2024, 2, 29)], pa.timestamp("us"))
wrapped = read("dates", dates)
right = read("dates", dates, coerce_int96_timestamp_unit="us")
cut = read("digits", pa.array([1709164800000000001], pa.timestamp("ns")), coerce_int96_timestamp_unit="us")
for values, unit in ((dates, "ns"), (pa.array([1709164800000000001], pa.timestamp("ns")), "us")):
    try:
        values.cast(pa.timestamp(unit))
        sys.exit("a safe cast no longer refuses these values")
    except pa.ArrowInvalid as error:
        print("a safe cast:", error)
if wrapped[0][:10] != "1816-03-29" or right[0][:10] != "9999-12-31" or cut != ["2024-02-29 00:00:00.000000"]:
    sys.exit("pyarrow no longer wraps or cuts INT96 timestamps without a word")
EOF
