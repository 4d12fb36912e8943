"""A receipt that was edited and contradicts its part is not believed by the run that goes on

The commit header of the part decides: no rejected rows that do not exist, and `verify` holds.
"""

import json

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner, score

model = double()
source = parquet("in", pa.table({"x": pa.array([1.0] * 400, pa.float32())}), row_group_size=100)
shards = ("--set", "limits.shard_rows=100")
out = ROOT / "out"
check(score(model, source, *shards).code == 0, "the first run failed")
for done in (out / "_SUCCESS", *out.glob("_run/*/manifest*"), sorted(out.glob("part-*"))[-1]):
    done.unlink()
receipt = sorted(out.glob("_run/*/receipts/*.json"))[0]
edit = {"rows_out": 90, "rows_rejected": 10, "codes": {"ROW_NULL": 10}, "reject_file": "_run/x"}
receipt.write_text(json.dumps(json.loads(receipt.read_text()) | edit))
resumed = runner("run", "--model", model, "--input", source, "--output", out, "--in-process", *shards)
check(resumed.code == 0 and "reject" not in resumed.told, "the receipt was believed", resumed)
verified = runner("verify", out)
check(verified.code == 0, "the output does not hold", verified)
end()
