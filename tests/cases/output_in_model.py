"""An output folder inside of the model's folder is refused before anything is written there, also by way of a link"""

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner

model, source = double(), parquet("in", pa.table({"x": pa.array([1.0] * 100, pa.float32())}))
(ROOT / "link").symlink_to(model)
before = sorted(model.rglob("*"))
for out in (model / "out", ROOT / "link" / "out"):
    for command in ("plan", "run"):
        how = ("--in-process", "--quiet") if command == "run" else ()
        done = runner(command, "--model", model, "--input", source, "--output", out, *how)
        check(done.code == 2 and "lies in the model" in done.told, f"{command} into {out.name} was not refused", done)
check(sorted(model.rglob("*")) == before, "something was written into the model")
end()
