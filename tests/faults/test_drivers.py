"""Drivers die, sleep, come in pairs, or find what others did to their files. Rows 19, 32, 33, 35 to 37, 46 to 49.

Row 34, a driver that is asked to stop, is in tests/cli/test_interruptions.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_process import cluster_process
from exactly_once import snapshot, write_file

Start = Callable[..., subprocess.Popen[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
RUN = ("run", "job.yaml", "--in-process")
SHARDS, CALLS = 8, 16
NO_CALL = "W3.run=kill"  # a run with this that ends well has not called the model


@pytest.mark.parametrize("seed", range(4))
def test_row_32_a_driver_killed_at_a_random_instant_continues_and_recomputes_only_what_was_in_hand(
    seed: int, case: Any, start: Start, command: Command, await_that: Callable[..., None]
) -> None:
    chance = random.Random(seed)
    calls = case.folder / "calls"
    process = start("-m", "runner", *RUN, faults=f"W3.run=note#{calls}")
    await_that(calls.exists, "a first model call", process)
    time.sleep(chance.uniform(0, 0.9))
    process.kill()
    process.wait(30)
    before, called = snapshot(case.output), case.passings("calls")
    done = command(*RUN, "--json", faults=f"W3.run=note#{calls}")
    assert done.returncode == 0, done.stderr
    left = SHARDS - len(before) if "_SUCCESS" not in before else 0
    assert json.loads(done.stdout)["rows_run"] == 100 * left
    assert case.passings("calls") == called + 2 * left, "no call but those of the shards that were not done"
    # Each of two workers may publish one shard while it computes the next: four shards in hand.
    lost = called + 2 * left - CALLS
    assert 0 <= lost <= 4 * 2, "at most the calls of the shards in hand were lost"
    assert before.items() <= snapshot(case.output).items()
    case.require_equal()


@pytest.mark.parametrize("step", ["D9.after", "D10.after"], ids=["row-33-before-manifest", "row-33-before-success"])
def test_a_driver_killed_when_all_parts_are_done_is_finished_by_the_next_without_a_model_call(
    step: str, case: Any, command: Command
) -> None:
    assert command(*RUN, faults=f"{step}=kill").returncode == -signal.SIGKILL
    before = snapshot(case.output)
    assert len(before) == SHARDS
    done = command(*RUN, "--json", faults=f"{NO_CALL};W1.load=kill")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_run"] == 0
    assert before.items() <= snapshot(case.output).items()
    case.require_equal()


@pytest.mark.parametrize("step", ["D3.after", "W1.load", "W3.fetch", "W3.encode", "W4.done", "W6.after", "D7.before"])
def test_row_32_a_driver_killed_at_each_step_leaves_what_the_next_continues(
    step: str, case: Any, command: Command
) -> None:
    nth = {"D3.after": 1, "W1.load": 1}.get(step, 3)
    assert command(*RUN, faults=f"{step}=kill@{nth}").returncode == -signal.SIGKILL
    assert not (case.output / "_SUCCESS").exists()
    before = snapshot(case.output)
    done = command(*RUN)
    assert done.returncode == 0, done.stderr
    assert before.items() <= snapshot(case.output).items()
    case.require_equal()


def test_row_35_two_drivers_started_together_make_one_result(case: Any, start: Start) -> None:
    both = [start("-m", "runner", *RUN) for _ in range(2)]
    ends = [process.communicate(timeout=100) for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, ends
    assert set(codes) <= {0, 75}, f"finished, or another one writes: {codes} {ends}"
    case.require_equal()


def test_row_37_a_second_different_plan_is_refused_and_touches_nothing(case: Any, command: Command) -> None:
    assert command(*RUN, faults="D7.before=kill@3").returncode == -signal.SIGKILL
    before = snapshot(case.output, below_run=True)
    done = command(*RUN, "--set", "limits.shard_rows=200")
    assert done.returncode == 2, done.stderr
    assert "shard" in done.stderr
    assert snapshot(case.output, below_run=True) == before
    assert command(*RUN).returncode == 0
    case.require_equal()


def test_row_46_an_input_that_is_replaced_while_the_job_runs_stops_it_with_its_name(
    case: Any, start: Start, await_that: Callable[..., None]
) -> None:
    process = start("-m", "runner", *RUN, faults="W3.run=sleep:0.2")
    await_that(lambda: len(case.parts) >= 1, "a first part", process)
    replaced = case.folder / "in" / "rows-001.parquet"
    write_file(case.folder / "new.parquet", 7, 400)
    (case.folder / "new.parquet").rename(replaced)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 65, errors
    assert str(replaced) in errors
    assert "changed since plan" in errors
    assert not (case.output / "_SUCCESS").exists()


def test_row_47_a_torn_receipt_is_rebuilt_from_the_part(case: Any, command: Command) -> None:
    assert command(*RUN, faults="D9.after=kill").returncode == -signal.SIGKILL
    receipts = sorted(case.output.glob("_run/*/receipts/*.json"))
    assert len(receipts) == SHARDS
    receipts[0].write_bytes(receipts[0].read_bytes()[:40])
    receipts[1].write_text("{}")
    receipts[2].unlink()
    edited = json.loads(receipts[3].read_text())
    receipts[3].write_text(json.dumps(edited | {"rows_in": 1, "rows_out": 1}))
    before = snapshot(case.output)
    done = command(*RUN, faults=NO_CALL)
    assert done.returncode == 0, done.stderr
    assert before.items() <= snapshot(case.output).items()
    case.require_equal()


def test_row_48_an_edited_plan_is_refused(case: Any, command: Command) -> None:
    assert command(*RUN, faults="D7.before=kill@3").returncode == -signal.SIGKILL
    (plan,) = case.output.glob("_run/*/plan.json")
    whole = plan.read_bytes()
    edited = whole.replace(b"[50,", b"[49,", 1)
    assert edited != whole
    plan.write_bytes(edited)
    before = snapshot(case.output, below_run=True)
    done = command(*RUN)
    assert done.returncode == 2, done.stderr
    assert "plan.json" in done.stderr
    assert snapshot(case.output, below_run=True) == before
    plan.write_bytes(whole)
    assert command(*RUN).returncode == 0
    case.require_equal()


def test_row_49_a_part_deleted_before_the_end_is_computed_again(case: Any, command: Command) -> None:
    assert command(*RUN, faults="D9.after=kill").returncode == -signal.SIGKILL
    case.parts[5].unlink()
    done = command(*RUN, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_run"] == 100
    case.require_equal()


def test_row_19_a_dead_head_of_a_local_ray_is_replaced_and_the_run_goes_on(
    case: Any, start: Start, await_that: Callable[..., None], descendants: Callable[[int], list[int]], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    process = start("-m", "runner", "run", "job.yaml", faults="W3.run=sleep:0.5", variables={"HOME": str(home)})
    await_that(lambda: len(case.parts) >= 2, "two parts", process)
    (head,) = [pid for pid in descendants(process.pid) if "gcs_server" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(head, signal.SIGKILL)
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, out + errors
    assert "the local Ray is gone: its gcs_server ended (signal 9); another one is being started" in errors
    headers = case.require_equal()
    assert {header["number"] for header in headers.values()} == {1}, "no try is used up"
    assert not (home / ".ray").exists(), "no token is left that later clusters would demand"


@pytest.mark.faults
def test_row_19_a_dead_head_of_a_cluster_ends_the_driver_and_the_job_continues_on_a_new_ray(
    case: Any, start: Start, command: Command, await_that: Callable[..., None], descendants: Callable[[int], list[int]]
) -> None:
    # The nodes wait 5 s for their head; the driver, which Ray would end after a minute, 30 s.
    slow = {"RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": "W3.run=sleep:3"}
    quick = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5", "RAY_AUTH_MODE": "disabled"}
    with cluster_process(os.environ | slow | quick, num_cpus=2, include_dashboard=False) as cluster:
        process = start("-m", "runner", "run", "job.yaml", "--address", cluster.address)
        await_that(lambda: len(case.parts) >= 2, "two parts", process)
        below = [pid for pid in descendants(os.getpid()) if pid not in descendants(process.pid)]
        (head,) = [pid for pid in below if "gcs_server" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(head, signal.SIGKILL)
        _, errors = process.communicate(timeout=100)
    assert process.returncode != 0, errors
    assert not (case.output / "_SUCCESS").exists()
    before = snapshot(case.output)
    done = command("run", "job.yaml")
    assert done.returncode == 0, done.stderr
    assert before.items() <= snapshot(case.output).items()
    case.require_equal()
