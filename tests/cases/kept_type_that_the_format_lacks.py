"""A kept interval or union is refused by `plan` where the output's format lacks it, with column and way out

Source: DuckDB's INTERVAL and UNION, as Arrow has them.
"""

import pyarrow as pa
from case import ROOT, check, double, end, runner, score

x = pa.array([1, 2], pa.float32())
intervals = pa.array([pa.MonthDayNano([1, 2, 3]), None], pa.month_day_nano_interval())
unions = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
runs = pa.ListArray.from_arrays([0, 1, 2], pa.RunEndEncodedArray.from_arrays([2], ["same"]))
table = pa.table({"x": x, "interval": intervals, "union": unions, "runs": runs})
with pa.ipc.new_file(str(ROOT / "in.arrow"), table.schema) as file:
    file.write_table(table)
model = double()
for name in ("interval", "union", "runs"):
    plan = runner("plan", "--model", model, "--input", "in.arrow", "--output", "out", "--keep", name)
    told = (
        f"'{name}'" in plan.told
        and ("format: arrow" in plan.told or "`keep:`" in plan.told)
        and "COLUMN_TYPE" in plan.told
    )
    check(plan.code == 2 and told, f"{name} for Parquet", plan)
for name in ("interval", "union"):
    done = score(model, ROOT / "in.arrow", "--keep", name, "--set", "output.format=arrow")
    parts = sorted((ROOT / "out").glob("part-*.arrow"))
    found = [row for part in parts for row in pa.ipc.open_file(part).read_all()[name].to_pylist()]
    check(found == table[name].to_pylist(), f"{name} for Arrow became {found}", done)
end()
