"""Attempts without a cluster: workers that everybody thinks dead, rivals, full disks. Rows 12, 13, 42, 43, 53."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from exactly_once import snapshot

from connectors.output.directory import OutputDirectory
from jobs.attempt import attempt
from jobs.errors import InternalError
from jobs.section.output import Output
from runner.preflight.preflight import preflight

Start = Callable[..., subprocess.Popen[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
LONE = str(Path(__file__).parents[1] / "support" / "lone_attempt.py")


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, out + errors
    receipt: dict[str, Any] = json.loads(out)
    return receipt


def test_row_12_a_zombie_that_wakes_after_success_changes_nothing(
    case: Any, start: Start, command: Command, await_that: Callable[..., None], process_state: Callable[[int], str]
) -> None:
    zombie = start(LONE, "job.yaml", "3", faults="W4.done=stop")
    await_that(lambda: process_state(zombie.pid) == "T", "the attempt is about to publish", zombie)
    assert command("run", "job.yaml", "--in-process").returncode == 0
    before = snapshot(case.output, below_run=True)
    os.kill(zombie.pid, signal.SIGCONT)
    zombie.communicate(timeout=60)  # its spool was swept: that it fails or adopts is the same to the output
    assert snapshot(case.output, below_run=True) == before, "byte-identical, `_run` included"
    case.require_equal()


def test_row_13_of_two_attempts_that_publish_at_the_same_moment_one_wins_and_the_other_adopts(
    case: Any, start: Start, command: Command, await_that: Callable[..., None], process_state: Callable[[int], str]
) -> None:
    rivals = [start(LONE, "job.yaml", "3", faults="W4.done=stop") for _ in range(2)]
    for rival in rivals:
        await_that(lambda pid=rival.pid: process_state(pid) == "T", "the attempt is about to publish", rival)
    for rival in rivals:
        os.kill(rival.pid, signal.SIGCONT)
    receipts = [answer(rival) for rival in rivals]
    assert sorted(receipt["adopted"] for receipt in receipts) == [False, True]
    assert receipts[0]["attempt"] == receipts[1]["attempt"], "both report the one that won"
    (part,) = case.parts
    before = snapshot(case.output)
    assert command("run", "job.yaml", "--in-process").returncode == 0
    assert before.items() <= snapshot(case.output).items()
    assert case.require_equal()[3]["attempt"] == receipts[0]["attempt"], part


def small_files() -> None:
    """No file of this process grows beyond 4 kB: writing more fails, much as on a full disk (EFBIG)."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def test_row_42_a_spool_that_cannot_grow_fails_with_path_and_bytes_and_continues_later(
    case: Any, command: Command
) -> None:
    # Parts of 6 kB: larger than the plan and the documents beside it.
    case.write(limits={"shard_rows": 400, "batch_rows": 50}, output={"url": str(case.output), "compression": "none"})
    done = command("run", "job.yaml", "--in-process", preexec_fn=small_files)
    assert done.returncode == 70, done.stderr
    assert "4 of 4 attempts" in done.stderr
    assert f"{case.output}" in done.stderr
    assert "File too large" in done.stderr
    assert "bytes" in done.stderr
    assert case.parts == []
    assert command("run", "job.yaml", "--in-process").returncode == 0
    case.require_equal()


@pytest.fixture
def full_disk(case: Any) -> Iterator[Path]:
    """The output of the case on a disk of its own, with 32 kB left."""
    case.output.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk that is full")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(case.output)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"this machine does not allow to mount a disk: {mounted.stderr.strip()}")
    ballast = case.output / "_run" / "ballast"
    ballast.parent.mkdir()
    ballast.write_bytes(bytes(224 * 1024))
    yield ballast
    subprocess.run(["umount", str(case.output)], check=True)


def test_row_43_a_full_output_ends_the_job_at_once_without_a_torn_name_and_continues_when_there_is_room(
    case: Any, command: Command, full_disk: Path
) -> None:
    done = command("run", "job.yaml", "--in-process")
    assert done.returncode == 70, done.stderr
    assert "DISK_FULL" in done.stderr
    assert "would fail again" in done.stderr, "no second try"
    assert "free some there" in done.stderr
    assert str(case.output) in done.stderr
    assert not (case.output / "_SUCCESS").exists()
    before = snapshot(case.output)
    full_disk.unlink()
    done = command("run", "job.yaml", "--in-process")
    assert done.returncode == 0, done.stderr
    assert before.items() <= snapshot(case.output).items(), "what had a final name was whole"
    case.require_equal()


def test_row_53_a_part_that_is_dropped_instead_of_published_leaves_nothing_visible(case: Any) -> None:
    ready = preflight(case.job())
    output = OutputDirectory(Output(url=str(case.output)), ready.plan.id, len(ready.plan.shards))
    given = attempt(ready.plan, ready.plan.shards[0], 1, 1, "0" * 12)
    schema = pa.schema([("y", pa.float32())])
    part = output.open_part(given, schema, ready.model.digest, "w1").__enter__()
    part.write(pa.record_batch([pa.array([1.0] * 100, pa.float32())], schema))
    del part
    gc.collect()
    assert case.parts == []
    assert output.adopt(0) is None
    again = attempt(ready.plan, ready.plan.shards[0], 2, 1, "1" * 12)
    failing = output.open_part(again, schema, ready.model.digest, "w1")
    with pytest.raises(InternalError, match="the part has 'y'"), failing:
        failing.write(pa.record_batch({"another": [1.0]}))
    assert case.parts == []
    assert not list(case.output.rglob(f"{again.id}*")), "an attempt that fails cleans up after itself"
