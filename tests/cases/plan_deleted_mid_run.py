"""`_run/` is deleted while the job runs: a run that says that it finished leaves an output that `verify` reads"""

import shutil
import subprocess
import time

import numpy as np
import pyarrow as pa
import tensorflow as tf
from case import ROOT, check, end, parquet, runner, saved_model


def slow(x):
    made = tf.random.stateless_uniform([300, 300], [1, 2])
    for _ in tf.range(12):
        made = tf.linalg.matmul(made, made) / 300.0
    return {"y": x / 2 + tf.reduce_sum(made) * 0.0}


model = saved_model(slow, tf.TensorSpec([None], "float32", "x"))
source = parquet("in", *[pa.table({"x": np.ones(20000, "f4")})] * 10, row_group_size=4000)
out = ROOT / "out"
fixed = ["run", "--model", model, "--input", source, "--output", out, "--in-process", "--quiet"]
fixed += ["--set", "limits.shard_rows=8000", "--set", "limits.batch_rows=200"]
running = subprocess.Popen(["runner", *map(str, fixed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while len([*out.glob("part-*")]) < 4 and running.poll() is None:
    time.sleep(0.05)
shutil.rmtree(out / "_run", ignore_errors=True)
code = running.wait(200)
finished = (out / "_SUCCESS").exists()
check((code == 0) == finished, f"exit {code}, and _SUCCESS is {'there' if finished else 'not there'}")
if not finished:
    again = runner(*fixed)
    check(again.code == 0, "the same command did not continue", again)
verified = runner("verify", out)
check(verified.code == 0, "the output does not hold", verified)
end()
