"""Jobs whose network is compiled when it is called: one batch size, whatever the row groups, and nobody sees why."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax_sizes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.attempt import Success, attempt
from jobs.job import Job
from runner.driver.launch import RunOptions, launch
from runner.driver.result import Result
from runner.engine import EngineOptions
from runner.preflight.preflight import Preflight, preflight
from runner.worker.worker import Worker

IN_PROCESS = RunOptions(in_process=True)
REJECT = {"on_bad_row": "reject", "max_rejected_rows": "50%"}
SIZES = (7, 30, 1, 11, 16)  # rows of the row groups of a file
ROWS = sum(SIZES)
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jax") / "model"
    done = subprocess.run([sys.executable, jax_sizes.__file__, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def job(tmp_path: Path, model: Path) -> MakeJob:
    """job(x, signature, limits=..., **model): two equal files with the values of the column 'x' each."""

    def make(x: Any, signature: str, limits: Any = None, columns: Any = None, **options: Any) -> Job:
        for number in range(2):
            table = pa.table({"row": range(number * ROWS, (number + 1) * ROWS), "x": x})
            with pq.ParquetWriter(tmp_path / f"{number}.parquet", table.schema) as writer:
                for first, rows in zip(np.cumsum([0, *SIZES[:-1]]), SIZES, strict=True):
                    writer.write_table(table.slice(first, rows))
        document = {
            "model": {"url": str(model), "signature": signature, **options},
            "input": {"url": f"{tmp_path}/*.parquet"},
            "columns": {"keep": ["row"], **(columns or {})},
            "output": {"url": str(tmp_path / "out")},
            "limits": {"shard_rows": ROWS, **(limits or {})},
        }
        return Job.model_validate(document)

    return make


def pairs(bad: int | None = None) -> pa.Array:
    """[exp(row), 1.0] of each row: `log` answers row + 1, and NaN for the bad one; short so that exp stays small."""
    x = np.stack([np.exp(np.arange(ROWS) / 8), np.ones(ROWS)], axis=1).astype(np.float32)
    if bad is not None:
        x[bad, 0] = -1.0
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 2)


def scores(result: Result) -> dict[int, float]:
    return {row["row"]: row["y"] for row in result.dataset().to_table().to_pylist()}


def compilations(result: Result) -> tuple[int, int]:
    (worker,) = result.report["workers"].values()
    return worker["compilations"], worker["compiled_shapes"]


@pytest.mark.parametrize("engine", ["session", "eager"])
def test_row_groups_of_all_sizes_are_one_compilation_and_padding_is_in_no_figure(engine: str, job: MakeJob) -> None:
    found = preflight(job(pairs(), "log", {"batch_rows": 64}, engine=engine))
    assert (found.binding.batch_rows, found.batch_rows, found.most_batch_rows) == (64, 64, 64)
    result = launch(found.job, IN_PROCESS)
    assert scores(result) == {row: pytest.approx(row % ROWS / 8 + 1, abs=1e-5) for row in range(2 * ROWS)}
    assert compilations(result) == (1, 1)
    (worker,) = result.report["workers"].values()
    assert (result.rows, worker["rows"], worker["shards"]) == (2 * ROWS, 2 * ROWS, 2)
    # one compilation, which took longer than all the calls that followed, is none of their time
    stages, told = worker["stage_seconds"], result.report["compilations"]
    assert (told["count"], told["seconds"], stages["compile"]) == (1, worker["compile_seconds"], told["seconds"])
    assert stages["run"] < stages["compile"]
    assert "XLA: compiled 1 time (" in result.summary()


def test_the_last_row_fills_a_batch_and_is_one_bad_row_if_it_answers_nan(job: MakeJob) -> None:
    bad = ROWS - 1
    result = launch(job(pairs(bad), "log", {**REJECT, "nan_output": "reject", "nonfinite": "pass"}), IN_PROCESS)
    assert (result.codes, result.rows, compilations(result)) == ({"MODEL_NAN": 2}, 2 * ROWS - 2, (1, 1))
    assert [row["row"] for row in result.rejects().to_pylist()] == [SIZES[-1] - 1] * 2


def test_a_nan_is_counted_once_for_the_row_that_has_it(job: MakeJob) -> None:
    result = launch(job(pairs(ROWS - 1), "log"), IN_PROCESS)
    assert (result.nan_rows, math.isnan(scores(result)[ROWS - 1])) == (2, True)


def test_the_largest_of_nan_is_nan_as_jax_has_it(job: MakeJob) -> None:
    x = np.tile(np.array([1, 2], np.float32), (ROWS, 1))
    x[3, 0] = np.nan
    result = launch(job(pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 2), "most"), IN_PROCESS)
    assert [row for row, score in scores(result).items() if math.isnan(score)] == [3, ROWS + 3]


@pytest.mark.parametrize("bad", [0, ROWS - 1])
def test_a_row_that_tensorflow_refuses_before_jax_is_found_in_calls_of_one_size(bad: int, job: MakeJob) -> None:
    words = [str(row) for row in range(ROWS)]
    words[bad] = "no number"
    result = launch(job(words, "words", REJECT), IN_PROCESS)
    assert (result.codes, compilations(result)) == ({"MODEL_ROW": 2}, (1, 1))
    assert all("no number" in row["message"] for row in result.rejects().to_pylist())
    assert scores(result) == {row: 2.0 * (row % ROWS) for row in range(2 * ROWS) if row % ROWS != bad}


def test_a_network_of_a_fixed_batch_keeps_its_size(job: MakeJob) -> None:
    found = preflight(job(pairs(), "eight"))
    assert (found.binding.batch_rows, found.binding.padded) == (8, False)
    assert compilations(launch(found.job, IN_PROCESS)) == (1, 1)


def test_each_width_that_lists_are_padded_to_is_one_compilation(job: MakeJob) -> None:
    lists = [[1.0] * (row % 16 + 1) for row in range(ROWS)]
    columns = {"inputs": {"x": {"column": "x", "pad": {"multiple_of": 8}}}}
    result = launch(job(lists, "steps", {"batch_rows": 16}, columns), IN_PROCESS)
    assert scores(result) == {row: row % ROWS % 16 + 1 for row in range(2 * ROWS)}
    assert compilations(result) == (2, 2)


def size(found: Preflight) -> tuple[int | None, bool]:
    return found.binding.batch_rows, found.binding.padded


def test_one_size_is_the_smallest_power_of_two_that_holds_a_shard_or_the_one_that_is_asked_for(job: MakeJob) -> None:
    assert size(preflight(job(pairs(), "log"))) == (128, True)
    assert size(preflight(job(pairs(), "log", {"batch_rows": 24}))) == (24, True)
    assert size(preflight(job(pairs(), "log", batch=24))) == (24, False)
    assert size(preflight(job(pairs(), "log", {"shard_rows": 1}))) == (32, True), "a row group is the least shard"
    x = np.arange(ROWS, dtype=np.float32)
    assert size(preflight(job(x, "plain"))) == (None, False), "no network of JAX's is behind this signature"
    assert size(preflight(job(x, "own"))) == (64, True), "it takes no more"


def test_a_model_that_batches_by_itself_is_called_with_one_size_too(job: MakeJob) -> None:
    result = launch(job(np.arange(ROWS, dtype=np.float32), "own", {"batch_rows": 48}), IN_PROCESS)
    assert scores(result) == {row: 2.0 * (row % ROWS) for row in range(2 * ROWS)}
    assert compilations(result) == (1, 1)


def test_an_attempt_after_one_that_ran_out_of_memory_has_half_the_rows_in_each_call(job: MakeJob) -> None:
    found = preflight(job(pairs(), "log"))
    sizes = list[int]()
    worker = Worker(found.spec(found.job.output), "w1", EngineOptions(threads=1, model=found.members[0].options))
    worker.observe = lambda rows, most, padding, seconds: sizes.append(rows + padding)
    try:
        answer = worker.attempt(replace(attempt(found.plan, found.plan.shards[0], 1, 1, "ab" * 6), halvings=2))
    finally:
        worker.close()
    assert isinstance(answer, Success)
    assert sizes == [32] * 3
