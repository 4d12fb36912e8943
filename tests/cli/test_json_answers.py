"""What scripts and log collectors read: errors as JSON, and a log in which every line is an event."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]
JobFile = Callable[..., Path]

REFUSED = {  # a command that fails -> words of its error
    "plan nofile.yaml --json": "cannot read job file 'nofile.yaml'",
    "plan job.yaml --set limits.bogus=1 --json": "bogus",
    "run nofile.yaml --json": "cannot read job file 'nofile.yaml'",
    "show nomodel --json": "cannot find model 'nomodel'",
    "scan nomodel --json": "cannot find model 'nomodel'",
    "call nomodel --json": "nomodel",
    "status --json": "Missing argument 'OUTPUT'",
    "status out --json --bogus": "No such option: --bogus",
    "verify nowhere --json": "there is no whole '_run/'",
    "rejects nowhere --json": "there is no whole '_run/'",
    "diff nowhere --left a --right b --json": "there is no whole '_run/'",
    "diff nowhere --left a --json": "Missing option '--right'",
    "sweep gopher://nowhere --json": "no store for scheme 'gopher'",
    "submit job.yaml --json": "Missing option '--address'",
    "jobs list --json": "Missing option '--address'",
    "jobs status x --json": "Missing option '--address'",
    "cache clean --older-than 3 --json": "cannot use --older-than '3'",
    "bogus --json": "No such command 'bogus'",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_command_that_answers_in_json_fails_in_json(command: Command, job_file: JobFile, line: str) -> None:
    if "job.yaml" in line:
        job_file()
    done = command(*line.split())
    error = json.loads(done.stdout)["error"]
    assert done.returncode == error["exit_code"] == 2
    assert (error["retry"], error["facts"]) == (False, {})
    assert error["class"].endswith("Error")
    assert REFUSED[line] in error["message"]
    assert error["message"].splitlines()[0] in done.stderr, "and people are told as ever"


def test_a_code_stands_in_the_error(command: Command, job_file: JobFile, tmp_path: Path) -> None:
    job_file()
    (tmp_path / "in" / "numbers-000.parquet").write_bytes(b"no parquet")
    done = command("plan", "job.yaml", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "FILE_MAGIC"


def events(done: Completed) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "nofile.yaml"], 2, "cannot read job file"),
        (["run", "--log-format=json"], 2, "no job: give a job file"),
        (["run", "--bogus"], 2, "No such option: --bogus"),
        (["run", "job.yaml", "--map", "x=nothing", "--in-process"], 2, "cannot combine job file"),
        (["run", "job.yaml", "--in-process", "--set", "columns.inputs.x=nothing"], 2, "nothing"),
        (["run", "job.yaml", "--address", "127.0.0.1:1"], 69, "127.0.0.1:1"),
        (["run", "job.yaml", "--in-process", "--set", "model.signature=picky"], 65, "MODEL_ROW"),
    ],
)
def test_every_line_of_a_log_is_an_event_and_the_last_one_says_why_it_ended(
    command: Command, job_file: JobFile, arguments: list[str], code: int, words: str
) -> None:
    _negative(job_file().parent / "in" / "numbers-001.parquet")
    done = command(*arguments, "--log-format", "json")
    assert done.returncode == code, done.stderr
    last = events(done)[-1]
    assert (last["event"], last["level"], last["exit_code"]) == ("error", "error", code)
    assert words in last["message"]
    assert done.stdout == ""


def _negative(file: Path) -> None:
    """One number that the signature 'picky' refuses."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    x = np.where(np.arange(len(table)) == 700, np.float32(-1), table["x"].to_numpy())
    pq.write_table(table.set_column(1, "x", pa.array(x)), file, row_group_size=100)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_an_event_that_says_how_to_continue(
    job_file: JobFile, tmp_path: Path, number: int, code: int
) -> None:
    job_file()
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "run", "job.yaml", "--in-process", "--log-format", "json"],
        cwd=tmp_path,
        env=os.environ | {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": "W3.run=sleep:2"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if json.loads(line)["event"] == "dispatch":
                break
        process.send_signal(number)
        last = [json.loads(line) for line in process.stderr][-1]
    assert process.returncode == code
    assert (last["event"], last["exit_code"], last["retry"]) == ("interrupted", code, True)
    assert last["to_continue"] == "runner run job.yaml --in-process --log-format json"
    assert last["run"].endswith("-1")


def test_a_traceback_stands_in_its_event(command: Command) -> None:
    done = command("run", "nofile.yaml", "--log-format", "json", RUNNER_TRACEBACK="1")
    assert "Traceback (most recent call last)" in events(done)[-1]["traceback"]
