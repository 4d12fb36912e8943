"""Job files that grow beyond any job are refused, with what is too large; a number may be written with an exponent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.document import parsing
from jobs.errors import JobError
from jobs.job import Job
from jobs.load import load_job

SMALL = "model: {url: m}\ninput: {url: i}\noutput: {url: o}\n"
DIGITS = "9" * 5000  # more than Python reads


def _refusal(text: str, *overrides: str) -> str:
    with pytest.raises(JobError) as refused:
        load_job(text, "job.yaml", overrides)
    return refused.value.message


@pytest.mark.parametrize("growing", ["[*a, *a, *a, *a]", "{<<: [*a, *a, *a, *a]}", "{p: *a, q: *a, r: *a, s: *a}"])
def test_an_alias_counts_as_all_that_it_stands_for(growing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"a: &a {{x: 1, y: 2}}\nb: &b {growing}\nc: &c {growing.replace('*a', '*b')}\n"
    assert "'a' is no key of a job" in _refusal(text)
    monkeypatch.setattr(parsing, "MOST_VALUES", 60)
    assert "line 3, column" in _refusal(text)
    assert "it is more than 60 values, aliases counted in" in _refusal(text)


def test_an_alias_in_what_it_stands_for_is_refused() -> None:
    assert "line 4, column 22: it is more than 2,000,000 values" in _refusal(SMALL + "columns: &x {inputs: *x}")


@pytest.mark.parametrize("levels", [100, 900, 100_000])
@pytest.mark.parametrize("braces", ["[]", "{}"])
def test_a_job_file_of_many_levels_is_refused(levels: int, braces: str) -> None:
    opened = ("[" if braces == "[]" else '{"a": ') * levels
    closed = braces[1] * levels
    told = _refusal(f'{{"columns": {opened}1{closed}}}')
    assert "cannot read job file 'job.yaml'" in told
    assert "it is more than 64 levels deep" in told
    if levels < 1000:  # what is read token by token takes its time
        assert "line 4, column" in _refusal(f"{SMALL}columns: {opened}1{closed}")
        assert "64 levels deep" in _refusal(SMALL, f"columns.keep={opened}1{closed}")


def test_a_constant_may_have_as_many_levels_as_a_tensor() -> None:
    nested = "[" * 40 + "1" + "]" * 40
    assert load_job(f"{SMALL}columns: {{inputs: {{x: {{constant: {nested}}}}}}}", "job.yaml").columns.inputs["x"]


def test_an_override_of_many_levels_is_refused() -> None:
    assert "it is more than 64 levels deep" in _refusal(SMALL, f"columns.{'a.' * 1000}b=1")


@pytest.mark.parametrize(
    ("section", "key", "more"),
    [("workers", "readers", ""), ("limits", "stall_s", ""), ("columns", "inputs.x", "constant: ")],
)
def test_a_number_of_thousands_of_digits_is_told_with_its_key(section: str, key: str, more: str) -> None:
    name, _, inner = key.partition(".")
    value = f"{{{name}: {{{inner}: {{{more}{DIGITS}}}}}}}" if inner else f"{{{name}: {DIGITS}}}"
    told = _refusal(f"{SMALL}{section}: {value}")
    assert f"'{section}.{key}" in told
    assert len(told) < 500
    document: dict[str, Any] = {"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}}
    document["workers"] = {"readers": 0}
    told = _refusal(json.dumps(document).replace("0", DIGITS))
    assert "'workers.readers' is inf; expected 'auto' or a whole number" in told


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("model.version", "9,223,372,036,854,775,807"),
        ("model.batch", "2,147,483,647"),
        ("workers.count", "100,000"),
        ("workers.min", "100,000"),
        ("workers.max", "100,000"),
        ("workers.gpus", "100,000"),
        ("workers.cpus", "100,000"),
        ("workers.readers", "1,024"),
        ("workers.memory", "9,223,372,036,854,775,807"),
        ("workers.resources.tpu", "9,007,199,254,740,992"),
        ("limits.shard_bytes", "9,223,372,036,854,775,807"),
        ("limits.shard_rows", "9,223,372,036,854,775,807"),
        ("limits.batch_rows", "2,147,483,647"),
        ("limits.max_attempts", "10,000"),
        ("limits.stall_s", "1,000,000,000"),
        ("limits.max_row_bytes", "9,223,372,036,854,775,807"),
        ("limits.max_row_group_bytes", "9,223,372,036,854,775,807"),
        ("limits.compare_uncompiled", "9,223,372,036,854,775,807"),
        ("columns.inputs.x", "2,147,483,647"),
        ("columns.outputs.y", "9,223,372,036,854,775,807"),
    ],
)
@pytest.mark.parametrize("value", [10**19, 10**30])
def test_every_number_of_a_job_has_a_bound_that_is_told(key: str, most: str, value: int) -> None:
    written = {
        "columns.inputs.x": f"{{column: a, pad: {{multiple_of: {value}}}}}",
        "columns.outputs.y": f"{{shape: [{value}]}}",
    }
    told = _refusal(SMALL, f"{key}={written.get(key, value)}")
    assert f"'{key}" in told
    assert f"a number of at most {most}" in told


def test_a_budget_has_a_bound_too() -> None:
    assert "'limits.max_bad_files'" in _refusal(SMALL, f"limits.max_bad_files={10**30}")
    assert "'limits.shard_bytes'" in _refusal(SMALL, f"limits.shard_bytes={'9' * 400}GiB")


@pytest.mark.parametrize(
    "text", ["!!bool foo", "!!timestamp foo", "!!int ''", ":".join(["1"] * 300) + ".5", "!!float x"]
)
def test_a_tag_on_what_is_no_such_value_is_refused_as_the_text_that_it_is(text: str) -> None:
    assert "cannot read job file 'job.yaml': " in _refusal(f"{SMALL}x: {text}")


@pytest.mark.parametrize("written", ["1e3", "1E+3", "1.0e3", "1.0e+3", "10.e2", "1000.0"])
def test_a_whole_number_may_be_written_with_an_exponent_or_a_dot(written: str) -> None:
    changes = [f"limits.batch_rows={written}", f"limits.stall_s={written}", f"limits.max_bad_files={written}"]
    limits = load_job(SMALL, "job.yaml", changes).limits
    assert (limits.batch_rows, limits.stall_s, limits.max_bad_files) == (1000, 1000.0, 1000)
    plain = load_job(SMALL, "job.yaml", [change.replace(written, "1000") for change in changes])
    assert limits == plain.limits
    job = json.dumps({"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}, "workers": {"count": 0}})
    assert load_job(job.replace("0", written.replace("10.e2", "1e3")), "job.json").workers.count == 1000


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("1e9", 10**9),
        ("1.0e+9", 10**9),
        ("1.5e3KiB", 1536 * 1000),
        ("1e3 MB", 10**9),
        ("2.5GiB", 5 * 2**29),
    ],
)
def test_a_size_may_have_an_exponent_too(written: str, count: int) -> None:
    assert load_job(SMALL, "job.yaml", [f"limits.shard_bytes={written}"]).limits.shard_bytes == count


@pytest.mark.parametrize("written", ["1e999", "1e9999", "1e99999", "1e-3", "1.5e-1", "1e9 EB", "e9"])
def test_a_size_that_is_no_number_of_bytes_is_refused_where_it_stands(written: str) -> None:
    assert "'limits.shard_bytes" in _refusal(SMALL, f"limits.shard_bytes={written}")


@pytest.mark.parametrize("written", ["1e-3", "1.5", "15e-1", "1e999", "'4'", "1e", "'1e3'"])
def test_a_number_that_is_not_whole_stays_none(written: str) -> None:
    assert "'limits.batch_rows' is" in _refusal(SMALL, f"limits.batch_rows={written}")


@pytest.mark.parametrize(
    ("rule", "value"),
    [("constant: [1e-3, 2E+1]", [0.001, 20.0]), ("constant: '1e-3'", "1e-3"), ("column: a, null: {fill: 1e-3}", 0.001)],
)
def test_a_constant_may_be_written_with_an_exponent(rule: str, value: object) -> None:
    column = load_job(f"{SMALL}columns: {{inputs: {{x: {{{rule}}}}}}}", "job.yaml").columns.inputs["x"]
    assert (column.constant if column.constant is not None else getattr(column.null, "fill", None)) == value


def test_a_name_in_the_form_of_a_number_stays_a_name() -> None:
    text = SMALL.replace("url: i", "url: 7e1, options: {profile: 1e3}") + "columns: {inputs: {x: 1e3}, keep: [2e5]}"
    job = load_job(text, "job.yaml")
    assert (job.columns.inputs["x"].column, job.columns.keep) == ("1e3", ("2e5",))
    assert (job.input.url, job.input.options) == (("7e1",), {"profile": "1e3"})
    assert Job.model_validate(json.loads(job.model_dump_json(by_alias=True))) == job
