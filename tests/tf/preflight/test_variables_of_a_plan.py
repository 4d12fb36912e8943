"""From the text of a nightly job to its output: what its variables stood for is told by the plan, and after the run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from connectors.output.directory import read_status
from jobs.document.origin import Origin
from jobs.errors import OutputError
from jobs.job import Job
from jobs.load import load_job
from runner.cli.view.output import render_status
from runner.cli.view.plan import plan_document, render_plan
from runner.driver.launch import RunOptions, launch
from runner.preflight.preflight import preflight

NIGHT = datetime(2026, 11, 30, 2, tzinfo=UTC)
VALUES = {"dt": "2026-11-29", "env:SIDE": "left", "env:API_TOKEN": "***", "date-1d:%Y-%m-%d": "2026-11-29"}


def _job(model: Path, folder: Path, now: datetime = NIGHT) -> Job:
    text = (
        'vars: {dt: "${date-1d:%Y-%m-%d}"}\n'
        f"model: {model}\n"
        f'input: "{folder}/${{env:SIDE}}/dt=${{dt}}/${{env:API_TOKEN}}.parquet"\n'
        f"output: {folder}/out\n"
    )
    return load_job(text, "job.yaml", origin=Origin({"SIDE": "left", "API_TOKEN": "a"}, now))


def _shown(what: object) -> str:
    with (console := Console(width=120)).capture() as shown:
        console.print(what)
    return shown.get()


def test_what_variables_stood_for_is_told_before_and_after_a_run_and_where_the_next_night_is_refused(
    half_plus_two: Path, tmp_path: Path
) -> None:
    for day in ("2026-11-29", "2026-11-30"):
        (tmp_path / "left" / f"dt={day}").mkdir(parents=True)
        pq.write_table(pa.table({"x": np.arange(4, dtype=np.float32)}), tmp_path / "left" / f"dt={day}" / "a.parquet")
    job = _job(half_plus_two, tmp_path)
    ready = preflight(job)
    assert plan_document(ready)["variables"] == VALUES
    assert "variables  dt = 2026-11-29, env:SIDE = left, env:API_TOKEN = ***" in _shown(render_plan(ready))
    plain = Job.model_validate_json(job.model_dump_json())
    assert preflight(plain).plan.id == ready.plan.id

    launch(job, RunOptions(in_process=True))
    status = read_status(job.output)
    assert status.variables == VALUES
    assert "variables  dt = 2026-11-29, env:SIDE = left" in _shown(render_status(status))
    (report,) = tmp_path.glob("out/_run/*/report.json")
    assert json.loads(report.read_text())["variables"] == VALUES
    assert "<p>dt = 2026-11-29</p>" in report.with_suffix(".html").read_text()

    with pytest.raises(OutputError) as refused:
        launch(_job(half_plus_two, tmp_path, NIGHT + timedelta(days=1)), RunOptions(in_process=True))
    told = refused.value.message
    assert f"input file '{tmp_path}/left/dt=2026-11-29/a.parquet' was part of the input then, and is not now" in told
    assert "; variable dt: '2026-11-29' then, '2026-11-30' now" in told
