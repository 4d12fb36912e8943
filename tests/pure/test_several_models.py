"""A job of several models: what is refused, what it is the same as, and what its plan says of each."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.difference import difference
from jobs.errors import JobError
from jobs.identity import Identity, InputIdentity, ModelIdentity, model_digests
from jobs.job import Job
from jobs.load import job_document, job_text, load_job
from jobs.section.limits import Limits
from jobs.section.output import Output

TWO = {"champion": {"url": "a"}, "challenger": {"url": "b"}}


def _job(**sections: Any) -> Job:
    return Job.model_validate({"input": {"url": "i"}, "output": {"url": "o"}} | sections)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["'model' is missing; no job goes without it"]),
        ("model: m\nmodels: {a: b}", ["cannot use 'models': give 'model' or 'models'; found both"]),
        (
            "models: {a: {url: m, signture: s}, 'x y': z}",
            ["'signture' is no key of 'models.a'; did you mean 'signature'?", """cannot use 'models."x y"'"""],
        ),
        ("models: {a: {url: m, inputs: {x: {cats: u}}}}", ["'cats' is no key of 'models.a.inputs.x'; did you mean"]),
        ("models: {a: 3, b: {}}", ["'models.a' is 3; expected its url", "'models.b.url' is missing"]),
        ("models: {}", ["'models' is an empty section; expected at least 1"]),
        ("models: {a: {url: m, signatures: [s]}}", ["'signatures' is for `model`"]),
        ("model: {url: m, signatures: [s, s]}", ["'signatures' names one twice: s, s"]),
        ("model: {url: m, signatures: [s], signature: s}", ["give 'signature' or 'signatures'; found both"]),
        ("model: {url: m, signatures: [a.b]}", ["'a.b' cannot stand before the names of tensors"]),
        ("modles: {a: b}", ["'modles' is no key of a job; did you mean 'models'?", "'model' is missing"]),
        (
            "models: {a: {url: m, inputs: {x: c}}}\ncolumns: {inputs: {a.x: d}}",
            ["input a.x is mapped twice: under 'columns.inputs', and as 'models.a.inputs'"],
        ),
        (
            "models: {a: {url: m, engine: eager, mixed_precision: bfloat16}, b: {url: m, engine: eager}}",
            ["engine 'eager' has one 'mixed_precision' for all models of a process"],
        ),
        (
            "models: {a: m, b: n}\nlimits: {compare_uncompiled: 10}",
            ["'limits.compare_uncompiled' compares compiled answers"],
        ),
    ],
)
def test_a_mistake_in_several_models_is_said_with_its_key(text: str, says: list[str]) -> None:
    with pytest.raises(JobError) as refused:
        load_job(f"input: i\noutput: o\n{text}", "job.yaml")
    for said in says:
        assert said in refused.value.message


def test_each_model_or_signature_is_called_under_its_name() -> None:
    assert {name: model.url for name, model in _job(models=TWO).called.items()} == {"champion": "a", "challenger": "b"}
    signatures = _job(model={"url": "m", "signatures": ["a", "b"]}).called
    assert {name: (model.url, model.signature) for name, model in signatures.items()} == {
        "a": ("m", "a"),
        "b": ("m", "b"),
    }
    assert list(_job(model={"url": "m"}).called) == [""]


def test_several_models_are_read_changed_and_written_as_one_is() -> None:
    text = "input: i\noutput: o\nmodels: {champion: a, challenger: {url: s3://b, xla: true}}"
    job = load_job(text, "job.yaml", ["models.champion.url=c", "models.challenger.inputs.x.cast=nearest"], base="/base")
    assert {name: model.url for name, model in job.called.items()} == {"champion": "/base/c", "challenger": "s3://b"}
    assert job.models is not None
    assert job.models["challenger"].inputs["x"].cast == "nearest"
    assert Job.model_validate(job_document(job)) == job
    assert load_job(job_text(job), "again") == job
    assert job.with_("models.champion.xla=true").called["champion"].xla


def test_jobs_of_other_models_mappings_or_names_are_other_jobs_and_trust_makes_none() -> None:
    first = _job(models=TWO).fingerprint
    others = [
        _job(models=TWO | {"challenger": {"url": "c"}}),
        _job(models={"first": {"url": "a"}, "challenger": {"url": "b"}}),
        _job(models=TWO | {"challenger": {"url": "b", "inputs": {"x": {"column": "y"}}}}),
        _job(model={"url": "a"}),
    ]
    assert len({first, *(job.fingerprint for job in others)}) == 5
    trusting = _job(models=TWO | {"challenger": {"url": "b", "trust": True, "options": {"anon": True}}})
    assert trusting.fingerprint == first


def _identity(**digests: str) -> dict[str, Any]:
    models = {
        name: ModelIdentity(digest, None, ("serve",), "serve", "session", False, None, ())
        for name, digest in digests.items()
    }
    return Identity(models, {}, InputIdentity("parquet"), Output(url="o"), Limits()).document()


def test_a_plan_has_one_digest_for_each_model_and_a_difference_names_the_model() -> None:
    then, now = ({"identity": _identity(champion="d1", challenger=digest)} for digest in ("d2", "d3"))
    assert model_digests(then["identity"]) == {"champion": "d1", "challenger": "d2"}
    assert difference(then, now) == "models.challenger.digest: 'd2' then, 'd3' now"
