#!/usr/bin/env bash
# Of an ORC file with the columns "user.id" and user {id, name}, pyarrow reads `columns=["user.id"]` as the one or the other: as that which stands
# last. Where the struct stands last, neither the name nor the number 0 reaches the column. Without any column, an `ORCFile` has no rows.
#
# pyarrow 26.0.1. Guess: the column with exactly this name, or both, as `pyarrow.parquet.ParquetFile` gives them; n rows of no columns.
# Documentation: a name may be the beginning of a nested field's; not what happens if it is a column's own as well. `orc.read_table` promises the
# right number of rows without columns, and keeps it; `ORCFile` says nothing. `pq.read_table` is right in all four.
# Why it matters: flattened events have such names (user.id beside user); a selection by the file's own list of names gives another column than
# the list says, by the order in which the writer had them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import sys
import pyarrow as pa, pyarrow.orc as orc, pyarrow.parquet as pq

columns = {"user": pa.array([{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}]), "user.id": pa.array([10, 20])}
seen = {}
for order in (["user", "user.id"], ["user.id", "user"]):
    rows = pa.table({name: columns[name] for name in order})
    orc.write_table(rows, "rows.orc")
    pq.write_table(rows, "rows.parquet")
    for name, read in {
        "ORCFile.read": orc.ORCFile("rows.orc").read,
        "ORCFile.read_stripe": lambda columns: orc.ORCFile("rows.orc").read_stripe(0, columns=columns),
        "orc.read_table": lambda columns: orc.read_table("rows.orc", columns=columns),
        "ParquetFile.read": pq.ParquetFile("rows.parquet").read,
        "pq.read_table": lambda columns: pq.read_table("rows.parquet", columns=columns),
    }.items():
        seen[order[0], name] = read(columns=["user.id"]).to_pydict(), read(columns=[]).num_rows
        print(f"{', '.join(order):14} {name:20} user.id: {seen[order[0], name][0]}, without a column: {seen[order[0], name][1]} rows")
if seen["user", "ORCFile.read"][0] != {"user.id": [10, 20]} or "user.id" in seen["user.id", "ORCFile.read"][0]:
    sys.exit("the order of columns does not matter now")
EOF
