"""Damaged and deeply nested documents below an output, and `.npy` files of objects, are told with their names"""

import numpy as np
import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner, score

model = double()
source = parquet("in", pa.table({"x": pa.array([1, 2], pa.float32())}))
score(model, source)
plan = next((ROOT / "out" / "_run").glob("*/plan.json"))
documents = {plan: "plan.json", ROOT / "out" / "_SUCCESS": "_SUCCESS"}
for path, name in documents.items():
    right = path.read_bytes()
    for what, content in {"nested": b"[" * 5000 + b"]" * 5000, "damaged": b"\xff\x00{", "a list": b"[1]"}.items():
        path.write_bytes(content)
        for command in (("status", ROOT / "out"), ("verify", ROOT / "out")):
            done = runner(*command)
            told = name in done.told or done.code == 0  # a status may do without it
            check(told and done.code in (0, 2, 65), f"{command[0]} where {name} is {what}", done)
        check(done.code in (2, 65), f"{name} is {what}, and the output is verified")
    path.write_bytes(right)
check(runner("verify", ROOT / "out").code == 0, "as it was")

(ROOT / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'")
np.save(ROOT / "objects.npy", np.array([{}, None]), allow_pickle=True)
for name in ("damaged.npy", "objects.npy", "missing.npy"):
    done = runner("call", model, "--inputs", f"x={name}")
    check(done.code == 2 and name in done.told and "Traceback" not in done.told, f"call with {name}", done)
end()
