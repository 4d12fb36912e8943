"""The command as a user types it: a process of its own, in a clean folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Completed = subprocess.CompletedProcess[str]


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Completed]:
    """command("run", "job.yaml", ...): its exit code, standard output and standard error, run in `tmp_path`."""

    def call(*arguments: str, **environment: str) -> Completed:
        return subprocess.run(
            [sys.executable, "-m", "runner", *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=110,
        )

    return call


@pytest.fixture
def job_file(tmp_path: Path, half_plus_two: Path, write_numbers: Callable[..., Path]) -> Callable[..., Path]:
    """job_file(output={...}, ...): writes job.yaml and its input; sections given replace the defaults."""

    def write(files: int = 2, rows: int = 1000, **sections: object) -> Path:
        write_numbers(tmp_path / "in", files=files, rows=rows)
        job = {
            "model": {"url": str(half_plus_two)},
            "input": {"url": "in/*.parquet"},
            "columns": {"keep": ["id"]},
            "output": {"url": "out"},
            "limits": {"shard_rows": 500},
        }
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(job | sections))
        return path

    return write
