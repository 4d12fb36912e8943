"""The command on a Ray cluster that is running already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from runner.cluster.quiet import ray


def test_a_job_joins_a_running_cluster_and_leaves_it_running(
    tmp_path: Path,
    half_plus_two: Path,
    write_numbers: Callable[..., Path],
    require_half_plus_two: Callable[[Path, int], None],
) -> None:
    source = write_numbers(tmp_path / "in")
    address = ray.get_runtime_context().gcs_address
    flags = ["--model", str(half_plus_two), "--input", str(source), "--output", "out", "--keep", "id", "--json"]
    sets = ["--set", "limits.shard_rows=500", "--set", "workers.count=2", "--set", "workers.gpus=0.5"]
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", *flags, *sets, "--address", address],
        cwd=tmp_path,  # not the folder the cluster was started in: the relative output must still mean this one
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 2000
    require_half_plus_two(tmp_path / "out", 2000)
    assert ray.is_initialized()
    assert sum(node["Alive"] for node in ray.nodes()) == 1
