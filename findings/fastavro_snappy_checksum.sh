#!/usr/bin/env bash
# fastavro does not compare the checksum that ends each snappy block of an Avro file: after one bit of the file has changed, an amount of 249.37 is
# read as 498.74. Apache's own reader says that the checksum is wrong, and Polars refuses the file too.
#
# fastavro 1.13.1, avro 1.12.2, cramjam 2.14.0, python-snappy 0.7.3, polars 2.1.0. Guess: an error.
# Documentation: the Avro specification puts a CRC32 of the uncompressed data behind each snappy block; fastavro's pages do not say that its reader
# skips these four bytes. Its writer fills them.
# Why it matters: the checksum stands there for damage on a disk or in a copy; unread, such damage is another amount. The changed bit plays that
# damage, the file is whole without it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fastavro==1.13.1 cramjam==2.14.0 avro==1.12.2 python-snappy==0.7.3 polars==2.1.0 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import pathlib, struct, sys
import fastavro, polars
from avro.datafile import DataFileReader
from avro.io import DatumReader

schema = {"type": "record", "name": "sale", "fields": [{"name": "city", "type": "string"}, {"name": "amount", "type": "double"}]}
sales = [{"city": "Rome", "amount": 100.0}, {"city": "Oslo", "amount": 249.37}, {"city": "Bonn", "amount": 75.5}]
with open("whole.avro", "wb") as file:
    fastavro.writer(file, schema, sales, codec="snappy")
data = bytearray(pathlib.Path("whole.avro").read_bytes())
data[data.index(struct.pack("<d", 249.37)) + 6] ^= 0x10  # one bit of the exponent: twice as much
pathlib.Path("damaged.avro").write_bytes(data)

seen = {}
for path in ("whole.avro", "damaged.avro"):
    for name, read in {
        "fastavro": lambda: [sale["amount"] for sale in fastavro.reader(open(path, "rb"))],
        "Apache avro": lambda: [sale["amount"] for sale in DataFileReader(open(path, "rb"), DatumReader())],
        "Polars": lambda: polars.read_avro(path)["amount"].to_list(),
    }.items():
        try:
            seen[path, name] = read()
        except Exception as error:
            seen[path, name] = f"{type(error).__name__}: {error}"
        print(f"{path:13} {name:12} {seen[path, name]}")
if any(seen["whole.avro", name] != [100.0, 249.37, 75.5] for name in ("fastavro", "Apache avro", "Polars")):
    sys.exit("a reader does not read the whole file as written")
if seen["damaged.avro", "fastavro"] != [100.0, 498.74, 75.5]:
    sys.exit("fastavro notices the changed bit now")
EOF
