"""`--address` where nobody listens ends with 69 within seconds, and the wait for a silent head obeys Ctrl-C"""

import os
import signal
import socket
import subprocess
import time

import pyarrow as pa
from case import ROOT, Done, check, double, end, parquet, runner

model = double()
source = parquet("in", pa.table({"x": pa.array([1, 2], pa.float32())}))
job = ("run", "--model", model, "--input", source, "--output", ROOT / "out", "--quiet")
with socket.create_server(("127.0.0.1", 0)) as taken:
    silent = taken.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()[1]
    for address in (f"127.0.0.1:{closed}", f"ray://127.0.0.1:{closed}"):
        done = runner(*job, "--address", address, timeout=60)
        check(done.code in (2, 69) and str(closed) in done.told, address, done)
    command = ["runner", *map(str, job), "--address", f"127.0.0.1:{silent}"]
    pipe = subprocess.PIPE
    options = {"stdout": pipe, "stderr": pipe, "text": True, "env": os.environ, "cwd": ROOT}
    # Where the cases run in the background Ctrl-C is ignored, and children inherit that.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, **options, **heard) as waits:
        time.sleep(6)  # it asks, and begins to wait
        began = time.monotonic()
        waits.send_signal(signal.SIGINT)
        out, told = waits.communicate(timeout=60)
    done = Done(waits.returncode, out + told)
    check(done.code == 130 and time.monotonic() - began < 20, "Ctrl-C was not obeyed", done)
end()
