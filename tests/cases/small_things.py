"""Commas in names, a column without a name, `1e3` in YAML, markers of folders, a store's package that is not there

Each is read, or refused with 2 and the word that helps.
"""

import os

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner, score

model = double()
x = pa.array([1, 2], pa.float32())
for name, option in {"a,b": 'x="a,b"', "": 'x=""'}.items():
    done = score(model, parquet(f"in{len(name)}", pa.table({name: x})), "--map", option)
    check(done.table is not None and done.table["y"].to_pylist() == [2, 4], f"the column '{name}'", done)
done = score(model, ROOT / "in3", "--map", "x=a,b")
check(done.code == 2 and '"a,b"' in done.told, "the quotes that help are not named", done)

source = parquet("in", pa.table({"x": x}))
(ROOT / "number.yaml").write_text(
    f"model: {{url: {model}}}\ninput: {{url: in}}\noutput: {{url: out}}\nlimits: {{batch_rows: 1e3}}\n"
)
done = runner("plan", "number.yaml")
check(done.code == 0, "1e3 is no number", done)

(source / "_$folder$").touch()
(source / "dt=1_$folder$").touch()
for hidden in (".f0.parquet.crc", "_metadata", ".part.parquet"):
    (source / hidden).write_bytes(b"hidden")
done = runner("plan", "--model", model, "--input", source, "--output", "out")
check(done.code == 0 and "hidden" in done.told and "3" in done.told, "hidden files are not counted", done)

(ROOT / "shim").mkdir()
(ROOT / "shim" / "adlfs.py").write_text("raise ModuleNotFoundError(\"No module named 'adlfs'\", name='adlfs')\n")
path = os.pathsep.join([str(ROOT / "shim"), os.environ["PYTHONPATH"]])
azure = "abfss://data@account.dfs.core.windows.net/in"
done = runner("plan", "--model", model, "--input", azure, "--output", "out", env={**os.environ, "PYTHONPATH": path})
check(done.code == 2 and "savedmodel-runner[azure]" in done.told, "abfss:// without adlfs", done)
end()
