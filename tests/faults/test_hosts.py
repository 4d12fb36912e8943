"""A cluster of hosts that share nothing but a network and an S3 server: submitted to, half taken away, added to.

Slow: `-m faults` runs it. The model is read from a path that all hosts have.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from canaries import CANARIES
from hosts import NETWORK, Lan, possible

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

DRAIN = Path(__file__).parents[2] / "deploy" / "drain-node.sh"
HEAD = f"{NETWORK}.11"
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    if why := possible():
        pytest.skip(why)
    environment = os.environ | IMPATIENT
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": CANARIES["TOKEN"], "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"LAKE_KEY_ID": CANARIES["KEY_ID"], "LAKE_ACCESS": CANARIES["ACCESS"]}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    there = Lan(tmp_path, environment)
    try:
        yield there
    finally:
        there.close()


def until(condition: Callable[[], bool], what: str, logs: Path) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, (what, [log.read_text()[-3000:] for log in sorted(logs.glob("*.log"))])
        time.sleep(0.5)


# Runs on the switch: the buckets' content is made where the buckets are.
PUT = """
import sys, pyarrow.fs as fs
from pathlib import Path
files = fs.S3FileSystem(endpoint_override=sys.argv[1], access_key="a", secret_key="b", region="us-east-1",
                        allow_bucket_creation=True)
files.create_dir("lake")
for path in Path(sys.argv[2]).iterdir():
    with files.open_output_stream(f"lake/in/{path.name}") as stream:
        stream.write(path.read_bytes())
"""


def test_a_job_outlives_a_host_that_is_switched_off_uses_one_that_is_added_and_leaves_one_that_drains(
    lan: Lan, tmp_path: Path, half_plus_two: Path, write_numbers: Callable[..., Path]
) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = lan.command(sys.executable, *arguments)
        return subprocess.run(
            command, env=lan._environment, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False
        )

    def worker(number: int) -> Any:
        ip = f"{NETWORK}.{number}"
        return lan.host(
            number, "ray", "start", f"--address={HEAD}:6379", f"--node-ip-address={ip}", *common, "--num-cpus=1"
        )

    s3 = f"http://{lan.address}:5000"
    lan.start(lan.command(sys.executable, "-m", "moto.server", "-H", lan.address, "-p", "5000"))
    common = ["--object-store-memory=83886080", "--block"]
    lan.host(
        11, "ray", "start", "--head", f"--node-ip-address={HEAD}", "--dashboard-host=0.0.0.0", *common, "--num-cpus=0"
    )
    until(
        lambda: call("-c", PUT, s3, str(write_numbers(tmp_path / "in"))).returncode == 0, "the lake is filled", tmp_path
    )
    address = f"http://{HEAD}:8265"
    until(lambda: call("-m", "runner", "jobs", "list", "--address", address).returncode == 0, "a cluster", tmp_path)
    first, second = worker(12), worker(13)

    options = {"key": "env:LAKE_KEY_ID", "secret": "env:LAKE_ACCESS", "endpoint_url": s3}
    job = {
        "model": {"url": str(half_plus_two)},
        "input": {"url": "s3://lake/in/*.parquet", "options": options},
        "columns": {"keep": ["id"]},
        "output": {"url": "s3://lake/out", "options": options},
        "workers": {"min": 1, "max": 2},
        "limits": {"shard_rows": 50, "batch_rows": 25},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    slow = ["--env", "RUNNER_TEST_BUILD=1", "--env", "RUNNER_FAILPOINTS=W3.run=sleep:0.7"]  # 80 calls of the model
    done = call("-m", "runner", "submit", "job.yaml", "--address", address, "--json", *slow)
    assert done.returncode == 0, done.stderr
    id = json.loads(done.stdout)["id"]

    def written() -> dict[str, Any]:
        told = json.loads(call("-m", "runner", "jobs", "status", id, "--address", address, "--json").stdout)
        found: dict[str, Any] = told["written"]
        return found

    until(lambda: written()["shards_done"] >= 3, "three shards", tmp_path)
    lan.power_off(second)
    third = worker(14)
    until(lambda: written()["retries"] >= 1, "the loss is noticed", tmp_path)
    before = written()["retries"]
    drained = lan.on(first, "env", f"RAY_ADDRESS={HEAD}:6379", str(DRAIN), "30")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    lan.power_off(first)
    end = call("-m", "runner", "jobs", "logs", id, "--address", address, "--follow")
    assert end.returncode == 0, (
        end.stdout + end.stderr + str([log.read_text()[-2000:] for log in tmp_path.glob("*.log")])
    )
    assert "complete and proven, 2,000 rows in 20 parts" in end.stdout
    print(end.stdout)
    assert written()["retries"] == before, "what drains uses up no try"
    assert third.poll() is None
