"""A pool that follows the cluster: a node joins in the middle, another is killed; and a wish no node can fulfil."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.output.status import read_status
from connectors.output.verification import verify
from jobs.load import load_job

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def as_the_cluster(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAKE_KEY_ID", "LAKE_ACCESS"):
        monkeypatch.setenv(name, there.environment[name])


@pytest.mark.faults
def test_a_node_that_joins_is_used_and_one_that_is_killed_is_replaced(
    command: Command,
    job_file: Callable[..., Path],
    there: Any,
    await_that: Callable[..., None],
    as_the_cluster: None,
) -> None:
    file = job_file(limits={"shard_rows": 50, "batch_rows": 25}, workers={"min": 1, "max": 4})
    output = load_job(file.read_text(), str(file)).output
    slow = ["--env", "RUNNER_TEST_BUILD=1", "--env", "RUNNER_FAILPOINTS=W3.run=sleep:0.4"]  # 80 calls of the model
    id = json.loads(command("submit", "job.yaml", "--json", *slow).stdout)["id"]
    await_that(lambda: read_status(output).shards_done >= 2, "two shards are done")
    log = command("jobs", "logs", id).stdout
    joined = there.cluster.add(num_cpus=2)
    on = lambda: nodes(there, output)  # noqa: E731
    await_that(lambda: len(on()) == 2, "workers live on two nodes")
    there.cluster.remove(joined)
    done = command("jobs", "logs", id, "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"no room yet for 2 x \(1 CPU\)", log + done.stdout), log + done.stdout
    proof = verify(output, deep=True)
    assert proof.holds, proof.problems
    assert proof.rows_found == 2000


def nodes(there: Any, output: Any) -> set[str]:
    """Where the workers live, as the driver last wrote it."""
    from connectors.output.layout import Layout
    from connectors.store.store import Store

    store = Store(output.url, output.options)
    names = Layout(read_status(output).plan_id)
    document = json.loads(store.read(names.epoch(1)) or b"{}")
    return {str(facts["node_id"]) for facts in document.get("workers", {}).values()}


def test_a_cluster_that_is_run_on_from_outside_gets_the_token_it_demands_and_says_in_seconds_what_no_node_has(
    command: Command, job_file: Callable[..., Path], there: Any, tmp_path: Path
) -> None:
    job_file()
    address = there.cluster.address
    lake = {name: value for name, value in there.environment.items() if name.startswith("LAKE_")}
    run = ("run", "job.yaml", "--address", address, "--set", "workers.gpus=4")
    refused = command(*run, token=False, HOME=str(tmp_path), **lake)
    assert refused.returncode == 69, refused.stdout + refused.stderr
    assert refused.stderr.startswith(f"error: Ray at '{address}' demands a token, and none is at hand")
    token = there.environment["RAY_AUTH_TOKEN"]
    done = command(*run, token=False, RAY_ADDRESS=address, RAY_AUTH_TOKEN=token, **lake)
    assert done.returncode == 69, done.stdout + done.stderr
    assert "a worker asks for 4 GPU, and the largest node has 0" in done.stderr
