"""How values look in a notebook: short, and nothing of them is taken for HTML."""

from __future__ import annotations

import pytest

from jobs.attempt import Measured, Receipt, Success
from jobs.errors import JobError
from jobs.job import Job, Limits
from jobs.notebook import Report, facts, table
from jobs.plan import InputFile, RowGroup, plan
from jobs.schedule.event import AttemptSucceeded
from runner.driver.result import Result
from runner.measure.account import account
from runner.measure.history import History

EVIL = "<script>alert(1)</script>"


def test_everything_is_escaped_and_empty_values_are_left_out() -> None:
    shown = facts(EVIL, {"a": EVIL, "b": None, EVIL: 1234567}, share=0.5)
    assert "<script>" not in shown
    assert "1,234,567" in shown
    assert ">b<" not in shown
    assert 'value="0.5000"' in shown


def test_long_tables_and_cells_are_cut() -> None:
    shown = table(("n",), [(n,) for n in range(1000)])
    assert "and 950 more" in shown
    assert len(facts("x", {"a": "y" * 10**6})) < 1000


def test_a_job_and_a_plan_show_what_they_were_given() -> None:
    job = Job.model_validate({"model": {"url": "/m"}, "input": {"url": EVIL}, "output": {"url": "/out"}})
    assert "model.url" in job._repr_html_()
    assert "limits" not in job._repr_html_(), "defaults are left out"
    assert "<script>" not in job._repr_html_()
    made = plan([InputFile(EVIL, 10, "v", (RowGroup(4, 1),))], Limits(), {})
    assert made.id in made._repr_html_()
    assert "<script>" not in made._repr_html_()


def result() -> Result:
    history = History()
    history.dispatched(0.0, "w1", "e1-a1-0", 0, 1)
    receipt = Receipt(0, "e1-a1-0", 1, 1, "part", 100, "", 10, 10)
    history.note(AttemptSucceeded(2.0, "w1", Success(receipt, Measured({"run": 1.5}))))
    job = Job.model_validate({"model": {"url": "/m"}, "input": {"url": "/in"}, "output": {"url": "/out"}})
    return Result("/out", "id", 10, ("/out/part",), 2.0, 10, 1, 100, account=account(job, history, {}))


def test_a_result_shows_its_summary_and_its_report_is_a_table() -> None:
    assert "10 rows in 1 part " in result()._repr_html_()
    report = result().report
    assert report["rows"] == 10
    assert "stage_seconds" in Report(report)._repr_html_()
    assert "1.5" in report._repr_html_()


def test_without_pandas_a_data_frame_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.driver.result.find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"pandas is not installed; install it, or use dataset\(\)"):
        result().to_pandas()
