#!/usr/bin/env bash
# Polars returns deleted rows of a Delta table, without an error, from the partitions whose folder has an escaped character: a space, a colon of a
# timestamp, an umlaut. In city=Rome the deletion vector is obeyed, in city=New York it is not.
#
# polars 2.1.0, deltalake 1.6.6. Guess: the rows that deltalake's own scan gives, or a refusal, as `DeltaTable.to_pyarrow_table` refuses such tables.
# Cause: Polars looks for a file's vector by the file's address; its list of files and deltalake's list of vectors escape the address differently,
# and a file that is not found there is read as one without deletes.
# Documentation: `scan_delta` and `read_delta` say nothing of deletion vectors; a table feature that Polars lacks is refused with its name.
# Why it matters: Databricks turns deletion vectors on for new tables, and partitions of timestamps always have such folders: customers who had
# themselves deleted are scored.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 deltalake==1.6.6 pyarrow==26.0.1 pyroaring==1.2.0 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import base64, json, pathlib, struct, sys
import polars as pl, pyarrow as pa, pyroaring
from deltalake import DeltaTable, write_deltalake

rows = pa.table({"city": ["Rome"] * 3 + ["New York"] * 3, "id": range(6)})
write_deltalake("customers", rows, partition_by=["city"], configuration={"delta.enableDeletionVectors": "true"})

# What deltalake does not write: a commit that deletes the second row of each file by a vector inside of the log (Delta protocol, "Deletion
# Vectors": a magic number and a 64-bit Roaring bitmap, in Z85, which is base 85 with other digits).
z85 = str.maketrans(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
)
bitmap = struct.pack("<I", 1681511377) + pyroaring.BitMap64([1]).serialize()
text = base64.b85encode(bitmap + b"\0" * (-len(bitmap) % 4)).decode().translate(z85)
vector = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(bitmap), "cardinality": 1}
log = pathlib.Path("customers/_delta_log")
actions = [{"commitInfo": {"timestamp": 1, "operation": "DELETE"}}]
for line in (log / f"{0:020}.json").read_text().splitlines():
    if add := json.loads(line).get("add"):
        print("file:", add["path"])
        gone = {key: add[key] for key in ("path", "partitionValues", "size")}
        actions.append({"remove": {**gone, "extendedFileMetadata": True, "deletionTimestamp": 1, "dataChange": True}})
        actions.append({"add": {**add, "deletionVector": vector}})
(log / f"{1:020}.json").write_text("\n".join(map(json.dumps, actions)))

truth = sorted(pa.table(DeltaTable("customers").scan())["id"].to_pylist())
seen = sorted(pl.read_delta("customers")["id"].to_list())
counted = pl.scan_delta("customers").select(pl.len()).collect().item()
print(f"ids 0 to 2 are in Rome, 3 to 5 in New York; 1 and 4 are deleted\ndeltalake: {truth}\nPolars:    {seen}, counted: {counted}")
if truth != [0, 2, 3, 5]:
    sys.exit("deltalake does not read the table as meant")
if 4 not in seen or 1 in seen:
    sys.exit("Polars treats both partitions alike now")
EOF
