"""The Job: what is refused, what is filled in, and when two jobs ask for the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.job import Job
from jobs.load import job_document
from jobs.section.canonical import canonical
from jobs.section.number import parse_bytes

CANARY = "AKIA-canary"


def _job(**sections: Any) -> Job:
    return Job.model_validate({"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}} | sections)


@pytest.mark.parametrize("section", ["model", "input", "columns", "output", "workers", "limits"])
def test_an_unknown_key_is_refused_in_every_section(section: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _job(
            **{section: {"url": "x", "nope": 1}} if section in ("model", "input", "output") else {section: {"nope": 1}}
        )
    assert [problem["loc"] for problem in refused.value.errors()] == [(section, "nope")]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512B", 512),
        ("64MiB", 64 * 2**20),
        (" 1.5 GiB ", 3 * 2**29),
        ("2gb", 2 * 10**9),
        ("1KB", 1000),
        (7, 7),
    ],
)
def test_a_size_may_carry_a_unit(text: object, size: int) -> None:
    assert parse_bytes(text) == size
    assert _job(limits={"shard_bytes": text}).limits.shard_bytes == size


@pytest.mark.parametrize("wrong", ["64 megs", "MiB", "-1", "0", 0, 1.5, True, "1e3", ""])
def test_a_size_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        _job(limits={"shard_bytes": wrong})


@pytest.mark.parametrize(
    "sections",
    [
        {"workers": {"count": True}},
        {"workers": {"count": 0}},
        {"workers": {"gpus": 1.5}},
        {"workers": {"gpus": math.inf}},
        {"workers": {"cpus": "4"}},
        {"model": {"url": ""}},
        {"input": {"url": []}},
        {"output": {"url": "o", "format": "arrow", "compression": "snappy"}},
        {"columns": {"outputs": []}},
        {"columns": {"outputs": [{"score": "s"}]}},
        {"columns": {"inputs": {"x": {}}}},
        {"columns": {"inputs": {"x": {"column": "a", "constant": 1}}}},
        {"columns": {"inputs": {"x": {"constant": math.nan}}}},
        {"columns": {"inputs": {"x": {"stack": []}}}},
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(sections: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _job(**sections)


def test_short_forms_say_the_same_as_long_ones() -> None:
    short = _job(
        input={"url": "i"},
        columns={"inputs": {"x": "a"}, "outputs": ["y"], "keep": "id"},
        model={"url": "m", "tags": "serve"},
    )
    long = _job(
        input={"url": ["i"]},
        columns={"inputs": {"x": {"column": "a"}}, "outputs": {"y": None}, "keep": ["id"]},
        model={"url": "m", "tags": ["serve"]},
    )
    assert short == long


def test_a_job_survives_being_written_out_in_full() -> None:
    job = _job(columns={"inputs": {"x": {"constant": 0, "null": {"fill": 1}}, "y": {"stack": "f*"}}, "outputs": "s"})
    assert Job.model_validate(job.model_dump()) == job
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_a_job_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _job().limits.max_attempts = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    "same",
    [
        {"workers": {"count": 9, "gpus": 1, "cpus": 4}},
        {"limits": {"batch_rows": 17}},
        {"limits": {"max_attempts": 9}},
        {"input": {"url": "i", "options": {"endpoint_url": "http://s3"}}},
        {"limits": {"nonfinite": "pass"}},
    ],
)
def test_the_fingerprint_ignores_what_cannot_change_the_result(same: dict[str, Any]) -> None:
    assert _job(**same).fingerprint == _job().fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"url": "m2"}},
        {"model": {"url": "m", "signature": "embed"}},
        {"input": {"url": ["i", "j"]}},
        {"columns": {"keep": ["id"]}},
        {"columns": {"inputs": {"x": {"column": "a", "cast": "unsafe"}}}},
        {"columns": {"inputs": {"x": {"column": "a", "timestamp": "us"}}}},
        {"columns": {"inputs": {"x": {"column": "a", "decode": {}}}}},
        {"output": {"url": "o", "compression": "none"}},
        {"limits": {"shard_rows": 5}},
        {"limits": {"nonfinite": "reject"}},
        {"limits": {"reproducible": True}},
    ],
)
def test_the_fingerprint_changes_with_what_can(other: dict[str, Any]) -> None:
    assert _job(**other).fingerprint != _job().fingerprint


def test_keys_that_older_jobs_did_not_have_are_no_part_of_the_fingerprint_at_their_default() -> None:
    rule: dict[str, Any] = {"columns": ["a", "b"]}
    inputs = {"e": {"example": rule}, "x": "x"}
    before = "934f3819a2ead1c4e762ded5150325c5"  # as it was when there were no such keys
    assert _job(columns={"inputs": inputs}).fingerprint == before
    stated = {"e": {"example": rule | {"empty": "missing"}}, "x": "x"}
    assert _job(model={"url": "m", "batch": None}, columns={"inputs": stated}).fingerprint == before
    assert _job(model={"url": "m", "batch": 8}, columns={"inputs": inputs}).fingerprint != before
    other = {"e": {"example": rule | {"empty": "empty"}}, "x": "x"}
    assert _job(columns={"inputs": other}).fingerprint != before
    outputs = {"y": {"column": "z"}, "w": {"decode": "utf-8"}}
    assert _job(columns={"outputs": outputs}).fingerprint == "0be15a7b8fcea2426fa96c059b9211a0"
    by_column = {"z": {"of": "y"}, "w": {"decode": "utf-8"}}
    assert _job(columns={"outputs": by_column}).fingerprint == "0be15a7b8fcea2426fa96c059b9211a0"
    examples = {"url": "o", "format": "tfrecord"}
    for strings in (None, "binary"):
        assert _job(output=examples | {"strings": strings}).fingerprint == "e6b528025f536c7455656f93cf9887a0"
    assert _job(output={"url": "o", "strings": "text"}).fingerprint == _job().fingerprint
    assert _job(output={"url": "o", "strings": "binary"}).fingerprint != _job().fingerprint


def test_what_is_named_is_written_and_three_dots_bring_the_others() -> None:
    names = ["a", "b", "c"]

    def written(outputs: Any) -> list[str]:
        return [name for name, _ in _job(columns={"outputs": outputs}).columns.written(names)]

    assert written(None) == names
    assert written(["b"]) == written({"b": {"decode": "utf-8"}}) == ["b"], "a list and a mapping select"
    assert written({"b": "z", "...": True}) == written(["b", "..."]) == ["b", "a", "c"]
    assert written({"...": True, "b": "z"}) == ["a", "c", "b"], "they stand where the dots stand"
    assert written({"b": True, "x": "y"}) == ["b", "x"], "whether there is one is asked of the signature"
    rules = _job(columns={"outputs": {"b": {"decode": "utf-8"}, "...": True}}).columns.written(names)
    assert [rule.decode for _, rule in rules] == ["utf-8", None, None]


def test_three_dots_say_of_inputs_what_is_so_without_them() -> None:
    assert _job(columns={"inputs": {"x": "a", "...": True}}) == _job(columns={"inputs": {"x": "a"}})


def test_three_dots_of_python_need_no_quotes() -> None:
    bare = _job(columns={"inputs": {"x": "a", ...: True}, "outputs": {"b": "z", ...: True}})
    assert bare == _job(columns={"inputs": {"x": "a"}, "outputs": {"b": "z", "...": True}})


def test_a_column_may_come_first_and_name_its_tensor() -> None:
    for one, other in (
        ({"p": {"of": "logits", "cut": "x"}}, {"logits": {"column": "p", "cut": "x"}}),
        ({"p": {"of": "p", "shape": [1]}}, {"p": {"shape": [1]}}),
    ):
        assert _job(columns={"outputs": one}) == _job(columns={"outputs": other})


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"outputs": {"...": {"decode": "utf-8"}}}, "'...' stands for all that are not named: write `...: true`"),
        ({"inputs": {"...": "a"}}, "'...' stands for all that are not named: write `...: true`"),
        ({"outputs": {"p": {"of": "..."}}}, "'...' stands for all that are not named: write `...: true`"),
        ({"outputs": {"p": {"of": "y", "column": "q"}}}, "output 'p' has 'of', with which the key is the column, and"),
        ({"outputs": {"p": {"of": "y"}, "y": True}}, "tensor 'y' is named twice in 'outputs'; it becomes one column"),
    ],
)
def test_outputs_that_say_two_things_are_refused(columns: Any, text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _job(columns=columns)
    assert text in str(refused.value)


def test_where_bits_count_the_size_of_a_batch_is_part_of_the_fingerprint() -> None:
    one, other = ({"reproducible": True, "batch_rows": rows} for rows in (16, 17))
    assert _job(limits=one).fingerprint != _job(limits=other).fingerprint


def test_the_fingerprint_knows_the_order_of_the_columns_written() -> None:
    assert _job(columns={"outputs": ["a", "b"]}).fingerprint != _job(columns={"outputs": ["b", "a"]}).fingerprint


@pytest.mark.parametrize(
    "name",
    ["key", "secret", "aws_secret_access_key", "token", "sas_token", "password", "AccountKey", "connection_string"],
)
@pytest.mark.parametrize("section", ["model", "input", "output"])
def test_a_literal_secret_is_refused_naming_the_option_and_not_the_secret(section: str, name: str) -> None:
    with pytest.raises(ValidationError, match=f"option '{name}' holds a literal secret") as refused:
        _job(**{section: {"url": "x", "options": {name: CANARY}}})
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("value", [f"https://me:{CANARY}@s3.example:9000", f"http://h/?x=1&auth={CANARY}"])
def test_a_secret_in_the_url_of_an_option_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValidationError, match="option 'endpoint_url' holds a literal secret") as refused:
        _job(output={"url": "x", "options": {"endpoint_url": value}})
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    "url", [f"s3://key:{CANARY}@bucket/x", f"https://h/x?a=1&X-Amz-Signature={CANARY}", f"az://c/x?sig={CANARY}"]
)
@pytest.mark.parametrize("section", ["model", "input", "output"])
def test_a_secret_inside_a_url_is_refused_and_not_repeated(section: str, url: str) -> None:
    with pytest.raises(ValidationError, match="holds a literal secret") as refused:
        _job(**{section: {"url": url}})
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"key": "env:KEY", "secret": "file:/run/secret", "token": "profile:me"},
        {"token": "anon"},
        {"anon": True, "use_ssl": False, "endpoint_url": "http://s3:9000"},
        {"key_filename": "/home/me/.ssh/id", "username": "me", "port": 22},
    ],
)
def test_references_switches_and_file_names_are_no_secrets(options: dict[str, Any]) -> None:
    assert _job(input={"url": "i", "options": options}).input.options == options


@pytest.mark.parametrize("url", ["sftp://me@host/x", "s3://b/key=1/part-?/x=2/*.parquet", "s3://b/a:b@c", "/tmp/x"])
def test_users_wildcards_and_partitions_in_a_url_are_no_secrets(url: str) -> None:
    assert _job(output={"url": url}).output.url == url


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@pytest.mark.parametrize(
    ("pad", "text"),
    [
        ("max", "the longest of a batch"),
        ({"multiple_of": 8}, "a multiple of 8"),
        ({"to": {"buckets": [32, 64]}, "value": 1}, "buckets of 32, 64"),
    ],
)
def test_padding_has_short_forms(pad: object, text: str) -> None:
    rule = _job(columns={"inputs": {"ids": {"column": "c", "pad": pad}}}).columns.inputs["ids"]
    assert str(rule.pad) == text


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"columns": {"inputs": {"x": {"column": "c", "pad": {"value": 1}}}}}, "exactly one of 'to: max', 'mul"),
        ({"columns": {"inputs": {"x": {"column": "c", "pad": {"buckets": [8, 4]}}}}}, "buckets [8, 4] do not rise"),
        ({"input": {"url": "i", "format": "parquet", "examples": "infer"}}, "'examples' is for TFRecord files"),
        ({"input": {"url": "i", "examples": {"x": "double"}}}, "'list<bytes>'"),
        ({"output": {"url": "o", "format": "tfrecord", "compression": "zstd"}}, "choose gzip or none"),
    ],
)  # fmt: skip
def test_a_rule_that_means_nothing_is_refused(sections: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _job(**sections)
    assert text in str(refused.value)


def test_tfrecord_files_are_not_compressed_unless_the_job_says_so() -> None:
    assert _job(output={"url": "o", "format": "tfrecord"}).output.compression == "none"
    assert _job(output={"url": "o", "format": "tfrecord", "compression": "gzip"}).output.compression == "gzip"


def test_a_job_with_rules_of_all_kinds_is_written_and_read_back() -> None:
    inputs = {
        "r": {"column": "tags", "as": "ragged"},
        "s": {"column": "t", "as": "sparse", "shape": [9]},
        "ids": {"column": "c", "pad": {"multiple_of": 8}},
        "e": {"example": {"columns": {"age": "a"}}},
    }
    job = _job(
        columns={"inputs": inputs, "outputs": {"y": {"cut": "ids"}}}, input={"url": "i", "examples": {"x": "float"}}
    )
    assert Job.model_validate(job_document(job)) == job
    assert job.fingerprint == Job.model_validate(job_document(job)).fingerprint


def test_compiled_answers_are_compared_only_where_something_is_compiled() -> None:
    with pytest.raises(ValidationError, match=r"nothing is compiled: set 'model: \{xla: true\}', or leave it out"):
        _job(limits={"compare_uncompiled": 100})
    compiled = _job(model={"url": "m", "xla": True})
    compared = _job(model={"url": "m", "xla": True}, limits={"compare_uncompiled": 100})
    assert compared.fingerprint == compiled.fingerprint, "it changes nothing that is written"
