"""How far submitted jobs are, from their outputs: bounded in number and in time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from three_shards import PLAN, finish_all, opened, work

from connectors.output.status import Status
from jobs.attempt import Success
from jobs.errors import StorageError
from jobs.section.output import Output
from runner.cluster import progress
from runner.cluster.progress import progress_of
from runner.cluster.submit import Submission


def submission(number: int, output: str, plan_id: str = PLAN.id) -> Submission:
    metadata = {"runner.plan": plan_id, "runner.output": output, "runner.options": "{}"}
    return Submission(f"runner-{number}", "RUNNING", metadata=metadata)


def test_each_job_has_the_progress_of_its_output(tmp_path: Path) -> None:
    done, half = (Output(url=str(tmp_path / name)) for name in ("done", "half"))
    finish_all(opened(done))
    directory = opened(half)
    directory.claim(PLAN)
    directory.record(Success(work(directory, 0)), [])
    listed = [
        submission(1, done.url),
        submission(2, half.url),
        submission(3, half.url),
        submission(4, half.url, "f" * 32),  # another plan, which nobody began
        submission(5, str(tmp_path / "nothing")),
    ]
    found = progress_of(listed)
    assert {id: (one.rows_done, one.rows) for id, one in found.items()} == {
        "runner-1": (15, 15),
        "runner-2": (4, 15),
        "runner-3": (4, 15),
    }


def test_the_latest_outputs_are_looked_at_each_once_and_no_receipt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []

    def look(output: Output, *, causes: bool) -> Status:
        seen.append((output.url, causes))
        return Status(output.url, "running", PLAN.id)

    monkeypatch.setattr(progress, "read_status", look)
    listed = [submission(number, f"/out/{number % 5}") for number in range(10)]
    assert set(progress_of(listed, most=3)) == {f"runner-{number}" for number in (2, 3, 4, 7, 8, 9)}
    assert sorted(seen) == [(f"/out/{number}", False) for number in (2, 3, 4)]


def test_a_store_that_is_silent_or_refuses_costs_its_own_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def look(output: Output, *, causes: bool) -> Status:
        if output.url == "/silent":
            never.wait()
        if output.url == "/refuses":
            raise StorageError("not for you")
        return Status(output.url, "running", PLAN.id)

    monkeypatch.setattr(progress, "read_status", look)
    listed = [submission(n, url) for n, url in enumerate(["/a", "/silent", "/refuses", "/b"])]
    assert set(progress_of(listed, patience_s=0.5)) == {"runner-0", "runner-3"}
    never.set()
