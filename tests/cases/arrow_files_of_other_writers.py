"""Arrow files of Polars, DataFusion, ClickHouse and Arrow for JavaScript are read as pyarrow reads them

What stands before the first batch differs: Polars frames its schema in another way, arrow-rs fills the magic up to 64
bytes, Arrow for JavaScript leaves the schema out. Reports: apache/arrow#2560, apache/arrow-nanoarrow#629. Source:
Columnar.md, "IPC File Format".
"""

import shutil
import subprocess

import pyarrow as pa
from case import ROOT, check, double, end, score, written_by

written_by(
    """
    import chdb, datafusion, polars as pl

    frame = pl.DataFrame({"x": [1.0, 2.0, 3.0], "text": ["longer than twelve bytes", "y", None]})
    frame = frame.with_columns(pl.col("x").cast(pl.Float32), pl.col("text").cast(pl.Categorical).alias("kind"))
    for name, level in {"oldest": pl.CompatLevel.oldest(), "newest": pl.CompatLevel.newest()}.items():
        for compression in ("uncompressed", "lz4", "zstd"):
            frame.write_ipc(f"polars_{name}_{compression}.arrow", compat_level=level, compression=compression)
    frame.lazy().sink_ipc("polars_sink.arrow")

    rows = "(1.0, 'longer than twelve bytes'), (2.0, 'y'), (3.0, NULL)"
    kind = "arrow_cast(text, 'Dictionary(Int32, Utf8)')"
    select = f"SELECT arrow_cast(x, 'Float32') x, text, {kind} kind FROM (VALUES {rows}) v(x, text)"
    datafusion.SessionContext().sql(f"COPY ({select}) TO 'datafusion.arrow' STORED AS ARROW").collect()

    rows = "(1.0, 'longer than twelve bytes'), (2.0, 'y'), (3.0, NULL)"
    select = f"SELECT toFloat32(x) x, text, toLowCardinality(text) kind"
    source = f"FROM values('x Float64, text Nullable(String)', {rows})"
    for method in ("none", "lz4_frame", "zstd"):
        settings = f"output_format_arrow_compression_method='{method}'"
        settings += ", output_format_arrow_low_cardinality_as_dictionary=1"
        chdb.query(f"{select} {source} INTO OUTFILE 'chdb_{method}.arrow' FORMAT Arrow SETTINGS {settings}")
    """
)
SCRIPT = """
import * as arrow from 'apache-arrow';
import fs from 'fs';
const text = arrow.vectorFromArray(['longer than twelve bytes', 'y', null], new arrow.Utf8());
const kind = arrow.vectorFromArray(['longer than twelve bytes', 'y', null]);
const table = new arrow.Table({x: arrow.vectorFromArray([1, 2, 3], new arrow.Float32()), text, kind});
fs.writeFileSync('../javascript.arrow', arrow.tableToIPC(table, 'file'));
"""
if shutil.which("npm"):
    (ROOT / "js").mkdir()
    (ROOT / "js" / "write.mjs").write_text(SCRIPT)
    for command in (["npm", "install", "--no-audit", "--no-fund", "apache-arrow@21"], ["node", "write.mjs"]):
        subprocess.run(command, cwd=ROOT / "js", check=True, capture_output=True, timeout=240)

wanted = ["longer than twelve bytes", "y", None]
model = double()
files = sorted(ROOT.glob("*.arrow"))
check(len(files) >= 11, f"only {files} were written")
for file in files:
    with pa.OSFile(str(file)) as source:
        check(pa.ipc.open_file(source).read_all()["text"].to_pylist() == wanted, f"pyarrow reads {file.name} otherwise")
    done = score(model, file, "--keep", "text", "--keep", "kind")
    found = done.table and done.table.select(["text", "kind", "y"]).to_pydict()
    right = found == {"text": wanted, "kind": wanted, "y": [2.0, 4.0, 6.0]}
    check(right, f"{file.name} became {found}", done)
end()
