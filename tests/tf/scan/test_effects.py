"""Signatures that change variables or draw random numbers: told before the job runs, by every way to start one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import runner
from jobs.job import Job
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """'plain' does neither, 'counts' adds to a variable in a function of a function, 'rolls' draws in a branch."""
    module, path = tf.Module(), tmp_path_factory.mktemp("effects") / "moody"
    module.count = tf.Variable(0.0)
    x = [tf.TensorSpec([None], tf.float32, name="x")]
    inner = tf.function(lambda x: x + module.count.assign_add(1.0))
    module.plain = tf.function(lambda x: {"y": x + module.count}, input_signature=x)
    module.counts = tf.function(lambda x: {"y": inner(x)}, input_signature=x)

    def roll(x: Any) -> Any:
        return {"y": tf.cond(tf.size(x) > 2, lambda: x + tf.random.uniform([]), lambda: x)}

    module.rolls = tf.function(roll, input_signature=x)
    signatures = {"plain": module.plain, "counts": module.counts, "rolls": module.rolls}
    tf.saved_model.save(module, str(path), signatures)
    return path


@pytest.fixture
def job(moody: Path, tmp_path: Path) -> Callable[[str], Job]:
    """job(signature): over three numbers."""
    pq.write_table(pa.table({"x": pa.array([1.0, 2.0, 3.0], pa.float32())}), tmp_path / "in.parquet")

    def make(signature: str) -> Job:
        model = {"url": str(moody), "signature": signature}
        urls = {"input": {"url": str(tmp_path / "in.parquet")}, "output": {"url": str(tmp_path / signature)}}
        return Job.model_validate({"model": model, **urls})

    return make


@pytest.mark.parametrize(("signature", "op"), [("counts", "AssignAddVariableOp"), ("rolls", "RandomUniform")])
def test_a_job_that_cannot_be_repeated_warns_once_and_runs(job: Callable[..., Job], signature: str, op: str) -> None:
    told: list[str] = []
    result = launch(job(signature), RunOptions(in_process=True), warn=told.append)
    assert result.rows == 3
    (story,) = told
    assert story.startswith(f"signature '{signature}' may ")
    assert op in story
    launch(job(signature), RunOptions(in_process=True), warn=told.append)
    assert len(told) == 1, "what is done already does not warn again"


def test_a_plain_signature_of_the_same_model_warns_of_nothing(job: Callable[..., Job]) -> None:
    assert runner.run(job("plain"), in_process=True, progress=False).rows == 3  # a warning would be an error here


def test_trust_that_was_not_needed_changes_no_plan(job: Callable[..., Job]) -> None:
    asked = job("plain")
    trusting = asked.model_copy(update={"model": asked.model.model_copy(update={"trust": True})})
    assert trusting.fingerprint == asked.fingerprint
    assert preflight(trusting).plan.id == preflight(asked).plan.id
    assert preflight(trusting).scanned.trusted == ()


def test_plan_and_show_tell_it_too(moody: Path, tmp_path: Path, job: Callable[..., Job]) -> None:
    job("counts")

    def command(*arguments: str) -> str:
        run = [sys.executable, "-m", "runner", *arguments]
        return subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout

    flags = ["--model", str(moody), "--signature", "counts", "--input", "in.parquet", "--output", "out"]
    (story,) = json.loads(command("plan", *flags, "--json"))["warnings"]
    assert "AssignAddVariableOp" in story
    assert "may change the model's variables" in command("plan", *flags)
    page = command("show", str(moody))
    assert page.count("may change the model's variables") == page.count("may draw random numbers") == 1
    (metagraph,) = json.loads(command("show", str(moody), "--json"))["metagraphs"]
    assert len(metagraph["warnings"]) == 2
