"""Planning takes time in proportion to the columns: 4,000 of them in four files, all kept, take seconds

Report: ray-project/ray#39548 (6,902 columns, 1,113 files).
"""

import resource

import numpy as np
import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner

model = double()
seconds = {}
for width in (1_000, 4_000):
    names = ["x", *(f"f{index}" for index in range(width))]
    source = parquet(f"in{width}", *[pa.table({name: np.zeros(10, np.float32) for name in names})] * 4)
    job = ROOT / f"{width}.yaml"
    job.write_text(
        f"model: {{url: {model}}}\ninput: {{url: {source}}}\noutput: {{url: out}}\n"
        f"columns: {{keep: [{', '.join(names[1:])}]}}\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = runner("plan", job)
    seconds[width] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    check(done.code == 0, f"the plan of {width} columns", done)
check(seconds[4_000] < 6 * seconds[1_000], f"four times the columns take {seconds} s of a processor")
end()
