"""Workers and nodes die under a driver that lives: rows 1-3, 5, 11, 14, 17, 23 and 52, on one cluster of several."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exactly_once import snapshot

import runner
from connectors.output.directory import read_status
from jobs.errors import CapacityError, PoisonError, StorageError
from jobs.section.output import Output
from runner.cluster.quiet import ray
from runner.driver import launch

LONE = str(Path(__file__).parents[1] / "support" / "lone_attempt.py")
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
SHARDS, CALLS = 8, 16
SLOW = "W3.run=sleep:0.5"  # of each model call: there is time to do something to a worker


class Nodes:
    """A cluster whose workers read their faults from `rules` when they start."""

    def __init__(self, rules: Path) -> None:
        from ray.cluster_utils import Cluster

        self.rules = rules
        head = NODE | {"num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers: list[Any] = []
        self.have(2)

    def have(self, count: int) -> None:
        with pytest.MonkeyPatch.context() as patch:  # what a node inherits, its workers inherit
            patch.setenv("RUNNER_TEST_BUILD", "1")
            patch.setenv("RUNNER_FAILPOINTS", f"@{self.rules}")
            while len(self.workers) < count:
                self.workers.append(self.cluster.add_node(**NODE))
            self.cluster.wait_for_nodes()

    def kill(self) -> None:
        """The youngest node, as a machine dies: nobody is told."""
        self.cluster.remove_node(self.workers.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    if ray.is_initialized():  # the local Ray of tests/cluster: this process can be in one cluster only
        ray.shutdown()
    there = Nodes(tmp_path_factory.mktemp("faults") / "rules")
    ray.init(address=there.cluster.address, log_to_driver=False, logging_level="ERROR")
    yield there
    ray.shutdown()
    there.cluster.shutdown()


@pytest.fixture
def cluster(nodes: Nodes) -> Iterator[Nodes]:
    """The cluster with two nodes of one worker each, and no faults."""
    nodes.rules.write_text("")
    nodes.have(2)
    yield nodes
    nodes.rules.write_text("")


def spools(case: Any) -> set[int]:
    """Shards that are being written, or are written and not published."""
    return {int(spool.name.split("-")[1]) for spool in case.output.glob("_run/*/staging/*/part-*")}


def messages(case: Any) -> str:
    return " | ".join(str(failure["message"]) for failure in read_status(Output(url=str(case.output))).failures)


@pytest.mark.parametrize(
    ("step", "recomputed"),
    # While a shard is published the next one is computed: its two batches may be lost with the process.
    [("W3.fetch", 0), ("W3.encode", 2), ("W4.done", 4), ("W6.after", 2)],
    ids=["row-1-while-fetching", "row-2-while-encoding", "row-3-before-publish", "row-5-after-publish"],
)
def test_a_worker_killed_at_a_step_is_replaced_and_the_output_is_equal(
    step: str, recomputed: int, case: Any, cluster: Nodes
) -> None:
    once, calls = case.once(step), case.folder / "calls"
    cluster.rules.write_text(f"W3.run=note#{calls};{step}=kill#{once}")
    result = runner.run(case.job(), progress=False)
    assert once.exists(), "the fault happened"
    assert result.rows == 800
    assert f"pid {once.read_text()}" in messages(case), "the status names the process that was lost"
    headers = case.require_equal()
    numbers = sorted(header["number"] for header in headers.values())
    if step == "W6.after":
        assert numbers == [1] * SHARDS, "the part of the dead attempt is adopted"
        assert result.retries >= 1
    else:
        assert numbers == [1] * (SHARDS - 1) + [2], "one shard was computed again, by another attempt"
    # The batch that the worker had in hand was called at most once more for each step that was lost.
    assert CALLS <= case.passings("calls") <= CALLS + recomputed


def test_row_11_a_worker_that_sleeps_before_publishing_finds_the_part_of_a_rival_and_adopts_it(
    case: Any, cluster: Nodes, await_that: Callable[..., None], process_state: Callable[[int], str]
) -> None:
    once = case.once("stopped")
    cluster.rules.write_text(f"W4.done=stop#{once}")
    handle = runner.start(case.job(), progress=False)
    try:
        await_that(lambda: once.exists() and process_state(int(once.read_text() or 0)) == "T", "a worker is stopped")
        # The other worker does the rest, but for the second shard that waits in the hand of the stopped one.
        await_that(lambda: len(case.parts) >= SHARDS - 2 and len(spools(case)) == 1, "the other worker goes on")
        (stuck,) = spools(case)
        rival = subprocess.run(
            [sys.executable, LONE, str(case.file), str(stuck)], check=True, capture_output=True, timeout=60
        )
        before = snapshot(case.output)
        assert any(f"part-{stuck:05d}" in name for name in before), rival.stdout
    finally:
        os.kill(int(once.read_text()), signal.SIGCONT)
    assert handle.wait(timeout_s=100).rows == 800
    assert before.items() <= snapshot(case.output).items(), "same inode, same time, same bytes"
    assert case.require_equal()[stuck]["writer"].startswith("lone")


def test_row_23_a_worker_whose_start_fails_once_is_started_again(case: Any, cluster: Nodes) -> None:
    once = case.once("load")
    cluster.rules.write_text(f"W1.load=raise#{once}")
    assert runner.run(case.job(), progress=False).rows == 800
    assert once.exists()
    case.require_equal()


def test_row_23_workers_whose_start_always_fails_end_the_job_with_70_and_the_cause(case: Any, cluster: Nodes) -> None:
    cluster.rules.write_text("W1.load=raise")
    with pytest.raises(StorageError, match=r"no worker could start, \d tries.*'W1.load' was set to fail") as caught:
        runner.run(case.job(), progress=False)
    assert caught.value.exit_code == 70
    assert case.parts == []
    assert not (case.output / "_SUCCESS").exists()


def test_workers_that_abort_at_their_first_calls_end_the_job_with_their_last_words(case: Any, cluster: Nodes) -> None:
    cluster.rules.write_text("W1.trial=abort")
    with pytest.raises(PoisonError, match="a call with a few rows ended the processes of 2 workers") as caught:
        runner.run(case.job(), progress=False)
    assert "was ended by SIGABRT at its first calls and said: a library meets failpoint 'W1.trial'" in str(caught.value)
    assert caught.value.exit_code == 70
    assert "shard" not in str(caught.value), "no shard is blamed"


def test_row_52_an_encoder_that_fails_leaves_no_truncated_part(case: Any, cluster: Nodes) -> None:
    once = case.once("encode")
    cluster.rules.write_text(f"W3.encode=raise@2#{once}")
    seen: dict[str, int] = {}
    handle = runner.start(case.job(), progress=False)
    while handle.running:
        for part in case.parts:
            assert seen.setdefault(part.name, part.stat().st_size) == part.stat().st_size, (
                "a part grew after it was seen"
            )
        time.sleep(0.02)
    assert handle.wait(timeout_s=100).retries >= 1
    assert once.exists()
    case.require_equal()


def test_row_14_a_node_that_dies_takes_its_worker_along_and_the_shards_move(
    case: Any, cluster: Nodes, await_that: Callable[..., None]
) -> None:
    cluster.have(3)
    cluster.rules.write_text(SLOW)
    case.write(workers={"count": 3})
    handle = runner.start(case.job(), progress=False)
    await_that(lambda: len(case.parts) >= 2 and handle.progress is not None, "two parts")
    await_that(lambda: handle.progress.workers_ready == 3, "three workers")
    cluster.kill()
    result = handle.wait(timeout_s=100)
    assert result.rows == 800
    case.require_equal()


def test_row_17_without_any_node_for_workers_the_job_ends_with_69_and_continues_later(
    case: Any, cluster: Nodes, await_that: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.rules.write_text(SLOW)
    with monkeypatch.context() as patch:
        # The wait of 15 minutes, shrunk.
        policy_of = launch.Policy.of
        patch.setattr(launch.Policy, "of", lambda limits: dataclasses.replace(policy_of(limits), capacity_s=4.0))
        handle = runner.start(case.job(), progress=False)
        await_that(lambda: len(case.parts) >= 2, "two parts")
        cluster.kill()
        cluster.kill()
        with pytest.raises(CapacityError) as caught:
            handle.wait(timeout_s=100)
    assert caught.value.exit_code == 69
    assert not (case.output / "_SUCCESS").exists()
    before = snapshot(case.output)
    assert 2 <= len(before) < SHARDS
    cluster.have(2)
    result = runner.run(case.job(), progress=False)
    assert result.rows_run == 800 - 100 * len(before)
    assert before.items() <= snapshot(case.output).items()
    case.require_equal()
