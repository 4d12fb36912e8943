"""Which outputs of a real model are written, and as what: what is left out is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs.job import Job
from runner.cli.view.plan import plan_document, render_plan
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

MakeJob = Callable[..., Job]


@pytest.fixture
def delicate(half_plus_two: Path, tmp_path: Path) -> MakeJob:
    """delicate(outputs): a job of the signature with the outputs p and s; `outputs` may be left out."""
    values = pa.array(np.arange(37 * 4, dtype=np.float32) / 1000)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"f": pa.FixedSizeListArray.from_arrays(values, 37)}), tmp_path / "in" / "a.parquet")

    def make(outputs: Any = None, **inputs: Any) -> Job:
        return Job.model_validate(
            {
                "model": {"url": str(half_plus_two), "signature": "delicate"},
                "input": {"url": str(tmp_path / "in")},
                "columns": {"outputs": outputs, "inputs": inputs},
                "output": {"url": str(tmp_path / "out")},
            }
        )

    return make


@pytest.mark.parametrize(
    ("outputs", "missing"),
    [
        (None, []),
        (["s"], ["p"]),
        ({"s": "score"}, ["p"]),
        ({"score": {"of": "s"}}, ["p"]),
        ({"s": "score", "...": True}, []),
        (["s", "..."], []),
    ],
    ids=str,
)
def test_a_plan_names_the_outputs_that_are_not_written(delicate: MakeJob, outputs: Any, missing: list[str]) -> None:
    ready = preflight(delicate(outputs))
    assert plan_document(ready)["not_written"] == missing
    with (console := Console(width=100)).capture() as shown:
        console.print(render_plan(ready))
    lines = [line.split() for line in shown.get().splitlines() if line.startswith("not written")]
    assert lines == [["not", "written", *missing]] * bool(missing)


def test_options_of_one_output_leave_the_others_where_three_dots_stand(delicate: MakeJob) -> None:
    job = delicate({"s": "score", "...": True}, **{"f": "f", "...": True})
    result = launch(job, RunOptions(in_process=True))
    assert pq.read_schema(result.parts[0]).names == ["score", "p"]
