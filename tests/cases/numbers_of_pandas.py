"""What pandas writes in parts is one table: counts as int64 or double, a column without values, texts or none

Reports: dask/dask#5759, pandas-dev/pandas#55731. Source: pyarrow, `unify_schemas` with `promote_options="permissive"`.
"""

import pyarrow as pa
import pyarrow.parquet as pq
from case import ROOT, check, double, end, score, written_by

written_by(
    """
    import os
    import pandas as pd

    def times(unit, *texts):
        return pd.to_datetime(list(texts)).astype(f"datetime64[{unit}]")

    parts = [
        {"x": [1, 2], "n": [5, 6], "t": ["a", "b"], "w": times("ms", "2024-02-29", "2024-03-01")},
        {"x": [0.5, None], "n": [7.0, None], "t": [None, None], "w": times("us", "2024-02-29", None)},
        {"x": [None, None], "n": [None, None], "t": [b"c", b"d"], "w": [None, None]},
        {"x": [2**24 + 1], "n": [8], "t": ["e"], "w": times("s", "1600-01-01")},
    ]
    for engine, names in {"pyarrow": "xntw", "fastparquet": "xn"}.items():
        for order in (1, -1):
            os.makedirs(f"{engine}{order}")
            for at, part in enumerate(parts[::order]):
                frame = pd.DataFrame({name: part[name] for name in names})
                if engine == "fastparquet":
                    frame = frame.apply(pd.to_numeric)
                frame.to_parquet(f"{engine}{order}/{at}.parquet", engine=engine, index=False)
    """
)
for folder in ("pyarrow1", "pyarrow-1", "fastparquet1", "fastparquet-1"):
    keep = ["n", "t", "w"] if folder.startswith("pyarrow") else ["n"]
    rules = [word for name in keep for word in ("--keep", name)] + ["--set", "columns.inputs.x={column: x, null: nan}"]
    rules += [
        "--set",
        "limits.nonfinite=pass",
        "--set",
        "limits.on_bad_row=reject",
        "--set",
        "limits.max_rejected_rows=1",
    ]
    done = score(double(), ROOT / folder, *rules)
    rows = [] if done.table is None else sorted(map(str, done.table.to_pylist()))
    check(len(rows) == 6, f"{folder}: not the six rows whose value float32 holds", done)
    if done.table is None:
        continue
    answers = {n: y for n, y in zip(done.table["n"].to_pylist(), done.table["y"].to_pylist(), strict=True) if n}
    check(answers.get(5) == 2 and answers.get(6) == 4 and answers.get(7) == 1, f"{folder}: {answers}")
    check(done.table.schema.field("n").type == pa.float64(), f"{folder}: {done.table.schema}")
    bad = pa.concat_tables([pq.read_table(part) for part in (ROOT / "out" / "_run").rglob("rejects/*.rejects")])
    check(bad["code"].to_pylist() == ["ROW_INEXACT"], f"{folder}: {bad.to_pylist()}")
    if "t" in keep:
        check(sorted(filter(None, done.table["t"].to_pylist())) == [b"a", b"b", b"c", b"d"], f"{folder}: {rows}")
        check(done.table.schema.field("w").type == pa.timestamp("us"), f"{folder}: {done.table.schema}")

# Two files of two rows each, so that rows of both are looked at before the work begins.
written_by(
    """
    import os
    import pandas as pd
    os.mkdir("few")
    pd.DataFrame({"x": [1, 2]}).to_parquet("few/0.parquet")
    pd.DataFrame({"x": [1.5, None]}).to_parquet("few/1.parquet")
    """
)
rules = ("--set", "columns.inputs.x={column: x, null: nan}", "--set", "limits.nonfinite=pass")
done = score(double(), ROOT / "few", *rules)
check(done.table is not None and done.table["y"].to_pylist()[:3] == [2, 4, 3], "few rows of both types", done)
end()
