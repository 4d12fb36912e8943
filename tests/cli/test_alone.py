"""A plan of one shard needs no Ray on this machine; where one is started, that is shown, and a failed start is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runner
from connectors.models.cache import CacheSettings
from runner.driver.alone import TOLD, is_alone, may_be_alone
from runner.preflight.preflight import complete, examine

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]
JobFile = Callable[..., Path]

_ONE: dict[str, Any] = {"limits": {}}  # so few rows are one shard


def test_one_shard_is_scored_in_this_process_which_is_said_and_ray_is_not_even_imported(
    job_file: JobFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import sys; from runner.cli.main import app\n"
        f"app(['run', {str(job_file(**_ONE))!r}], standalone_mode=False)\n"
        "print([name for name in ('tensorflow', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.splitlines()[0] == TOLD
    assert "--address local" in TOLD
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_the_note_is_an_event_of_a_json_log_and_not_there_when_quiet(command: Command, job_file: JobFile) -> None:
    job_file(**_ONE)
    assert TOLD not in command("run", "job.yaml", "--quiet").stderr
    done = command("run", "job.yaml", "--log-format", "json", "--set", "output.url=other")
    notes = [line for line in map(json.loads, done.stderr.splitlines()) if line["event"] == "note"]
    assert [note["message"] for note in notes] == [TOLD]
    assert notes[0]["run"]


def test_a_local_ray_is_started_where_it_is_asked_for_and_its_start_is_shown_with_seconds(
    command: Command, job_file: JobFile, tmp_path: Path
) -> None:
    job_file(**_ONE)
    done = command("run", "job.yaml", "--address", "local")
    assert done.returncode == 0, done.stderr
    assert TOLD not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("starting a local Ray took ")]
    assert len(lines) == 1
    assert lines[0].endswith(" s")
    (epoch,) = (tmp_path / "out").glob("_run/*/epochs/*.json")
    (worker,) = json.loads(epoch.read_text())["workers"].values()
    assert worker["node_id"], "Ray says where a worker lives"


def _alone(file: Path, **options: Any) -> bool:
    examined = examine(runner.load_job(file), CacheSettings())
    given = {"in_process": False, "address": None} | options
    return may_be_alone(examined, **given) and is_alone(complete(examined))


@pytest.mark.parametrize(
    "sections",
    [
        {"limits": {"shard_rows": 500}},
        {"workers": {"count": 2}},
        {"workers": {"max": 1}},
        {"workers": {"gpus": 1}},
        {"workers": {"memory": "2GiB"}},
        {"workers": {"resources": {"tpu": 1}}},
        {"limits": {"on_bad_row": "reject", "max_rejected_rows": 1}},
        {"limits": {"on_bad_file": "skip"}},
        {"limits": {"reproducible": True}},
        {"model": {"trust": True}},
        {"model": {"op_libraries": ["ops.so"]}},
    ],
    ids=str,
)
def test_a_job_that_needs_workers_or_their_protection_gets_them(
    sections: dict[str, dict[str, Any]],
    job_file: JobFile,
    half_plus_two: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ops.so").write_bytes(b"")
    model = {"model": {"url": str(half_plus_two)} | sections.get("model", {})}
    assert not _alone(job_file(**(_ONE | sections | model)))


def test_workers_that_say_no_more_than_the_default_are_none(
    job_file: JobFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _alone(job_file(**_ONE))
    assert _alone(job_file(**_ONE, workers={"count": 1, "cpus": 2, "readers": 2}))
    assert not _alone(job_file(**_ONE), address="local")
    assert not _alone(job_file(**_ONE), address="10.0.0.1:6379")
    assert not _alone(job_file(**_ONE), in_process=True), "it is asked for, which needs no word"


def test_a_run_that_died_without_a_word_goes_on_with_a_worker_in_a_process_of_its_own(
    job_file: JobFile, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = job_file(**_ONE)
    died = command("run", "job.yaml", "--quiet", RUNNER_TEST_BUILD="1", RUNNER_FAILPOINTS="W3.run=kill")
    assert died.returncode == -9, died.stderr
    assert not _alone(file)
    assert command("run", "job.yaml", "--in-process").returncode == 0
    assert _alone(file), "that one ended with a word"


def test_a_process_that_has_a_ray_uses_it(job_file: JobFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Ray:
        @staticmethod
        def is_initialized() -> bool:
            return True

    monkeypatch.setitem(sys.modules, "ray", Ray)  # type: ignore[arg-type]
    assert not _alone(job_file(**_ONE))


def test_what_ended_a_run_before_its_first_worker_is_in_the_status(command: Command, job_file: JobFile) -> None:
    job_file(**_ONE, workers={"cpus": 10_000})
    done = command("run", "job.yaml", "--address", "local", "--quiet")
    assert done.returncode == 69
    assert "no worker can be started" in done.stderr
    status = json.loads(command("status", "out", "--json").stdout)
    assert (status["state"], status["ended"]) == ("stopped", "failed")
    assert "no worker can be started: " in status["error"]
    assert status["command"].startswith("runner run job.yaml")
    told = command("status", "out").stdout
    assert "cause" in told
    assert "no worker can be started" in told
