"""Whether a worker fits, where, and what a run is said to wait for: arithmetic, without Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.schedule.event import ClusterSeen
from jobs.section.workers import Workers
from runner.cluster.capacity import Backlog, fits, needs, outlook, roomiest, shortage

NEED = {"CPU": 2.0, "GPU": 0.5}
SMALL, LARGE, BARE = {"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}


def test_a_worker_needs_only_amounts_above_zero() -> None:
    assert needs(Workers()) == {"CPU": 1}
    workers = Workers(cpus=2, gpus=0.5, memory=2**30, resources={"tpu": 4})
    assert needs(workers) == {"CPU": 2, "GPU": 0.5, "memory": 2**30, "tpu": 4}


@pytest.mark.parametrize(
    ("node", "workers"), [(SMALL, 1), (LARGE, 4), (BARE, 0), ({"CPU": 5.9, "GPU": 1.6}, 2), ({}, 0)]
)
def test_a_node_holds_whole_workers_and_its_scarcest_resource_counts(node: dict[str, float], workers: int) -> None:
    assert fits(NEED, node) == workers


def test_a_shortage_names_the_resource_and_the_largest_node() -> None:
    assert shortage({"GPU": 4.0}, [SMALL, LARGE]) == (
        "a worker asks for 4 GPU, and the largest node has 2; change `workers` in the job"
    )
    assert "asks for 1 tpu, and the largest node has 0" in shortage({"tpu": 1.0}, [])


def test_a_shortage_of_no_single_resource_names_all_of_them() -> None:
    assert shortage({"CPU": 32.0, "GPU": 1.0}, [LARGE, BARE]) == (
        "a worker asks for 32 CPU, 1 GPU, and no single node has all of it; change `workers` in the job"
    )


def test_the_roomiest_node_is_the_one_that_holds_most_beside_what_lives_there() -> None:
    nodes = {"small": SMALL, "large": LARGE, "bare": BARE}
    assert roomiest(NEED, nodes, [], avoid=()) == "large"
    assert roomiest(NEED, nodes, [], avoid=("large",)) == "small"
    assert roomiest(NEED, nodes, ["large"] * 4, avoid=()) == "small"
    assert roomiest(NEED, nodes, ["large"] * 4 + ["small"], avoid=()) is None
    assert roomiest(NEED, {}, [], avoid=()) is None


def test_an_outlook_without_waiting_has_nothing_to_say() -> None:
    assert outlook(1.0, NEED, [LARGE], Backlog(), starting=2) == ClusterSeen(1.0)


def test_requests_of_our_shape_are_ours_up_to_the_workers_that_start() -> None:
    backlog = Backlog(waits=[(dict(NEED), 3), ({"CPU": 1.0}, 4)], launched=2)
    seen = outlook(1.0, NEED, [LARGE], backlog, starting=2)
    assert seen == ClusterSeen(1.0, others=5, story="no room yet for 2 x (2 CPU, 0.5 GPU); 2 nodes are being started")
    assert outlook(1.0, NEED, [LARGE], backlog, starting=0) == ClusterSeen(1.0, others=7)


def test_a_worker_that_no_node_can_hold_is_never_placed_unless_an_autoscaler_brings_one() -> None:
    never = outlook(1.0, NEED, [BARE], Backlog(), starting=1)
    assert never.never == "a worker asks for 0.5 GPU, and the largest node has 0; change `workers` in the job"
    assert outlook(1.0, NEED, [BARE], Backlog(kinds=[LARGE]), starting=1) == ClusterSeen(1.0)


def test_without_any_node_that_is_what_is_said_with_the_reason_of_the_last() -> None:
    seen = outlook(1.0, NEED, [], Backlog(), starting=1, death="health check failed")
    assert seen.never == "no node is alive (health check failed); start Ray, and run the same again to continue"
    assert not seen.alive
    assert outlook(1.0, NEED, [], Backlog(kinds=[LARGE]), starting=1).never == "", "an autoscaler brings one"


def test_the_arithmetic_does_without_ray() -> None:
    script = "import sys, runner.cluster.capacity; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], check=True)
