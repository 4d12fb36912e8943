"""How a run is asked for: what is wrong with it is told before anything is begun, or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import JobError
from runner.driver.launch import RunOptions


def test_metrics_that_cannot_be_written_are_refused_before_an_overwrite_removes_what_is_there(tmp_path: Path) -> None:
    """A run has its options before it looks at the output, and `plan` has the same ones."""
    with pytest.raises(JobError, match="cannot write metrics to"):
        RunOptions(overwrite=True, metrics_file=str(tmp_path / "absent" / "runner.prom"))


def test_a_repair_of_what_is_to_be_overwritten_is_refused() -> None:
    with pytest.raises(JobError, match="cannot both repair the output and overwrite it"):
        RunOptions(repair=True, overwrite=True)
