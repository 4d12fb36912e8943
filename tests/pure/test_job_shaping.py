"""What a job may say of shaped outputs, and what contradicts itself; how several columns come of one tensor."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import JobError
from jobs.job import Job
from jobs.load import job_text, load_job
from jobs.section.columns import OutputColumn


def _job(outputs: Any) -> Job:
    return Job.model_validate(
        {"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}, "columns": {"outputs": outputs}}
    )


def _written(outputs: Any, tensors: tuple[str, ...] = ("logits", "probs", "z")) -> list[tuple[str, str | None]]:
    return [(name, rule.column) for name, rule in _job(outputs).columns.written(tensors)]


def test_one_tensor_becomes_several_columns_where_they_are_shaped() -> None:
    outputs = {
        "label": {"of": "logits", "argmax": True},
        "probs": {"top_k": 2},
        "p": {"of": "probs"},
        "flag": {"of": "probs", "at": 1, "above": 0.7},
        "...": True,
    }
    assert _written(outputs) == [
        ("logits", "label"),
        ("probs", "probs"),
        ("probs", "p"),
        ("probs", "flag"),
        ("z", None),
    ]
    assert _written({"probs": {"column": "top", "top_k": 2}}) == [("probs", "top")]
    assert _written({"champion.top": {"of": "champion.probs", "top_k": 2}}) == [("champion.probs", "champion.top")]


def test_a_job_of_shaped_outputs_is_read_again_as_it_was() -> None:
    job = _job({"top": {"of": "p", "top_k": 2, "labels": ["a", "b"]}, "p": {"at": [0, 1]}, "q": {"of": "p"}})
    again = load_job(job_text(job), "")
    assert again == job
    assert sorted(map(str, again.columns.written([]))) == sorted(map(str, job.columns.written([])))


def test_what_shapes_is_part_of_the_fingerprint() -> None:
    plain = _job({"p": "q"})
    assert plain.fingerprint == _job({"q": {"of": "p"}}).fingerprint
    fingerprints = [
        _job({"q": {"of": "p"} | rule}).fingerprint
        for rule in (
            *({}, {"argmax": True}, {"top_k": 1}, {"top_k": 2}, {"top_k": 2, "labels": "a"}),
            *({"at": 0}, {"at": [0]}, {"at": 1}, {"round": 0}, {"above": 0}, {"above": 0.5}, {"cast": "int8"}),
        )
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert _job({"q": {"of": "p", "argmax": False}}).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("rule", "texts"),
    [
        ({"argmax": True, "top_k": 2}, ["it is 'argmax', or 'top_k', or values that are picked and changed"]),
        ({"top_k": 2, "at": 1, "cast": "float16"}, ["found 'top_k' and 'at'"]),
        ({"above": 1, "round": 2, "cast": "float16"}, ["'above' makes true or false, with nothing to change; found"]),
        ({"labels": "a.txt"}, ["'labels' names what 'argmax' or 'top_k' found; neither is given"]),
        ({"labels": "a.txt", "at": 0, "above": 1}, ["'labels' names what"]),
        ({"at": 1, "shape": [2]}, ["'shape' is for a tensor as it is; found beside 'at'"]),
        ({"argmax": True, "top_k": 2, "decode": "utf-8"}, ["found 'argmax' and 'top_k'; 'decode' is for a tensor"]),
        ({"top_k": 0}, ["expected a number of at least 1"]),
        ({"top_k": "five"}, ["expected a whole number"]),
        ({"at": -1}, ["expected a number of at least 0"]),
        ({"at": []}, ["an empty list"]),
        ({"round": 16}, ["expected a number of at most 15"]),
        ({"cast": "bfloat16"}, ["expected 'float16', 'float32', 'float64'"]),
        ({"above": True}, ["expected a number"]),
        ({"argmax": [1]}, ["expected true or false"]),
        ({"topk": 5}, ["did you mean 'top_k'?"]),
        ({"label": "a.txt"}, ["did you mean 'labels'?"]),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(rule: Any, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(JobError) as refused:
            load_job("{model: m, input: i, output: o}", "", [{"columns.outputs.y": {"of": "p"} | rule}])
        assert text in refused.value.message


def test_all_mistakes_are_told_at_once() -> None:
    outputs = {"a": {"top_k": 0}, "b": {"at": -1}, "c": {"labels": "x"}, "d": {"topk": 1}, "e": {"round": 99}}
    with pytest.raises(JobError) as refused:
        load_job("{model: m, input: i, output: o}", "", [{"columns.outputs": outputs}])
    assert "5 problems" in refused.value.message


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"a": {"of": "p"}, "b": {"of": "p"}}, "tensor 'p' is named twice in 'outputs'; it becomes one column"),
        ({"a": {"of": "p", "top_k": 1}, "p": {"column": "a", "top_k": 2}}, "column 'a' is named twice"),
        ({"...": {"top_k": 1}}, "'...' stands for all that are not named"),
        ({"a": {"of": "p", "top_k": 1, "column": "b"}}, "output 'a' has 'of', with which the key is the column"),
    ],
    ids=str,
)
def test_columns_that_cannot_be_told_apart_are_refused(outputs: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"columns\.outputs") as refused:
        _job(outputs)
    assert text in str(refused.value)


def test_in_python_a_rule_is_a_value() -> None:
    assert OutputColumn(of="probs", at=1, above=0.5).shapes == ("at", "above")
    with pytest.raises(JobError, match="'above' makes true or false"):
        OutputColumn(of="probs", above=0.5, round=1)
