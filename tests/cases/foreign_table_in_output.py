"""A table of somebody else in the output folder is refused at once, whatever its name, and `verify` names it too"""

import pyarrow as pa
import pyarrow.parquet as pq
from case import ROOT, check, double, end, parquet, runner

table = pa.table({"x": pa.array([1.0] * 100, pa.float32())})
model, source = double(), parquet("in", table)
for name in ("data.parquet", "part.parquet", "part-foreign.parquet"):
    out = ROOT / f"out-{name}"
    out.mkdir()
    run = ("run", "--model", model, "--input", source, "--output", out, "--in-process", "--quiet")
    pq.write_table(table, out / name)
    refused = runner(*run)
    check(refused.code == 2 and name in refused.told and not [*out.glob("_*")], f"{name} was not refused", refused)
    (out / name).unlink()
    check(runner(*run).code == 0, "without it the job failed")
    pq.write_table(table, out / name)
    verified = runner("verify", out)
    check(verified.code == 65 and name in verified.told, f"verify does not name {name}", verified)
end()
