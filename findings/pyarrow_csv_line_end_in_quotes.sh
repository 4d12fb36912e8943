#!/usr/bin/env bash
# A CSV file with quoted addresses of two lines, "\r\n" between them, is read with `newlines_in_values=True`: where the border of a block falls between
# the two characters, the value has "\r" alone. No error; which values change depends on the size of the blocks.
#
# pyarrow 26.0.1. Guess: the same values whatever the block. Documentation: `block_size` is how many bytes are processed at a time, for threads;
# `newlines_in_values` says that values may hold line ends; neither says that it changes any.
# Why it matters: exports of Windows programs hold such addresses; hashes, joins and distinct counts differ between two readings of one file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import csv, sys
import pyarrow.csv as pc

addresses = [f"{at} Main Street\r\n{'Springfield' * (at % 7 + 1)}" for at in range(200_000)]
with open("rows.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["id", "address"])
    writer.writerows(enumerate(addresses))
changed = {}
for size in (2**28, 2**20, 2**16, 2**12):
    read = pc.read_csv(
        "rows.csv",
        read_options=pc.ReadOptions(block_size=size),
        parse_options=pc.ParseOptions(newlines_in_values=True),
    )["address"].to_pylist()
    differing = [at for at, (a, b) in enumerate(zip(addresses, read, strict=True)) if a != b]
    changed[size] = len(differing)
    print(f"blocks of {size:>9} bytes: {len(differing)} of {len(read)} values are others", *(repr(read[at]) for at in differing[:1]))
if changed[2**28] or not changed[2**12]:
    sys.exit("the size of a block changes no value now")
EOF
