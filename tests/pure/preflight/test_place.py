"""Nothing that a job writes lies in what it reads: each is refused by its names, before anything is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from connectors.formats.parquet import ParquetSource
from connectors.models.cache import CacheSettings
from connectors.store import scratch
from jobs.errors import JobError, OutputError
from jobs.job import Job
from runner.preflight.input.listing import refuse_own_output
from runner.preflight.place import refuse_mixed_places, require_writable
from runner.preflight.preflight import examine

ELSEWHERE = {"endpoint_url": "http://127.0.0.1:1"}


def job_of(model: str, output: str, input: str, **options: Any) -> Job:
    document = {
        "model": {"url": model, **options},
        "input": {"url": [input]},
        "output": {"url": output},
        "columns": {"inputs": {"x": "x"}},
    }
    return Job.model_validate(document)


def look(model: str, output: str, input: str = "/in", cache: str = "/cache", **options: Any) -> None:
    refuse_mixed_places(job_of(model, output, input, **options), CacheSettings(folder=cache))


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("/m", "/m"),
        ("/m/", "/m/out"),
        ("/m", "/x/../m/1/out/"),
        ("file:///m", "/m/out"),
        ("m", "m/out"),
        ("s3://b/m/", "s3://b/m/out"),
        ("s3a://b/m", "s3://b/m/out/"),
        ("gs://b/m", "gcs://b/m/out"),
        ("memory://m", "memory://m/out"),
    ],
)
def test_an_output_in_the_model_is_refused(model: str, output: str) -> None:
    with pytest.raises(OutputError, match=r"lies in the model .* choose an output folder beside the model"):
        look(model, output)


@pytest.mark.parametrize(
    ("model", "output", "options"),
    [
        ("/m", "/m2/out", {}),
        ("/m/1", "/m", {}),
        ("s3://b/m", "s3://b/model", {}),
        ("s3://b/m", "gs://b/m", {}),
        ("s3://b/m", "s3://b/m/out", {"options": ELSEWHERE}),
        ("/b/m", "s3://b/m/out", {}),
    ],
)
def test_an_output_beside_the_model_is_not(model: str, output: str, options: Any) -> None:
    look(model, output, **options)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "current").symlink_to("m")
    for model, output in (("current", "m/out"), ("m", "current/out")):
        with pytest.raises(OutputError, match="lies in the model"):
            look(str(tmp_path / model), str(tmp_path / output))


@pytest.mark.parametrize(
    ("places", "what"),
    [
        ({"input": "/in", "cache": "/in/cache"}, "input '/in'"),
        ({"input": "/in/*/*.parquet", "cache": "/in/cache"}, r"input '/in/\*/\*.parquet'"),
        ({"output": "/out", "cache": "/out/cache"}, "output '/out'"),
        ({"output": "/out", "cache": "/out"}, "output '/out'"),
    ],
)
def test_copies_of_a_remote_model_in_input_or_output_are_refused(places: dict[str, str], what: str) -> None:
    with pytest.raises(JobError, match=f"copy of the model in .* lies in the {what}.* set RUNNER_MODEL_CACHE"):
        look(**{"model": "s3://b/m", "output": "/elsewhere", **places})
    look(**{"model": "/m", "output": "/elsewhere", **places})  # nothing is copied


@pytest.mark.parametrize(
    "places",
    [
        {"input": "/in/*.parquet", "cache": "/in/cache"},
        {"input": "/home/me", "cache": "/home/me/.cache/models"},
        {"output": "/out", "cache": "/out2/cache"},
    ],
)
def test_copies_that_nobody_reads_as_rows_may_lie_there(places: dict[str, str]) -> None:
    look(**{"model": "s3://b/m", "output": "/elsewhere", **places})


def test_spools_in_the_model_are_refused_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.tempfile, "tempdir", "/m/tmp")
    with pytest.raises(JobError, match=r"lies in the model '/m'.* set TMPDIR"):
        look("/m", "s3://b/out")
    look("/m", "/out")  # they lie in the output


@pytest.mark.parametrize(("given", "output"), [("in", "link/out"), ("link", "in/out"), ("link/*/*", "in/out")])
def test_an_output_in_the_input_is_refused_behind_a_link_too(tmp_path: Path, given: str, output: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(OutputError, match="would read its own output"):
        refuse_own_output(job_of("/m", str(tmp_path / output), str(tmp_path / given)), ParquetSource())


def test_a_folder_that_may_not_be_written_is_refused_by_the_nearest_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root all may be written: what the system says is replaced."""
    asked: list[Path] = []
    monkeypatch.setattr(os, "access", lambda folder, how: asked.append(folder) or how != os.W_OK | os.X_OK)
    with pytest.raises(OutputError, match=rf"this user may not write to folder '{tmp_path}'"):
        require_writable(str(tmp_path / "ro" / "x"))
    assert asked == [tmp_path]
    require_writable("s3://bucket/x")
    assert asked == [tmp_path], "a store tells only when it is written to"


@pytest.mark.parametrize("output", ["zip://a.zip", "github://me:repo@main/out", "http://127.0.0.1:1/out"])
def test_an_output_that_is_only_read_is_refused_before_anybody_is_asked(output: str) -> None:
    with pytest.raises(OutputError, match=f"cannot write to '{output}': there is no writing over"):
        examine(job_of("/no/model", output, "/in"))
