"""The trial among real actors: one of them proves the model for all, or the job ends before a shard is given out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import runner
from jobs.errors import ModelError
from jobs.job import Job

_CENTRED = """
import sys, tensorflow as tf
model = tf.Module()
model.call = tf.function(lambda x: {"y": x - tf.reduce_mean(x)}, [tf.TensorSpec([None], tf.float32, name="x")])
tf.saved_model.save(model, sys.argv[1], signatures=model.call)
"""


def test_one_worker_proves_the_model_and_all_are_warmed_up(
    tmp_path: Path, write_numbers: Callable[..., Path], numbers_job: Callable[..., Job]
) -> None:
    job = numbers_job(
        write_numbers(tmp_path / "in"),
        tmp_path / "out",
        "slow",
        limits={"shard_rows": 100, "batch_rows": 50},
        workers={"count": 3},
    )
    result = runner.run(job, progress=False)
    assert result.rows == 2000
    assert result.report["warm_up_seconds"] > 0
    known: dict[str, dict[str, dict[str, object]]] = {}
    for file in (tmp_path / "out").glob("_run/*/epochs/*.json"):
        known = json.loads(file.read_text()).get("workers") or known
    assert len([facts for facts in known.values() if "trial" in facts]) == 1
    assert all(facts["warm_up"]["calls"] for facts in known.values())


def test_a_model_that_mixes_rows_ends_the_job_before_a_shard_is_given_out(
    tmp_path: Path, write_numbers: Callable[..., Path], numbers_job: Callable[..., Job]
) -> None:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _CENTRED, str(tmp_path / "centred")]
    subprocess.run(command, check=True, env=quiet, stderr=subprocess.DEVNULL)
    source = write_numbers(tmp_path / "in")
    job = numbers_job(source, tmp_path / "out", model={"url": str(tmp_path / "centred")}, workers={"count": 2})
    with pytest.raises(ModelError, match="depend on the rows beside a row"):
        runner.run(job, progress=False)
    assert list((tmp_path / "out").glob("part-*")) == []
