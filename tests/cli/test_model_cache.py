"""RUNNER_MODEL_CACHE is where each command copies a remote model to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import yaml

from jobs.errors import JobError, RunnerError
from runner.cli.jobs import submit
from runner.cli.model import call, scan


@pytest.fixture
def remote(half_plus_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model in a store, and an empty cache in `tmp_path`."""
    fsspec.filesystem("memory").put(str(half_plus_two), "/cache-model", recursive=True)
    monkeypatch.setenv("RUNNER_MODEL_CACHE", str(tmp_path / "cache"))
    return "memory://cache-model"


def _copied(tmp_path: Path) -> bool:
    return any((tmp_path / "cache").rglob("saved_model.pb"))


def test_scan_copies_the_model_to_the_folder_of_the_environment(remote: str, tmp_path: Path) -> None:
    scan(remote)
    assert _copied(tmp_path)


def test_call_copies_the_model_to_the_folder_of_the_environment(remote: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no input 'q'"):
        call(remote, exprs=["q=1"])
    assert _copied(tmp_path)


def test_submit_copies_the_model_to_the_folder_of_the_environment(
    remote: str, tmp_path: Path, job_file: Callable[..., Path]
) -> None:
    path = job_file()
    job = yaml.safe_load(path.read_text())
    job["model"] = {"url": remote}
    job["input"] = {"url": str(tmp_path / "in" / "*.parquet")}
    job["output"] = {"url": str(tmp_path / "out")}
    path.write_text(yaml.safe_dump(job))
    with pytest.raises(RunnerError):
        submit(path, "http://127.0.0.1:1")  # no cluster there; the model is read before
    assert _copied(tmp_path)


@pytest.mark.parametrize("name", ["scan", "call"])
def test_a_limit_that_is_no_size_is_refused(name: str, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_MODEL_CACHE_LIMIT", "plenty")
    with pytest.raises(JobError, match="RUNNER_MODEL_CACHE_LIMIT"):
        {"scan": scan, "call": call}[name](remote)
