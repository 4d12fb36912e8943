"""A user without HOME and name (a container with any uid) is told what to set, or a temporary folder is used"""

import os
import shutil
import subprocess
import sys

import pyarrow as pa
from case import ROOT, check, double, end, parquet, runner

nobody = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
if not shutil.which("unshare") or subprocess.run([*nobody, "true"], capture_output=True).returncode:
    print("skipped: needs user namespaces")
    sys.exit(77)
model = double()
parquet("in", pa.table({"x": pa.array([1, 2], pa.float32())}))
environment = {name: value for name, value in os.environ.items() if name != "HOME"}
environment["TMPDIR"] = str(ROOT / "tmp")
(ROOT / "tmp").mkdir()
(ROOT / "bin").mkdir()
script = ROOT / "bin" / "runner"
script.write_text(f'#!/bin/sh\nexec {" ".join(nobody)} {shutil.which("runner")} "$@"\n')
script.chmod(0o755)
environment["PATH"] = f"{script.parent}{os.pathsep}{environment['PATH']}"
job = ("--model", model, "--input", "in", "--output", ROOT / "out")
home = {
    "cache list": (("cache", "list"), (0, 2)),
    "plan": (("plan", *job), (0,)),
    "run": (("run", *job, "--in-process", "--quiet"), (0,)),
    "run on Ray": (("run", *job[:-1], ROOT / "ray", "--quiet", "--address", "local"), (0, 2, 69)),
    "plan of ~": (("plan", *job[:-1], "~/out"), (2,)),
}
for name, (command, codes) in home.items():
    done = runner(*command, env=environment)
    check(done.code in codes and "Traceback" not in done.told, name, done)
    check("nobody foresaw" not in done.told, f"{name} was not foreseen", done)
    said = "HOME" in done.told or "RUNNER_MODEL_CACHE" in done.told
    check(done.code == 0 or said, f"{name}: what to set is not told", done)
end()
