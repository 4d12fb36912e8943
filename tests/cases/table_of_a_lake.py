"""A folder of a Delta or an Iceberg table is refused with what reads it, and files that are named are scored

Deleted rows stay in the folder until the table is vacuumed: 7 rows were scored where the table has 3. Sources: the
Delta protocol, "Delta Log Entries"; the Iceberg table specification, "Scan Planning".
"""

import json

from case import ROOT, check, double, end, score, written_by

written = written_by(
    """
    import json, pathlib
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.expressions import GreaterThan

    here = pathlib.Path.cwd()
    rows = pa.table({"x": pa.array(range(5), pa.float32()), "year": pa.array([2020] * 3 + [2021] * 2, pa.int32())})
    write_deltalake("delta", rows, partition_by=["year"])
    delta = DeltaTable("delta")
    delta.delete("x > 1")
    files = {"delta": [uri.removeprefix("file://") for uri in delta.file_uris()]}
    catalog = SqlCatalog("c", uri=f"sqlite:///{here}/catalog.db", warehouse=f"file://{here}/warehouse")
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", schema=rows.schema)
    table.append(rows)
    table.delete(GreaterThan("x", 1.0))
    tasks = table.scan().plan_files()
    files["iceberg"] = [task.file.file_path.removeprefix("file://") for task in tasks]
    files["folder"] = table.location().removeprefix("file://")
    print(json.dumps(files))
    """
)
files = json.loads(written.splitlines()[-1])
model = double()
tables = {"Delta": ("delta", "delta/year=2020"), "Iceberg": (files["folder"], f"{files['folder']}/data/*.parquet")}
for kind, folders in tables.items():
    for folder in folders:
        done = score(model, ROOT / folder)
        words = (f"{kind} table", f"`input: {{{kind.lower()}: ")
        check(
            done.code == 2 and all(word in " ".join(done.told.split()) for word in words), f"the folder {folder}", done
        )
    first, *more = files[kind.lower()]
    done = score(model, first, *(word for file in more for word in ("--input", file)))
    found = sorted(done.table["y"].to_pylist()) if done.table else None
    check(found == [0.0, 2.0], f"the files of the {kind} table gave {found}", done)
    check("row-level deletes" in " ".join(done.told.split()), f"no warning beside the files of the {kind} table", done)
end()
