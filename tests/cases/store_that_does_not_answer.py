"""A store that does not answer is told after seconds, given up after `give_up_s`, and ends with 2 and NO_STORE

A closed port, an unknown host, and a port that takes what is sent and says nothing, as behind a wall.
"""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner

model = double()
source = parquet("in", pa.table({"x": pa.array([1, 2], pa.float32())}))
keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
with socket.create_server(("127.0.0.1", 0), backlog=100) as taken:
    with socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()[1]
    endpoints = {
        "a closed port": f"http://127.0.0.1:{closed}",
        "an unknown host": "http://nobody.invalid",
        "a silent port": f"http://127.0.0.1:{taken.getsockname()[1]}",
    }

    def tried(name, what, give_up_s):
        urls = {"input": source, "output": ROOT / f"out-{name}", what: "s3://bucket/folder"}
        options = f"{what}.options={{endpoint_url: '{endpoints[name]}', give_up_s: {give_up_s}}}"
        job = ("--model", model, "--input", urls["input"], "--output", urls["output"], "--set", options)
        began = time.monotonic()
        done = runner("run", *job, "--in-process", "--quiet", env={**os.environ, **keys}, timeout=120)
        took, code = time.monotonic() - began, {"input": 2, "output": 69}[what]
        check(done.code == code and took < 2 * give_up_s + 20, f"{name} as {what}, after {took:.0f} s", done)
        check(what == "output" or "NO_STORE" in done.told, f"{name}: no code", done)
        waits = "give_up_s" in done.told or "still waiting after 10 s" in done.told
        check(give_up_s < 10 or waits, f"{name} as {what}: nothing is told while it waits", done)

    jobs = [(name, what, 4) for name in endpoints for what in ("input", "output")] + [("a closed port", "input", 15)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tried, *zip(*jobs, strict=True)))
end()
