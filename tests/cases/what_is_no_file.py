"""A named pipe, a web server without byte ranges and a job file that grows end at once, with 2 and their names"""

import os
import subprocess
import sys

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner

model = double()
os.mkfifo(ROOT / "pipe.parquet")
done = runner("plan", "--model", model, "--input", ROOT / "pipe.parquet", "--output", "out", timeout=60)
check(done.code == 2 and "no regular file" in done.told, "a named pipe as input", done)

large = parquet("web", pa.table({"x": pa.array(range(100_000), pa.float32())}))
server = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(large)]
with subprocess.Popen(server, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as web:
    port = web.stdout.readline().split(" port ")[1].split()[0]
    url = f"http://127.0.0.1:{port}/f0.parquet"
    done = runner("plan", "--model", model, "--input", url, "--output", "out", timeout=60)
    web.terminate()
check(done.code == 2 and "copy the file" in done.told, "a web server that sends whole files", done)

job = f"model: {{url: {model}}}\ninput: {{url: web}}\noutput: {{url: out}}\n"
aliases = "a0: &a0 [1, 2]\n" + "".join(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]\n" for at in range(1, 7))
texts = {
    "aliases": (job + aliases, "aliases counted in"),
    "levels": (job + "columns: {keep: " + "[" * 900 + "]" * 900 + "}", "64 levels deep"),
    "digits": (job + "workers: {readers: " + "9" * 5000 + "}", "'workers.readers'"),
    "readers": (job + "workers: {readers: 1000000}", "at most 1,024"),
    "latin": (job + "# \xe9", "utf-8"),
}
for name, (text, words) in texts.items():
    (ROOT / f"{name}.yaml").write_bytes(text.encode("latin-1"))
    done = runner("plan", f"{name}.yaml", timeout=60)
    check(done.code == 2 and words in " ".join(done.told.split()), f"a job file with {name}", done)
end()
