"""A process that may start no more threads says so at once, or does the work with fewer, whatever `stall_s` is

Seen in containers with few pids and under `ulimit -v`. `Thread.start` fails here as CPython's does then.
"""

import os

import numpy as np
import pyarrow as pa
from case import ROOT, check, double, end, parquet, score

model = double()
x = pa.table({"x": np.zeros(40_000, np.float32)})
source = parquet("in", *[x] * 4, row_group_size=4_000)
shim = """
import threading
real, seen = threading.Thread.start, []
def start(self):
    if self.name.startswith({prefix!r}):
        seen.append(self)
        if len(seen) >= {first} and len(seen) < {end}:
            raise RuntimeError("can't start new thread")
    real(self)
threading.Thread.start = start
"""
small = ("--set", "limits.shard_rows=8000", "--set", "workers.count=1")
tries = {
    "the second attempt's": (("attempt-", 2, 3), (0,)),
    "each after the first": (("attempt-", 2, 99), (0, 69)),
    "all of this program": (("", 1, 9999), (0, 69)),
}
for name, ((prefix, first, last), codes) in tries.items():
    (ROOT / "shim").mkdir(exist_ok=True)
    (ROOT / "shim" / "sitecustomize.py").write_text(shim.format(prefix=prefix, first=first, end=last))
    path = os.pathsep.join([str(ROOT / "shim"), os.environ["PYTHONPATH"]])
    for stall in ("5", "600"):
        environment = {**os.environ, "PYTHONPATH": path}
        done = score(model, source, *small, "--set", f"limits.stall_s={stall}", env=environment, timeout=60)
        check(done.code in codes and "Traceback" not in done.told, f"{name}, stall_s {stall}", done)
        check(done.code == 0 or "thread" in done.told, f"{name}, stall_s {stall}: the limit is not named", done)
        check(done.code or done.table.num_rows == 160_000, f"{name}, stall_s {stall}: rows are missing", done)
end()
