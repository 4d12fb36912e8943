"""A job as it is written in Python: short forms, other values, and mistakes that are said as those of a job file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.errors import JobError
from jobs.job import Job
from jobs.load import job_document, load_job
from jobs.section.columns import Columns, InputColumn
from jobs.section.limits import Limits
from jobs.section.model import Model
from jobs.section.workers import Workers

LONG = {"model": {"url": "models/churn"}, "input": {"url": ["x/*.parquet"]}, "output": {"url": "scores"}}


def _job(**sections: Any) -> Job:
    return Job(**({"model": "models/churn", "input": "x/*.parquet", "output": "scores"} | sections))


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(JobError) as refused:
        call()
    assert refused.value.exit_code == 2
    return refused.value.message


def test_an_address_alone_is_the_section_with_that_url() -> None:
    long = Job.model_validate(LONG)
    assert _job() == long
    assert _job().fingerprint == long.fingerprint
    assert _job(model=Path("models/churn"), input=[Path("x/*.parquet")], output=Path("scores")) == long
    assert _job(input=["a", "b"]).input.url == ("a", "b")


def test_a_job_file_may_say_an_address_alone_and_an_override_may_add_to_it() -> None:
    text = "model: models/churn\ninput: x/*.parquet\noutput: scores\n"
    assert load_job(text, "job.yaml") == _job()
    assert load_job(text, "job.yaml", ["model.signature=s"]).model == Model(url="models/churn", signature="s")
    assert load_job(text, "job.yaml", ["output=elsewhere", "output.compression=none"]).output.url == "elsewhere"
    assert load_job("model: m\ninput: [a, b]\noutput: o\n", "job.yaml").input.url == ("a", "b")


def test_a_job_is_read_from_a_file_and_from_text(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model: models/churn\ninput: x/*.parquet\noutput: scores\n")
    assert Job.from_yaml(file) == Job.from_yaml(str(file)) == Job.from_yaml(file.read_text()) == _job()
    assert Job.from_yaml(json.dumps(LONG)) == _job()
    assert Job.from_yaml(file, "workers.count=2").workers.count == 2
    assert Job.from_yaml("model: m\noutput: o", {"input": ["a#1", "b"]}).input.url == ("a#1", "b")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nope.yaml", "cannot read job file 'nope.yaml': "),
        ("a\0b", "cannot read job file"),
        ("model: m\ninput: i\n", "cannot use the job: 'output' is missing; no job goes without it"),
        ("- a\n- b\n", "cannot use the text of the job: it is a list; expected 'model', "),
        ("{model: [", "cannot read the text of the job: line 1"),
        (3, "cannot read a job from a number: expected the path of a job file, or its text"),
    ],
)
def test_what_is_no_job_is_refused(source: Any, said: str) -> None:
    assert _refusal(lambda: Job.from_yaml(source)).startswith(said)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: _job(limits={"shard_rows": 0}), "'limits.shard_rows' is 0; expected a number of at least 1"),
        (lambda: Limits(shard_rows=0), "'limits.shard_rows' is 0; expected a number of at least 1"),
        (lambda: Workers(cpu=1), "'cpu' is no key of 'workers'; did you mean 'cpus'?"),
        (lambda: _job(model=3), "'model' is 3; expected its url, or keys and values"),
        (lambda: _job(model=""), "'model' is empty; expected some text"),
        (lambda: _job(nope=1), "'nope' is no key of a job; it has 'model', "),
        (lambda: Columns(inputs={"x": {"cast": "no"}}), "'columns.inputs.x.cast' is 'no'; expected 'safe', "),
        (lambda: InputColumn(), "cannot use 'columns.inputs.TENSOR': give exactly one of 'column', "),
        (lambda: _job(limits={"shard_rows": 0}, workers={"count": 0}), "2 problems\n  - 'workers.count' is 0; "),
    ],
)
def test_a_mistake_is_said_as_that_of_a_job_file_is(make: Callable[[], object], said: str) -> None:
    assert _refusal(make).startswith(f"cannot use the job: {said}")


def test_a_secret_is_not_repeated() -> None:
    said = _refusal(lambda: _job(model={"url": "m", "options": {"secret": "AKIA-canary"}}))
    assert "option 'secret' holds a literal secret" in said
    assert "canary" not in said


def test_validation_by_pydantic_itself_stays_pydantics() -> None:
    with pytest.raises(ValidationError):
        Job.model_validate(LONG | {"limits": {"shard_rows": 0}})


def test_other_values_make_another_job_and_leave_this_one_as_it_is() -> None:
    job = _job(workers={"cpus": 1}, columns={"inputs": {"x": {"column": "a", "as": "ragged"}}, "keep": ["id"]})
    other = job.with_("workers.count=2", {"input.url": "y#1.parquet", "limits.shard_rows": 5}, "columns.keep=[a, b]")
    assert (other.workers.count, other.limits.shard_rows, other.columns.keep) == (2, 5, ("a", "b"))
    assert other.input.url == ("y#1.parquet",)
    assert other.columns.inputs == job.columns.inputs
    assert other.workers.model_fields_set == {"cpus", "count"}, "what was said stays said, be it the default"
    assert (job.workers.count, job.columns.keep) == ("auto", ("id",))
    assert job.with_() == job
    assert job.with_("model=other").model.url == "other"
    assert pickle.loads(pickle.dumps(other)) == other  # noqa: S301
    assert Job.model_validate(job_document(other)) == other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("workers.count=x", "cannot use the job: 'workers.count' is 'x'; expected 'auto' or a whole number"),
        ({"workers.cont": 1}, "cannot use the job: 'cont' is no key of 'workers'; did you mean 'count'?"),
        ("workers", "cannot use the override 'workers': no '=' is in it; expected KEY=VALUE"),
        (3, "cannot change the job by a number: expected 'KEY=VALUE', or {KEY: value}"),
    ],
)
def test_a_change_is_checked(change: Any, said: str) -> None:
    assert _refusal(lambda: _job().with_(change)).startswith(said)
