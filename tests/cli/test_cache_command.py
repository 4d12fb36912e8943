"""`runner cache`, as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from connectors.models.cache import CacheSettings, ModelCache
from connectors.models.remote import list_model

Completed = subprocess.CompletedProcess[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache with one model of 5 bytes."""
    store = fsspec.filesystem("memory")
    store.pipe_file("memory://cli/churn/7/saved_model.pb", b"graph")
    ModelCache(CacheSettings(str(tmp_path / "cache"))).hold(list_model("memory://cli/churn/7", {})[0]).close()
    store.rm("memory://cli", recursive=True)
    return tmp_path / "cache"


def test_the_cache_is_listed_and_cleaned(command: Callable[..., Completed], folder: Path) -> None:
    def cache(*arguments: str) -> str:
        done = command("cache", *arguments, RUNNER_MODEL_CACHE=str(folder))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "memory://cli/churn/7" in cache("list")
    (told,) = json.loads(cache("list", "--json"))["models"]
    assert (told["url"], told["bytes"], told["in_use"]) == ("memory://cli/churn/7", 5, False)
    assert "removed 0 models" in cache("clean", "--older-than", "1d")
    assert "removed 1 model (5 B)" in cache("clean")
    assert json.loads(cache("list", "--json"))["models"] == []


def test_an_age_without_a_unit_is_refused(command: Callable[..., Completed]) -> None:
    done = command("cache", "clean", "--older-than", "7")
    assert done.returncode == 2
    assert "expected a number and a unit" in done.stderr


def test_a_limit_that_is_no_size_is_refused(command: Callable[..., Completed]) -> None:
    done = command("cache", "list", RUNNER_MODEL_CACHE_LIMIT="plenty")
    assert done.returncode == 2
    assert "RUNNER_MODEL_CACHE_LIMIT: 'plenty' is no size" in done.stderr
