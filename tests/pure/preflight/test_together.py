"""Several models as one signature: which of them a name of the job means, and who takes how many rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from jobs.errors import BindingError, ModelError
from jobs.job import Job
from runner.binding.bind import bind
from runner.engine import ModelOptions
from runner.model.signature import MetaGraph, ModelSpec, Signature, TensorSpec
from runner.preflight.model.member import Member, Scanned
from runner.preflight.model.several import all_scanned, together
from runner.scan.compiled import Compiled
from runner.scan.effects import Effects

SCHEMA = pa.schema([("x", pa.float32()), ("y", pa.float32()), ("id", pa.int64())])
PLAIN = Scanned((), Effects(), (), None)


def _member(job: Job, name: str, rows: int | None = None, *inputs: str) -> Member:
    specs = {each: TensorSpec(each, "float32", (rows,), f"{each}:0") for each in inputs or ("x",)}
    outputs = {"score": TensorSpec("score", "float32", (rows,), "score:0")}
    signature, section = Signature("serve", "", specs, outputs), job.called[name]
    graph = MetaGraph(("serve",), {"serve": signature})
    model = ModelSpec(section.url, section.url, None, (graph,), f"digest of {name}", {}, {})
    return Member(name, section, model, graph, signature, ModelOptions(), PLAIN)


def _job(**sections: Any) -> Job:
    models = {"a": {"url": "/a"}, "b": {"url": "/b"}}
    return Job.model_validate({"models": models, "input": {"url": "i"}, "output": {"url": "o"}} | sections)


def _bound(job: Job, *members: Member) -> Any:
    merged, sized, signature = together(job, members, tried=True)
    return bind(merged.columns, SCHEMA, signature, "fixed_shape_tensor"), sized


def _columns(binding: Any) -> dict[str, str]:
    return {row["tensor"]: row["column"] for row in binding.describe() if row["role"] == "input"}


@pytest.mark.parametrize(
    ("inputs", "own", "fed"),
    [
        ({}, {}, {"a.x": "x", "b.x": "x"}),
        ({"x": "y"}, {}, {"a.x": "y", "b.x": "y"}),
        ({"x": "y", "b.x": "id"}, {}, {"a.x": "y", "b.x": "id"}),
        ({"b.x": {"cast": "nearest"}}, {}, {"a.x": "x", "b.x": "x"}),
        ({}, {"x": "y"}, {"a.x": "x", "b.x": "y"}),
        ({"x": "id"}, {"x": {"cast": "nearest"}}, {"a.x": "id", "b.x": "x"}),
    ],
)
def test_a_name_means_every_model_that_has_it_and_with_a_prefix_one(
    inputs: dict[str, Any], own: dict[str, Any], fed: dict[str, str]
) -> None:
    models = {"a": {"url": "/a"}, "b": {"url": "/b", "inputs": own}}
    job = _job(models=models, columns={"inputs": inputs})
    casting = {"id", *fed.values()}
    binding, _ = _bound(job, _member(job, "a"), _member(job, "b"))
    assert _columns(binding) == fed
    assert casting >= set(binding.columns)
    assert [field.name for field in binding.output_schema] == ["a.score", "b.score"]


def test_only_the_models_that_have_an_input_are_fed_and_outputs_are_renamed() -> None:
    outputs = {"best": {"of": "a.score"}, "b.score": True}
    job = _job(columns={"inputs": {"z": "y"}, "outputs": outputs, "keep": ["id"]})
    binding, _ = _bound(job, _member(job, "a"), _member(job, "b", None, "x", "z"))
    assert _columns(binding) == {"a.x": "x", "b.x": "x", "b.z": "y"}
    assert [field.name for field in binding.output_schema] == ["id", "best", "b.score"]


def test_names_that_mean_nothing_are_told_with_the_choices() -> None:
    job = _job(columns={"inputs": {"w": "x", "b.q": "x"}, "outputs": ["score"]})
    with pytest.raises(BindingError) as refused:
        _bound(job, _member(job, "a"), _member(job, "b"))
    for said in (
        "input 'w': the signature has no such input; it has ",
        "input 'b.q': the signature has no such input",
        "output 'score': the signature has no such output; it has ",
    ):
        assert said in refused.value.message


def test_a_fixed_number_of_rows_is_the_models_own_affair() -> None:
    job = _job()
    binding, sized = _bound(job, _member(job, "a", 8), _member(job, "b"))
    assert binding.batch_rows is None
    assert [member.batch_rows for member in sized] == [8, None]
    assert sized[0].call(binding).follows == ("x",)


def test_two_numbers_of_rows_in_one_model_are_refused_by_its_name() -> None:
    job = _job(models={"a": {"url": "/a", "batch": 4}, "b": {"url": "/b"}})
    with pytest.raises(ModelError, match=r"model '/a' \(a\): .*'x' wants 8, and the job says `batch: 4`"):
        _bound(job, _member(job, "a", 8), _member(job, "b"))


@pytest.mark.parametrize("known", [{"scanned": replace(PLAIN, compiled=Compiled({}, {}))}, {"batch_rows": 4}])
def test_lists_of_any_length_are_not_cut_into_calls_of_one_size(known: dict[str, Any]) -> None:
    parts = {"r": TensorSpec("r", "float32", (None,), "r:0"), "r_1": TensorSpec("r_1", "int64", (None,), "r_1:0")}
    job = _job(columns={"inputs": {"r": {"column": "lists", "as": "ragged"}}})
    plain = _member(job, "b")
    lists = replace(plain, signature=replace(plain.signature, inputs=parts))
    merged, (_, free), signature = together(job, [_member(job, "a"), lists], tried=True)
    schema = SCHEMA.append(pa.field("lists", pa.list_(pa.float32())))
    binding = bind(merged.columns, schema, signature, "fixed_shape_tensor")
    assert free.call(binding).batch_rows is None
    with pytest.raises(ModelError, match="'r' is ragged or sparse, which is not cut"):
        replace(free, **known).call(binding)


def test_tensors_of_two_models_are_never_one_and_those_of_one_session_may_be() -> None:
    job = _job(model={"url": "/a", "signatures": ["a", "b"]}, models=None)
    one, other = _member(job, "a"), _member(job, "b")
    other = replace(other, signature=replace(other.signature, name="other"))
    _, _, signature = together(job, [one, other], tried=True)
    assert signature.inputs["a.x"].tensor == signature.inputs["b.x"].tensor
    job = _job(models={"a": {"url": "/a"}, "b": {"url": "/a"}})  # one signature twice has two sessions
    _, _, signature = together(job, [_member(job, "a"), _member(job, "b")], tried=True)
    assert signature.inputs["a.x"].tensor != signature.inputs["b.x"].tensor
    job = _job()
    _, _, signature = together(job, [_member(job, "a"), _member(job, "b")], tried=True)
    assert signature.inputs["a.x"].tensor != signature.inputs["b.x"].tensor


def test_what_one_model_does_is_known_of_all() -> None:
    job = _job()
    harmless, drawing = _member(job, "a"), _member(job, "b")
    drawing = replace(drawing, scanned=replace(PLAIN, effects=Effects(draws=("RandomUniform",)), trusted=("ReadFile",)))
    scanned = all_scanned([harmless, drawing])
    assert (scanned.effects.draws, scanned.trusted, scanned.repeatable) == (("RandomUniform",), ("ReadFile",), False)
    assert drawing.warnings[0].startswith("model 'b': signature 'serve' may draw random numbers")
