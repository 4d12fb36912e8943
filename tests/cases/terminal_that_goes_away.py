"""A run whose terminal is closed, or whose log has no room, ends as it would with one

Reports: tqdm/tqdm#1033 (a job dies when its standard error closes), dask/dask#568.
"""

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import termios

import numpy as np
import pyarrow as pa
from case import ROOT, SECONDS, Done, check, double, end, parquet

x = pa.table({"x": np.arange(400_000, dtype=np.float32)})
model, source = double(), parquet("in", *[x] * 4, row_group_size=50_000)
settings = ("--set", "limits.shard_rows=100000", "--set", "limits.batch_rows=64")  # slow enough to be looked at


def run_of(folder, output):
    out = str(ROOT / output)
    return ["runner", "run", "--model", str(model), "--input", str(folder), "--output", out, "--in-process", *settings]


terminal, side = pty.openpty()


def disowned():
    """As `nohup` and a session that is lost: no signal tells that the terminal is gone."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    fcntl.ioctl(side, termios.TIOCSCTTY, 0)


run = subprocess.Popen(run_of(source, "gone"), stdin=side, stdout=side, stderr=side, preexec_fn=disowned)
os.close(side)
seen = b""
while b"of 1,600,000" not in seen:  # it works
    seen += os.read(terminal, 4096)
os.close(terminal)
code = run.wait(SECONDS)
check(code == 0 and (ROOT / "gone/_SUCCESS").exists(), f"the terminal was closed: exit {code}")

few = parquet("few", x.slice(0, 100))
for redirect in ("2>/dev/full", ">/dev/full", ">&-", "2>&-", "| true"):
    shutil.rmtree(ROOT / "out", ignore_errors=True)
    shell = ["bash", "-c", f'"$@" {redirect}; exit ${{PIPESTATUS[0]}}', "bash", *run_of(few, "out")]
    ran = subprocess.run(shell, capture_output=True, text=True, timeout=SECONDS)
    done = Done(ran.returncode, (ran.stdout + ran.stderr).strip())
    right = done.code == 0 and (ROOT / "out/_SUCCESS").exists() and "Traceback" not in done.told
    check(right, f"with {redirect}", done)
end()
