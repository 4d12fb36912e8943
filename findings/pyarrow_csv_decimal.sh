#!/usr/bin/env bash
# pyarrow's CSV and JSON readers put 30000000 into a column of decimal128(8, 2), which ends at 999999.99, and a Parquet file written from it says
# -12949672.96. They count the digits as the file writes them, before the scale adds two: 30000000.00 is refused, 30000000 and 3e7 are not.
#
# pyarrow 26.0.1, duckdb 2.0.1 as a second reader of the Parquet file. Guess: an error, as of the value with ".00" and of the same cast in memory.
# Documentation: a precision is the number of significant digits a column can hold; the pages of both readers say nothing else.
# `validate(full=True)` sees it, `validate()` does not; `write_table` puts the low four bytes into a column of precision 8.
# Why it matters: amounts are checked by a schema so that nonsense stops the job; here it goes through, and turns into a plausible debt.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 duckdb==2.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import io, sys
import duckdb, pyarrow as pa, pyarrow.csv as csv, pyarrow.json as json, pyarrow.parquet as pq

kind = pa.decimal128(8, 2)
by_csv = csv.ConvertOptions(column_types={"amount": kind})
by_json = json.ParseOptions(explicit_schema=pa.schema([("amount", kind)]))

def tried(read):
    try:
        return str(read()[0])
    except pa.ArrowInvalid as error:
        return f"refused ({str(error)[:60]}...)"

for text in ("999999.99", "30000000.00", "30000000", "3e7"):
    print(f"{text:12} CSV:  ", tried(lambda: csv.read_csv(io.BytesIO(f"amount\n{text}\n".encode()), convert_options=by_csv)["amount"]))
    print(f"{'':12} JSON: ", tried(lambda: json.read_json(io.BytesIO(f'{{"amount": {text}}}'.encode()), parse_options=by_json)["amount"]))
    print(f"{'':12} cast: ", tried(lambda: pa.array([text]).cast(kind)))

table = csv.read_csv(io.BytesIO(b"amount\n30000000\n"), convert_options=by_csv)
table.validate()
pq.write_table(table, "amounts.parquet")
seen = str(pq.read_table("amounts.parquet")["amount"][0]), str(duckdb.sql("from 'amounts.parquet'").fetchall()[0][0])
print("30000000 in Parquet, by pyarrow and by DuckDB:", *seen)
if seen != ("-12949672.96", "-12949672.96"):
    sys.exit("pyarrow refuses or writes the amount now")
EOF
