"""The whole command on its own local Ray: killed, interrupted, and run again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cluster.fault import raise_interruption

Answers = Callable[[Path, int], None]
SHARDS = 40


@pytest.fixture
def slow_job(job_file: Callable[..., Path], half_plus_two: Path) -> Path:
    """2,000 rows in 40 shards of a few model calls each, on one worker."""
    return job_file(
        model={"url": str(half_plus_two), "signature": "slow"},
        limits={"shard_rows": 100, "batch_rows": 50},
        workers={"count": 1},
        rows=2000,
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start("run", ...): the command running in the background, in a process group of its own as in a terminal."""
    running: list[subprocess.Popen[str]] = []

    def call(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests run in the background Ctrl-C is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        running.append(process)
        return process

    yield call
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def await_parts(process: subprocess.Popen[str], output: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(output.glob("part-*"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"fewer than {count} parts within 60 s"
        time.sleep(0.02)


def parts(output: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in output.glob("part-*")}


@pytest.mark.parametrize("where", [["--in-process"], []], ids=["in-process", "ray"])
def test_a_driver_killed_in_the_middle_continues_without_recomputing(
    where: list[str],
    slow_job: Path,
    start: Callable[..., subprocess.Popen[str]],
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    require_half_plus_two: Answers,
) -> None:
    output = tmp_path / "out"
    process = start("run", "job.yaml", *where)
    await_parts(process, output, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    time.sleep(1)  # a worker of the dead driver may publish one more part
    before = parts(output)
    assert len(before) < SHARDS
    assert not (output / "_SUCCESS").exists()
    assert json.loads(command("status", "out", "--json").stdout)["state"] == "stopped"

    done = command("run", "job.yaml", *where, "--json", HOME="/proc/nobody")  # a home that nobody can write to
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_run"] <= 4000 - 100 * len(before)
    assert before.items() <= parts(output).items()
    require_half_plus_two(output, 4000)


@pytest.mark.parametrize(
    ("number", "where", "code"),
    [(signal.SIGINT, [], 130), (signal.SIGINT, ["--in-process"], 130), (signal.SIGTERM, [], 143)],
    ids=["ctrl-c-on-ray", "ctrl-c-in-process", "sigterm-on-ray"],
)
def test_an_interrupted_job_says_how_to_continue_and_does(
    number: signal.Signals,
    where: list[str],
    code: int,
    slow_job: Path,
    start: Callable[..., subprocess.Popen[str]],
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    require_half_plus_two: Answers,
) -> None:
    process = start("run", "job.yaml", *where)
    await_parts(process, tmp_path / "out", 2)
    os.killpg(process.pid, number)  # a terminal sends Ctrl-C to the whole group
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "to continue: runner run job.yaml" in errors
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert command("run", "job.yaml", "--in-process").returncode == 0
    require_half_plus_two(tmp_path / "out", 4000)


def test_an_overwrite_that_was_interrupted_goes_on_with_either_command(
    slow_job: Path,
    start: Callable[..., subprocess.Popen[str]],
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    require_half_plus_two: Answers,
) -> None:
    output, overwrite = tmp_path / "out", ("run", "job.yaml", "--in-process", "--overwrite")
    (output / "_run").mkdir(parents=True)
    before: dict[str, int] = {}
    for _ in range(2):  # the second time, the same command continues
        process = start(*overwrite)
        await_parts(process, output, len(before) + 2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors
        assert errors.endswith("to continue: runner run job.yaml --in-process\n")
        assert json.loads(command("status", "out", "--json").stdout)["command"] == "runner run job.yaml --in-process"
        assert before.items() <= parts(output).items()
        before = parts(output)
    done = command(*overwrite, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_run"] == 4000 - 100 * len(before)
    assert before.items() <= parts(output).items()
    require_half_plus_two(output, 4000)
    again = command(*overwrite, "--set", "model.signature=serving_default", "--json")
    assert json.loads(again.stdout)["rows_run"] == 4000


def test_a_watch_elsewhere_sees_a_killed_driver_and_names_the_command_that_continues(
    start: Callable[..., subprocess.Popen[str]], slow_job: Path, tmp_path: Path
) -> None:
    driver = start("run", "job.yaml", "--in-process", "--quiet")
    await_parts(driver, tmp_path / "out", 1)
    watch = start("status", "out", "--watch")
    driver.kill()
    driver.wait(10)
    out, errors = watch.communicate(timeout=60)
    assert watch.returncode == 4, errors
    assert "was lost" in out
    assert out.rstrip().endswith("to continue: runner run job.yaml --in-process --quiet")


def test_an_interruption_is_told_from_a_failure_of_ray_where_ray_wraps_it() -> None:
    wrapped = SystemError("returned a result with an exception set")
    wrapped.__cause__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        raise_interruption(wrapped)
    raise_interruption(SystemError("of Ray's own"))


def test_an_address_where_nobody_listens_is_told_without_asking_ray(
    slow_job: Path, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = command("run", str(slow_job), "--address", "127.0.0.1:1")
    assert done.returncode == 69
    assert done.stderr.startswith("error: no Ray at '127.0.0.1:1': connection refused; expected the head of a cluster")
    assert not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.faults
def test_a_head_that_accepts_and_says_nothing_can_be_interrupted(
    slow_job: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start("run", str(slow_job), "--address", f"127.0.0.1:{silent.getsockname()[1]}")
        time.sleep(8)  # it knocks, asks for a token, and begins to wait
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)  # Ray alone would be waited for 120 s
    assert process.returncode == 130
    assert "to continue: " in told
