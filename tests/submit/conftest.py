"""A real cluster with Ray's dashboard and a token, an S3 server, and secrets that only the cluster's nodes know."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.fs as pa_fs
import pytest
import yaml
from canaries import CANARIES
from cluster_process import ClusterProcess, cluster_process
from store_servers import free_port, moto_server, new_bucket

Completed = subprocess.CompletedProcess[str]


@dataclass
class There:
    """A head without CPUs and a node of two; an S3 endpoint; what to call them with."""

    cluster: ClusterProcess
    metrics_port: int  # of the head, where drivers live
    s3: str
    environment: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with moto_server(sys.executable) as endpoint:
        new_bucket(endpoint, "lake")
        yield endpoint


@pytest.fixture(scope="session")
def there(s3: str) -> Iterator[There]:
    secrets = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": CANARIES["TOKEN"],
        "LAKE_KEY_ID": CANARIES["KEY_ID"],
        "LAKE_ACCESS": CANARIES["ACCESS"],
    }
    # The driver is started as `python`, which must be this one.
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    often = {"RAY_metrics_report_interval_ms": "1000"}
    port = free_port()
    head = {"num_cpus": 0, "dashboard_port": free_port(), "include_dashboard": True, "metrics_export_port": port}
    with cluster_process(os.environ | secrets | path | often, **head) as cluster:
        cluster.add(num_cpus=2)
        yield There(cluster, port, s3, secrets)


Command = Callable[..., Completed]


@pytest.fixture
def command(tmp_path: Path, there: There) -> Command:
    """command("submit", "job.yaml", ...): the command of somebody with the token, in a clean folder."""

    def call(*arguments: str, token: bool = True, **environment: str) -> Completed:
        known = there.environment if token else {}
        return subprocess.run(
            [sys.executable, "-m", "runner", *arguments],
            cwd=tmp_path,
            env=os.environ
            | {"RAY_API_SERVER_ADDRESS": there.cluster.dashboard, "RAY_ADDRESS": "10.255.0.1:1"}
            | known
            | environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return call


@pytest.fixture
def job_file(
    tmp_path: Path, there: There, half_plus_two: Path, write_numbers: Callable[..., Path]
) -> Callable[..., Path]:
    """job_file(signature="slow", ...): job.yaml on a bucket, with references for its secrets."""

    def write(signature: str = "serving_default", rows: int = 1000, **sections: Any) -> Path:
        folder = f"lake/{tmp_path.name}"
        files = pa_fs.S3FileSystem(
            endpoint_override=there.s3, access_key=CANARIES["KEY_ID"], secret_key=CANARIES["ACCESS"], region="us-east-1"
        )
        for path in write_numbers(tmp_path / "in", files=2, rows=rows).iterdir():
            with files.open_output_stream(f"{folder}/in/{path.name}") as stream:
                stream.write(path.read_bytes())
        options = {"key": "env:LAKE_KEY_ID", "secret": "env:LAKE_ACCESS", "endpoint_url": there.s3}
        job = {
            "model": {"url": str(half_plus_two), "signature": signature},
            "input": {"url": f"s3://{folder}/in/*.parquet", "options": options},
            "columns": {"keep": ["id"]},
            "output": {"url": f"s3://{folder}/out", "options": options},
            "workers": {"count": 2},
            "limits": {"shard_rows": 500},
        }
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(job | sections))
        return path

    return write


@pytest.fixture
def await_that() -> Callable[[Callable[[], bool], str], None]:
    """await_that(condition, what): returns when it holds; fails after a minute."""

    def wait(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"did not happen within a minute: {what}"
            time.sleep(0.2)

    return wait
