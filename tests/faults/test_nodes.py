"""Nodes that die in part, sleep or are taken away, and a network that loses and delays: rows 15, 16, 18, 20 to 22, 50.

Slow: `make faults` runs them, `make test` does not. The driver is the command, in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

Start = Callable[..., subprocess.Popen[str]]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
SLOW = "W3.run=sleep:0.5"
# Ray calls a node dead that was silent for about 3 s, instead of a minute.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


class Nodes:
    """A head without CPUs and two nodes for a worker each, which sleep half a second before each model call."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = NODE | {"num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers = [self.cluster.add_node(**NODE) for _ in range(2)]
        self.cluster.wait_for_nodes()

    def raylet(self, node: Any) -> int:
        return int(node.all_processes["raylet"][0].process.pid)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**IMPATIENT, "RUNNER_TEST_BUILD": "1", "RUNNER_FAILPOINTS": SLOW}.items():
            patch.setenv(name, value)
        there = Nodes()
        yield there
        there.cluster.shutdown()


@pytest.fixture
def drive(case: Any, start: Start, nodes: Nodes, await_that: Callable[..., None]) -> subprocess.Popen[str]:
    """The job of the case on `nodes`, once two parts are there."""
    process = start("-m", "runner", "run", "job.yaml", "--json", "--address", nodes.cluster.address)
    await_that(lambda: len(case.parts) >= 2, "two parts", process)
    return process


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, out + errors
    report: dict[str, Any] = json.loads(out[out.index("{\n") :])  # Ray prints notices of its own before it
    return report


def test_row_15_a_node_whose_raylet_is_killed_counts_as_dead_and_the_shards_move(
    case: Any, nodes: Nodes, drive: subprocess.Popen[str]
) -> None:
    os.kill(nodes.raylet(nodes.workers[0]), signal.SIGKILL)
    assert finished(drive)["retries"] >= 1
    case.require_equal()


def test_row_16_a_silent_node_is_given_up_and_harmless_when_it_wakes(
    case: Any, nodes: Nodes, drive: subprocess.Popen[str], descendants: Callable[[int], list[int]]
) -> None:
    raylet = nodes.raylet(nodes.workers[0])
    asleep = [raylet, *descendants(raylet)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert finished(drive)["retries"] >= 1
        case.require_equal()
    finally:
        for pid in asleep:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    time.sleep(3)  # what it would do, it does now
    case.require_equal()


@pytest.mark.parametrize("seconds", [60, 1], ids=["time-to-finish", "no-time"])
def test_row_18_a_node_that_is_taken_away_after_a_notice_costs_no_row(
    seconds: int, case: Any, nodes: Nodes, drive: subprocess.Popen[str]
) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    node = nodes.workers[0]
    accepted, why = GcsClient(address=nodes.cluster.address).drain_node(
        node.node_id,
        DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "this test takes the node away",
        int((time.time() + seconds) * 1000),
    )
    assert accepted, why
    if seconds == 1:
        time.sleep(1)
        nodes.cluster.remove_node(node, allow_graceful=False)
    assert finished(drive)["rows"] == 800
    case.require_equal()


def below(pid: int, name: str, descendants: Callable[[int], list[int]]) -> int:
    """The first process below `pid` whose command line has `name` in it."""
    for child in descendants(pid):
        with suppress(OSError):  # it ended meanwhile
            if name in Path(f"/proc/{child}/cmdline").read_bytes().decode():
                return child
    raise LookupError(f"no process {name}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DashboardAgent", "dashboard_agent failed and raylet fate-shares with it"),
        ("RuntimeEnvAgent", "runtime_env_agent failed and raylet fate-shares with it"),
        ("raylet/raylet", "its raylet ended (signal 9)"),
    ],
    ids=["dashboard-agent", "runtime-env-agent", "raylet"],
)
def test_a_local_ray_that_is_gone_is_replaced_once_and_no_try_is_used_up(
    name: str,
    reason: str,
    case: Any,
    start: Start,
    await_that: Callable[..., None],
    descendants: Callable[[int], list[int]],
) -> None:
    process = start("-m", "runner", "run", "job.yaml", "--json", faults=SLOW)
    await_that(lambda: len(case.parts) >= 2, "two parts", process)
    os.kill(below(process.pid, name, descendants), signal.SIGKILL)
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, out + errors
    assert f"warning: the local Ray is gone: {reason}; another one is being started" in errors
    assert json.loads(out)["rows"] == 800, "Ray prints nothing where the answer goes"
    headers = case.require_equal()
    assert {header["number"] for header in headers.values()} == {1}


def test_a_local_ray_that_is_gone_twice_ends_the_run_with_the_command_that_continues(
    case: Any, start: Start, await_that: Callable[..., None], descendants: Callable[[int], list[int]]
) -> None:
    process = start("-m", "runner", "run", "job.yaml", faults=SLOW)
    await_that(lambda: len(case.parts) >= 2, "two parts", process)
    os.kill(below(process.pid, "DashboardAgent", descendants), signal.SIGKILL)
    parts = len(case.parts)
    await_that(lambda: len(case.parts) > parts, "one more part", process)
    began = time.monotonic()
    os.kill(below(process.pid, "DashboardAgent", descendants), signal.SIGKILL)
    out, errors = process.communicate(timeout=100)
    assert time.monotonic() - began < 8
    assert process.returncode == 69, out + errors
    assert (
        "the local Ray is gone: dashboard_agent failed and raylet fate-shares with it, the second of this run" in errors
    )
    assert "; run the same again to continue, or work without Ray: `--in-process`" in errors
    assert "to continue: runner run job.yaml" in errors


def chaos(requests: int, answers: int, in_flight: int, method: str = "*") -> dict[str, str]:
    """Percentages of calls that never arrive, of answers that never come, and of both."""
    shares = {"req_failure_prob": requests, "resp_failure_prob": answers, "in_flight_failure_prob": in_flight}
    return {"RAY_testing_rpc_failure": json.dumps({method: {"num_failures": -1, **shares}})}


@pytest.mark.parametrize(
    "trouble",
    [
        chaos(25, 0, 0, "CoreWorkerService.grpc_client.PushTask"),
        chaos(0, 50, 0, "CoreWorkerService.grpc_client.PushTask"),
        chaos(10, 10, 10, "NodeManagerService.grpc_client.RequestWorkerLease"),
        {"RAY_testing_asio_delay_us": "*=0:500000"},
    ],
    ids=["row-20-requests-lost", "row-22-answers-lost", "row-20-leases-lost", "row-21-delays"],
)
def test_a_network_that_loses_and_delays_makes_no_difference_to_the_rows(
    trouble: dict[str, str], case: Any, start: Start
) -> None:
    case.write(limits={"shard_rows": 100, "batch_rows": 50, "max_attempts": 20})
    finished(start("-m", "runner", "run", "job.yaml", "--json", variables=trouble))
    case.require_equal()


def test_row_50_a_call_that_is_very_slow_is_overtaken_by_a_backup(case: Any, start: Start) -> None:
    once = case.once("slow")
    process = start("-m", "runner", "run", "job.yaml", "--json", faults=f"W3.run=sleep:150#{once}")
    finished(process)
    headers = case.require_equal()
    assert once.exists()
    assert sum(header["number"] > 1 for header in headers.values()) == 1, "the backup's part is there"
