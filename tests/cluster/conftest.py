"""One local Ray for all tests of this folder, with more CPUs and GPUs declared than the machine has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.job import Job
from runner.cluster.quiet import ray  # sets what Ray reads from its environment before it is started


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def every_resource_comes_back(local_ray: None) -> Iterator[None]:
    """After each test all CPUs and GPUs are free again: what a run took, it gave back."""
    yield
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 8 or ray.available_resources().get("GPU") != 2:
        assert time.monotonic() < deadline, f"not given back: {ray.available_resources()}"
        time.sleep(0.1)


@pytest.fixture
def numbers_job(half_plus_two: Path) -> Callable[..., Job]:
    """numbers_job(input, output, signature="...", workers={...}, limits={...}): half plus two, ids kept."""

    def job(source: Path, output: Path, signature: str = "serving_default", **sections: object) -> Job:
        return Job.model_validate(
            {
                "model": {"url": str(half_plus_two), "signature": signature},
                "input": {"url": str(source)},
                "columns": {"keep": ["id"]},
                "output": {"url": str(output)},
                **sections,
            }
        )

    return job
