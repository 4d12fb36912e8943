"""How values look in a notebook: short, and nothing of them is taken for HTML."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.attempt import Measured, Receipt, Success
from jobs.errors import JobError
from jobs.job import Job
from jobs.notebook import Report, facts, table
from jobs.plan import InputFile, RowGroup, plan
from jobs.schedule.event import AttemptSucceeded
from jobs.section.limits import Limits
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
    assert len(table(("n",), [("y" * 10**6,)])) < 1000
    assert "(992,000 more letters)" in facts("x", {"a": "y" * 10**6}), (
        "a fact is longer than a cell, and has an end too"
    )


def test_the_name_of_a_fact_is_not_cut_within_a_word() -> None:
    shown = facts("workers", {"w1": "much to say " * 100})
    assert "break-word" in shown.partition("w1")[0]
    assert "anywhere" not in shown.partition("w1")[0]
    assert "anywhere" in shown.partition("w1")[2]


def test_a_job_and_a_plan_show_what_they_were_given() -> None:
    job = Job.model_validate({"model": {"url": "/m"}, "input": {"url": EVIL}, "output": {"url": "/out"}})
    assert "model.url" in job._repr_html_()
    assert "limits" not in job._repr_html_(), "defaults are left out"
    assert "<script>" not in job._repr_html_()
    made = plan([InputFile(EVIL, 10, "v", (RowGroup(4, 1),))], Limits(), {})
    assert made.id in made._repr_html_()
    assert "<script>" not in made._repr_html_()


def result(work_s: float = 2.0, **facts: Any) -> Result:
    history = History()
    history.dispatched(0.0, "w1", "e1-a1-0", 0, 1)
    receipt = Receipt(0, "e1-a1-0", 1, 1, "part", 100, "", 10, 10)
    history.note(AttemptSucceeded(work_s, "w1", Success(receipt, Measured({"run": 1.5}))))
    job = Job.model_validate({"model": {"url": "/m"}, "input": {"url": "/in"}, "output": {"url": "/out"}})
    made = account(job, history, {})
    return Result("/out", "id", 10, ("/out/part",), work_s, 10, 1, 100, account=made, page="/out/report.html", **facts)


def test_a_result_shows_its_summary_and_its_report_is_a_table() -> None:
    assert "10 rows in 1 part " in result()._repr_html_()
    text = f"{result(work_s=9.0, rows_rejected=3, codes={'ROW_NULL': 3})._repr_html_()}"
    for news in (
        *("the model is the bottleneck", "give it more cores", "3 rows (3 ROW_NULL); see: `runner.rejects("),
        "/out/report.html",
    ):
        assert news in text
    report = result().report
    assert report["rows"] == 10
    assert "stage_seconds" in Report(report)._repr_html_()
    assert "1.5" in report._repr_html_()


def test_the_summary_of_a_short_run_gives_one_rate_and_no_advice() -> None:
    summary = result(work_s=2.0).summary()
    assert summary.count("rows/s") == 1
    assert "speed: 5 rows/s while working" in summary
    assert "too short to tell what held it: 2.0 s of work" in summary
    assert "cores" not in summary
    assert (result(work_s=9.0).summary().count("rows/s"), result().report["rows_per_s"]) == (1, 5.0)


def test_what_was_done_before_says_when_where_its_report_is_and_what_would_run_it_again() -> None:
    done = Result(
        "/out", "id", 1, ("/out/part",), 0.0, 0, 0, 100, page="/out/r.html", finished_at="2026-11-25T01:00:00"
    )
    assert done.summary().splitlines() == [
        "already done: 1 row in 1 part (100 B), finished 2026-11-25T01:00:00",
        "report: /out/r.html",
        "to run it again: --overwrite, which removes these parts first",
        "output: /out",
    ]


def test_without_pandas_a_data_frame_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.driver.result.find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"pandas is not installed; install it, or use dataset\(\)"):
        result().to_pandas()
