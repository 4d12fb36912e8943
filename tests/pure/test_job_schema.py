"""The JSON Schema of a job file: valid itself, takes every job of the house, and marks each misspelt key."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from jobs.document.parsing import parse
from jobs.document.schema import job_schema
from jobs.errors import JobError
from jobs.load import load_job
from jobs.reference import MEANINGS

ROOT = Path(__file__).parents[2]
EDITOR = Draft202012Validator(job_schema())
SMALL: dict[str, Any] = {"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}}
JOBS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [*(ROOT / "jobs/examples").glob("*.yaml"), *(ROOT / "tests/data").rglob("job*.yaml")]
} | {
    f"{page.relative_to(ROOT)}:{found.start()}": found[1]
    for page in [*ROOT.glob("*.md"), *(ROOT / "jobs").glob("*.md"), *(ROOT / "runner").glob("*.md")]
    for found in re.finditer(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if {"model", "input", "output"} <= yaml.safe_load(found[1]).keys()
}


def _with(section: str, **keys: Any) -> dict[str, Any]:
    return SMALL | {section: SMALL.get(section, {}) | keys}


def _misspelt(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The document with one of its keys misspelt, for each key of the job, its sections and its models."""
    for section, keys in document.items():
        yield section, {f"{name}x" if name == section else name: value for name, value in document.items()}
        for key in keys if isinstance(keys, dict) and section not in ("vars", "models") else ():
            wrong = copy.deepcopy(document)
            wrong[section][f"{key}x"] = wrong[section].pop(key)
            yield f"{section}.{key}", wrong
    for name, model in document.get("models", {}).items():
        for key in model:
            wrong = copy.deepcopy(document)
            wrong["models"][name][f"{key}x"] = wrong["models"][name].pop(key)
            yield f"models.{name}.{key}", wrong


def test_the_schema_is_a_valid_one() -> None:
    Draft202012Validator.check_schema(job_schema())
    keywords = set(re.findall(r'"([a-zA-Z$]+)":', json.dumps(job_schema())))
    assert not keywords & {"ge", "gt", "le", "lt", "Title"}, "a keyword that no reader of schemas knows"


@pytest.mark.parametrize("place", JOBS)
def test_every_job_of_the_examples_and_of_the_pages_is_taken_and_each_misspelt_key_is_not(place: str) -> None:
    document = parse(JOBS[place], place)
    EDITOR.validate(document)
    for key, wrong in _misspelt(document):
        assert not EDITOR.is_valid(wrong), f"{key} is misspelt, and nothing is marked"


def test_there_are_jobs_to_look_at() -> None:
    assert len(JOBS) >= 4


@pytest.mark.parametrize(
    "document",
    [
        _with("columns", inputs={"x": "a", "y": {"pad": {"buckets": [8, 16]}, "column": "b"}}, keep="id", outputs="p"),
        _with("columns", outputs=["p", "q"], inputs={"x": {"column": "a", "pad": "max", "null": {"fill": [0]}}}),
        _with("columns", outputs={"p": None, "q": "named", "r": {"decode": "utf-8", "shape": [2]}}),
        _with("columns", inputs={"x": {"column": "a", "pad": {"to": {"multiple_of": 8}}}}),
        _with("columns", inputs={"x": {"example": {"columns": "f*"}}, "y": {"constant": {"a": [1]}}}),
        _with("model", version="latest", tags="serve", op_libraries="a.so", options={"anon": True, "n": 1}),
        _with("input", url=["a", "b"], examples="infer"),
        _with("input", examples={"age": "int64"}, format="tfrecord"),
        _with("workers", count=2, gpus=0.5, memory="1.5GiB", resources={"tpu": 1}),
        _with("limits", shard_bytes=10**9, max_rejected_rows="0.1%", max_bad_files=3, max_row_bytes="1e3MB"),
        {"vars": {"n": 5, "dt": "2026-11-01", "later": None}} | _with("limits", shard_rows="${n}", reproducible="${n}"),
        {"vars": {"c": "zstd"}} | _with("output", compression="${c}", url="scores/${c}"),
        _with("limits", shard_rows="${env:SHARD_ROWS}", stall_s="${date:%Y}"),
    ],
    ids=range(13),
)
def test_short_forms_sizes_shares_and_variables_are_taken_as_a_job_takes_them(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARD_ROWS", "1000")
    given = {"n": "1", "dt": "x", "later": "y", "c": "zstd"}
    used = {name: value for name, value in given.items() if f"${{{name}}}" in json.dumps(document)}
    document = {**document, "vars": {n: v for n, v in document["vars"].items() if n in used}} if used else document
    load_job(json.dumps(document), "job.json", vars=used)
    EDITOR.validate(document)


@pytest.mark.parametrize(
    "document",
    [
        {name: value for name, value in SMALL.items() if name != "output"},
        _with("limits", shard_rows=0),
        _with("limits", stall_s=10**10),
        _with("limits", shard_bytes="64 megs"),
        _with("limits", max_rejected_rows="half"),
        _with("output", compression="zip"),
        _with("columns", inputs={"x": {"column": "a", "csat": "safe"}}),
        _with("columns", inputs={"x": {"column": "a", "null": {"fil": 0}}}),
        _with("columns", outputs=[]) | {"columns": {"outputs": {}}},
        _with("workers", count="many"),
        _with("input", url=[]),
        _with("input", url={"a": 1}),
    ],
    ids=range(12),
)
def test_what_the_schema_refuses_is_no_job_either(document: dict[str, Any]) -> None:
    assert not EDITOR.is_valid(document)
    with pytest.raises(JobError):
        load_job(json.dumps(document), "job.json")


def test_each_key_says_what_it_means_and_its_default() -> None:
    told = json.dumps(job_schema())
    assert all(json.dumps(meaning) in told for meaning in MEANINGS.values())
    limits = job_schema()["$defs"]["Limits"]["properties"]
    assert (limits["shard_bytes"]["default"], limits["batch_rows"]["default"]) == ("128MiB", "auto")
    assert "default" not in limits["max_row_bytes"]


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "runner", "schema"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == job_schema()
