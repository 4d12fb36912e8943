#!/usr/bin/env bash
# pyarrow's safe cast of 1e39 to float32 is infinity, without an error, and so is 16777217.0 to 16777216.0. The CSV and JSON readers do the same.
# Whole numbers and decimals are checked: 300 to int8 is refused, even the integer 16777217 to float32.
#
# pyarrow 26.0.1. Guess: ArrowInvalid, as for int8.
# Documentation: `Array.cast` says that `safe`, on by default, checks "for conversion errors such as overflow", and excepts no type.
# Why it matters: models take float32, tables hold doubles; a sum in cents or a 1e308 that stands for "none" turns into an infinite feature after a
# cast that promised to say so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 2> "$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
venv/bin/python - <<'EOF'
import io, sys
import pyarrow as pa, pyarrow.csv as csv, pyarrow.json as json

def by_csv(text, kind):
    return csv.read_csv(io.BytesIO(f"x\n{text}\n".encode()), convert_options=csv.ConvertOptions(column_types={"x": kind}))["x"]

def by_json(text, kind):
    options = json.ParseOptions(explicit_schema=pa.schema([("x", kind)]))
    return json.read_json(io.BytesIO(f'{{"x": {text}}}'.encode()), parse_options=options)["x"]

seen = {}
for name, read in {
    "cast of 1e39 to float32": lambda: pa.array([1e39]).cast(pa.float32(), safe=True),
    "cast of 70000.0 to float16": lambda: pa.array([70000.0]).cast(pa.float16(), safe=True),
    "cast of 16777217.0 to float32": lambda: pa.array([16777217.0]).cast(pa.float32(), safe=True),
    "cast of integer 16777217 to float32": lambda: pa.array([16777217]).cast(pa.float32(), safe=True),
    "cast of 300 to int8": lambda: pa.array([300]).cast(pa.int8(), safe=True),
    "CSV 1e39 as float32": lambda: by_csv("1e39", pa.float32()),
    "CSV 300 as int8": lambda: by_csv("300", pa.int8()),
    "JSON 1e39 as float32": lambda: by_json("1e39", pa.float32()),
    "JSON 300 as int8": lambda: by_json("300", pa.int8()),
}.items():
    try:
        seen[name] = str(read()[0])
    except pa.ArrowInvalid as error:
        seen[name] = f"refused: {error}"
    print(f"{name:36} {seen[name]}")
if [seen["cast of 1e39 to float32"], seen["CSV 1e39 as float32"], seen["JSON 1e39 as float32"]] != ["inf"] * 3:
    sys.exit("pyarrow refuses a double that float32 cannot hold now")
EOF
