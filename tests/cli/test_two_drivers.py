"""Two commands with one output: the second one waits, and goes on when the first one is out of the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Process = subprocess.Popen[str]
Start = Callable[..., Process]
RUN = ("run", "job.yaml", "--in-process")
WAIT = ("--wait-for-driver", "1m")


@pytest.fixture
def start(tmp_path: Path, job_file: Callable[..., Path]) -> Iterator[Start]:
    """start("run", ..., slow=0.5): the command in the background; each call of the model takes so many seconds more."""
    job_file(rows=1000)
    running: list[Process] = []

    def call(*arguments: str, slow: float = 0.0) -> Process:
        faults = {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": f"W3.run=sleep:{slow}"} if slow else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            cwd=tmp_path,
            env=os.environ | faults,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        running.append(process)
        return process

    yield call
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def heard(process: Process, event: str) -> dict[str, Any]:
    """The next line of its log that is of this event; whoever waits for it waits as long as the process lives."""
    assert process.stderr is not None
    for line in process.stderr:
        said: dict[str, Any] = json.loads(line)
        if said["event"] == event:
            return said
    raise AssertionError(
        f"it ended with {process.wait()} and without '{event}': {process.stdout and process.stdout.read()}"
    )


def test_a_second_driver_waits_until_the_first_one_is_stopped_and_goes_on_by_itself(
    start: Start, tmp_path: Path, require_half_plus_two: Callable[[Path, int], None]
) -> None:
    first = start(*RUN, "--log-format", "json", slow=3.0)
    heard(first, "dispatch")
    second = start(*RUN, *WAIT, "--log-format", "json")
    waits = heard(second, "waiting_for_driver")
    assert (waits["level"], waits["driver"], waits["pid"]) == ("warning", 1, first.pid)
    third = start(*RUN, *WAIT)  # Ctrl-C stops the waiting, and nothing else
    assert third.stderr is not None
    assert third.stderr.readline().startswith("warning: waiting, for ")
    third.send_signal(signal.SIGINT)
    assert third.wait(20) == 130
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    assert "ended (interrupted): this one goes on" in heard(second, "driver_gone")["message"]
    said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    require_half_plus_two(tmp_path / "out", 2000)


def test_what_the_first_driver_finishes_is_done_for_the_second(start: Start) -> None:
    first = start(*RUN, "--log-format", "json", slow=0.5)
    heard(first, "dispatch")
    second = start(*RUN, *WAIT, "--overwrite", "--json", "--log-format", "json")
    heard(second, "waiting_for_driver")
    first.communicate(timeout=60)
    assert first.returncode == 0
    answer, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert json.loads(answer)["rows_run"] == 0


def test_without_asking_for_it_nobody_waits(start: Start, command: Callable[..., Any]) -> None:
    first = start(*RUN, "--log-format", "json", slow=3.0)
    heard(first, "dispatch")
    refused = command(*RUN)
    assert refused.returncode == 75
    assert "--wait-for-driver 6m" in refused.stderr
    wrong = command(*RUN, "--wait-for-driver", "6")
    assert (wrong.returncode, "such as 30s, 6m" in wrong.stderr) == (2, True)
