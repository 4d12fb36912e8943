"""A worker whose machine has another version of the runner than the driver: refused in words, before it works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jobs.job import Job

_RUN = """
import os, sys
from runner.cluster.quiet import ray  # sets what Ray reads from its environment
import runner
from jobs.errors import RunnerError

path = os.pathsep.join([sys.argv[2], os.environ.get("PYTHONPATH", "")])
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         runtime_env={"env_vars": {"PYTHONPATH": path}})
try:
    print(runner.run(runner.Job.model_validate_json(sys.argv[1])).rows)
except RunnerError as error:
    print(error.exit_code, error)
"""


def test_a_worker_with_another_runner_than_the_driver_is_refused_with_both_versions(
    numbers_job: Callable[..., Job], write_numbers: Callable[..., Path], tmp_path: Path
) -> None:
    stale = tmp_path / "site" / "savedmodel_runner-0.0.9.dist-info"  # what pip leaves of the version that it installed
    stale.mkdir(parents=True)
    (stale / "METADATA").write_text("Metadata-Version: 2.1\nName: savedmodel-runner\nVersion: 0.0.9\n")
    job = numbers_job(write_numbers(tmp_path / "in", files=1, rows=10), tmp_path / "out", workers={"count": 1})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[1:])}
    script = [sys.executable, "-c", _RUN, job.model_dump_json(exclude_unset=True), str(stale.parent)]
    # Elsewhere: Ray puts the folder of a driver first on the path of workers, and a checkout has an .egg-info.
    done = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith("69 "), done.stdout + done.stderr
    assert "runner 0.0.9 is installed on node" in done.stdout
    assert "install one version on all machines" in done.stdout
    assert not list((tmp_path / "out").glob("part-*"))
