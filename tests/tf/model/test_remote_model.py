"""Whole jobs with a model on a store: found, copied, checked, scored; and stopped when it changes."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from connectors.models.cache import CacheSettings, ModelCache
from jobs.errors import ModelError
from jobs.job import Job
from runner.driver import launch as launching
from runner.model import planned
from runner.model.planned import ModelWatch
from runner.preflight.preflight import preflight


@pytest.fixture
def model_url(half_plus_two: Path) -> Iterator[str]:
    """A base folder on memory:// with the versions 3 (nothing of use) and 12 (half plus two)."""
    url, store = f"memory://{uuid.uuid4().hex}/half", fsspec.filesystem("memory")
    for path in half_plus_two.rglob("*"):
        if path.is_file():
            store.pipe_file(f"{url}/12/{path.relative_to(half_plus_two).as_posix()}", path.read_bytes())
    store.pipe_file(f"{url}/3/saved_model.pb", b"old")
    yield url
    store.rm(url, recursive=True)


@pytest.fixture
def make_job(model_url: str, write_numbers: Callable[..., Path], tmp_path: Path) -> Callable[..., Job]:
    write_numbers(tmp_path / "in")

    def make(signature: str = "serving_default", **limits: Any) -> Job:
        return Job.model_validate(
            {
                "model": {"url": model_url, "signature": signature},
                "input": {"url": str(tmp_path / "in")},
                "columns": {"keep": ["id"]},
                "output": {"url": str(tmp_path / "out")},
                "limits": limits,
            }
        )

    return make


def test_a_job_scores_with_a_remote_model_and_holds_its_copy_meanwhile(
    make_job: Callable[..., Job],
    model_url: str,
    tmp_path: Path,
    require_half_plus_two: Callable[[Path, int], None],
) -> None:
    settings = CacheSettings(str(tmp_path / "cache"))
    held: list[bool] = []
    result = launching.launch(
        make_job(),
        launching.RunOptions(in_process=True, cache=settings),
        watch=lambda at: held.append(at.workers_ready > 0 and ModelCache(settings).entries()[0].in_use),
    )
    assert result.rows == 2000
    require_half_plus_two(tmp_path / "out", 2000)
    assert any(held)
    (entry,) = ModelCache(settings).entries()
    assert (entry.url, entry.in_use) == (f"{model_url}/12", False)


def test_a_newer_version_does_not_move_a_job_and_another_one_is_refused_on_its_output(
    make_job: Callable[..., Job], model_url: str, tmp_path: Path
) -> None:
    settings = CacheSettings(str(tmp_path / "cache"))
    spec = preflight(make_job(), settings).spec(make_job().output)
    store = fsspec.filesystem("memory")
    store.pipe_file(f"{model_url}/13/saved_model.pb", b"new")
    assert spec.model.remote is not None
    assert spec.model.remote.url == f"{model_url}/12"
    with pytest.raises(ModelError, match=r"cannot read 'saved_model\.pb'"):  # it is the latest, and no model
        preflight(make_job(), settings)


def test_a_model_that_changes_while_the_job_runs_stops_it(
    make_job: Callable[..., Job], model_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planned, "ModelWatch", functools.partial(ModelWatch, every_s=0.02))

    def change(at: Any) -> None:
        if at.workers_ready:
            fsspec.filesystem("memory").pipe_file(f"{model_url}/12/assets/new", b"new")

    with pytest.raises(ModelError, match="changed since the plan was made"):
        launching.launch(
            make_job("slow", batch_rows=20, shard_rows=100),
            launching.RunOptions(in_process=True, cache=CacheSettings(str(tmp_path / "cache"))),
            watch=change,
        )
    assert not (tmp_path / "out" / "_SUCCESS").exists()
