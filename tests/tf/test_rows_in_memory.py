"""A job whose rows lie in memory: run, continued where it was stopped, and known again once it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import runner
from jobs.errors import DataError


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"id": range(100), "x": np.arange(100, dtype=np.float32)})


def test_a_data_frame_is_scored_and_scored_once(half_plus_two: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    def job() -> runner.Job:
        return runner.Job(model=half_plus_two, input=frame.copy(), columns={"keep": ["id"]}, output=tmp_path / "out")

    ready = runner.plan(job())
    result = runner.run(job(), in_process=True, progress=False)
    scored = result.dataset().to_table()
    assert scored["id"].to_pylist() == list(range(100))
    assert len(scored["y"]) == 100
    assert runner.verify(job()).holds
    again = runner.run(job(), in_process=True, progress=False)
    assert (again.rows, again.rows_run, again.plan_id) == (100, 0, ready.plan.id)


def test_a_run_that_was_stopped_goes_on_with_the_same_rows(half_plus_two: Path, tmp_path: Path) -> None:
    table = pa.table({"id": range(100), "x": pa.array([*range(99), -1.0], pa.float32())})
    job: dict[str, Any] = {"model": {"url": half_plus_two, "signature": "picky"}, "input": table}
    job |= {"output": tmp_path / "out", "columns": {"keep": ["id"]}, "limits": {"shard_rows": 50}}
    with pytest.raises(DataError):
        runner.run(job, in_process=True, progress=False)
    result = runner.run(job, "limits.max_rejected_rows=1", "limits.on_bad_row=reject", in_process=True, progress=False)
    assert (result.rows, result.rows_rejected) == (99, 1)
    assert pc.sum(result.dataset().to_table()["id"]).as_py() == sum(range(99))


def test_a_job_file_is_given_the_rows(half_plus_two: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"model: {half_plus_two}\noutput: {tmp_path / 'out'}\n")
    result = runner.run(file, {"input": frame}, in_process=True, progress=False)
    assert result.rows == 100
