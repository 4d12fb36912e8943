"""Exports whose variables a session does not find: the trial says whether the other engine runs them, having tried."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import ModelError
from jobs.job import Job
from runner.driver.launch import RunOptions, launch
from runner.engine import EngineOptions
from runner.preflight.preflight import preflight
from runner.worker.worker import Worker


@pytest.fixture(scope="module")
def wrapped(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tf.Module around a Keras model: 3 numbers in, their sum out, twice."""
    tf = tensorflow
    path = tmp_path_factory.mktemp("wrapped") / "model"
    dense = tf.keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
    module = tf.Module()
    module.model = tf.keras.Sequential([tf.keras.layers.Input((3,)), dense])

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def call(x: Any) -> Any:
        return {"y": module.model(x)}

    tf.saved_model.save(module, str(path), signatures={"serving_default": call})
    return path


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(model: Path, **keys: Any) -> Job:
        rows = pa.array([[row, 1, 2] for row in range(20)], pa.list_(pa.float32(), 3))
        pq.write_table(pa.table({"x": rows}), tmp_path / "in.parquet")
        document = {"model": {"url": str(model), **keys}, "input": {"url": str(tmp_path / "in.parquet")}}
        return Job.model_validate(document | {"output": {"url": str(tmp_path / "out")}})

    return make


def trial_error(job: Job) -> ModelError:
    ready = preflight(job)
    worker = Worker(ready.spec(job.output), "w1", EngineOptions(threads=1))
    try:
        with pytest.raises(ModelError) as refused:
            worker.trial()
    finally:
        worker.close()
    return refused.value


def test_an_export_whose_variables_a_session_does_not_find_names_the_engine_that_answered(
    wrapped: Path, job: Callable[..., Job]
) -> None:
    error = trial_error(job(wrapped))
    assert (error.exit_code, error.facts["code"]) == (2, "MODEL_STATE")
    assert "Could not find variable" in error.message
    assert "Debug info" not in error.message
    assert error.message.endswith(
        "run it with `model: {engine: eager}`: tried with a row in a process of its own, it answers"
    )


def test_the_engine_that_is_named_runs_the_job(wrapped: Path, job: Callable[..., Job]) -> None:
    result = launch(job(wrapped, engine="eager"), RunOptions(in_process=True))
    rows = result.dataset().to_table()
    sums = rows["y"].combine_chunks().storage.flatten().to_pylist()
    assert sums[::2] == [row + 3.0 for row in range(20)]


def test_where_no_engine_runs_it_both_reasons_are_said(wrapped: Path, job: Callable[..., Job], tmp_path: Path) -> None:
    """An export that has lost its variables."""
    lost = tmp_path / "lost"
    shutil.copytree(wrapped, lost)
    shutil.rmtree(lost / "variables")
    error = trial_error(job(lost))
    assert error.facts["code"] == "MODEL_STATE"
    assert "Could not find variable" in error.message
    assert "engine 'eager' was tried, and does not run it either: cannot load model" in error.message
    assert error.message.endswith("export the model again")
