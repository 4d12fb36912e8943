#!/usr/bin/env bash
# A table of ten rows is written to ORC in two halves, as a stream writes: where the second half has a null struct, the file holds the structs of the
# first half again, and the null is gone. No error, and the number of rows is right.
#
# pyarrow 26.0.1, read again with pyarrow and with pyorc 0.12.0. Guess: the ten rows. Documentation: `ORCWriter.write` takes a table, and says nothing
# of slices. Without the null, and for columns that are no structs, the halves come out right; so do they in Parquet.
# Why it matters: whoever writes large tables piece by piece slices them, and events with an absent struct are ordinary.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 pyorc==0.12.0 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import sys
import pyarrow as pa, pyarrow.orc as orc, pyarrow.parquet as pq, pyorc

def halves(rows):
    table = pa.table({"user": rows})
    with orc.ORCWriter("rows.orc") as writer, pq.ParquetWriter("rows.parquet", table.schema) as other:
        for start in (0, 5):
            writer.write(table.slice(start, 5))
            other.write_table(table.slice(start, 5))
    with open("rows.orc", "rb") as file:
        read = {"pyorc": [row["user"] for row in pyorc.Reader(file, struct_repr=pyorc.StructRepr.DICT)]}
    read["pyarrow"] = orc.read_table("rows.orc")["user"].to_pylist()
    read["parquet"] = pq.read_table("rows.parquet")["user"].to_pylist()
    return {name: [row and row["id"] for row in values] for name, values in read.items()}

given = [None if at == 6 else {"id": at} for at in range(10)]
with_null, without = halves(pa.array(given)), halves(pa.array([{"id": at} for at in range(10)]))
print("given  ", [row and row["id"] for row in given])
for name, values in with_null.items():
    print(f"{name:7}", values)
wrong = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
if with_null["pyarrow"] != wrong or with_null["pyorc"] != wrong or without["pyorc"] != list(range(10)):
    sys.exit("slices of structs with a null are written right now")
EOF
