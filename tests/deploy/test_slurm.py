"""The Slurm script on a real `ray symmetric-run`, in namespaces of its own: what it ends, it ends by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "runner.sbatch"
ALONE = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]

# What Slurm does for the script: the options are its own, the rest is run on every node, here on one.
SRUN = """#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


def isolated() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(
    not isolated(), reason="no namespaces here, and `ray stop` would end every other Ray of this machine"
)
def test_the_script_runs_a_job_on_the_ray_that_it_starts(
    tmp_path: Path,
    half_plus_two: Path,
    write_numbers: Callable[..., Path],
    require_half_plus_two: Callable[[Path, int], None],
) -> None:
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    scripts = {
        "srun": SRUN,
        "scontrol": "#!/bin/sh\necho 127.0.0.1\n",
        "runner": f'#!/bin/sh\nexec {sys.executable} -m runner "$@"\n',
    }
    for name, text in scripts.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    job = {
        "model": {"url": str(half_plus_two)},
        "input": {"url": str(write_numbers(tmp_path / "in"))},
        "columns": {"keep": ["id"]},
        "output": {"url": str(tmp_path / "out")},
        "workers": {"count": 1},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    slurm = {
        "PATH": f"{stand_ins}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[1]",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "2",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # Ray finds a running cluster by what lies in /tmp/ray, where another one may have left its address.
    (tmp_path / "ray").mkdir()
    private = f"mkdir -p /tmp/ray && mount --bind {tmp_path / 'ray'} /tmp/ray && ip link set lo up"
    inside = f"{private} && exec bash {SCRIPT} {tmp_path / 'job.yaml'}"
    done = subprocess.run(
        [*ALONE, "bash", "-c", inside],
        cwd=tmp_path,
        env=os.environ | slurm,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,000 rows" in done.stdout
    assert (tmp_path / ".ray" / "auth_token").exists()
    require_half_plus_two(tmp_path / "out", 2000)
