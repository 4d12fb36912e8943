"""Job files as people write them, with the mistakes that people make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from jobs.errors import JobError
from jobs.job import Job
from jobs.load import dotted, job_document, job_from, load_job
from jobs.section.columns import NullFill, OutputColumn

JOB = """
model:  {url: s3://models/churn, version: latest, signature: serving_default}
input:  {url: "s3://lake/users/dt=2026-11-01/*.parquet", format: parquet}
columns:
  inputs:  {features: {stack: [f0, f1, f2]}, text: comment}
  outputs: {score: churn_probability}
  keep:    [user_id]
output: {url: s3://lake/scores/2026-11-01, format: parquet, compression: zstd}
workers: {count: 8, gpus: 1, cpus: 4}
limits:  {shard_bytes: 128MiB, batch_rows: auto, max_attempts: 4, on_bad_row: fail, max_rejected_rows: 0}
"""
SMALL = "model: {url: m}\ninput: {url: i}\noutput: {url: o}\n"
CANARY = "AKIA-canary"


def _refusal(text: str, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(JobError) as refused:
        load_job(text, "job.yaml", overrides)
    assert refused.value.exit_code == 2
    return refused.value.message


def test_the_job_of_the_guide_loads() -> None:
    job = load_job(JOB, "job.yaml")
    assert job.model.version == "latest"
    assert job.columns.inputs["features"].stack == ("f0", "f1", "f2")
    assert job.columns.inputs["text"].column == "comment"
    assert job.workers.count == 8
    assert job.limits.shard_bytes == 128 * 2**20


def test_json_says_the_same_as_yaml_also_when_it_is_indented_by_tabs() -> None:
    document = {"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}}
    assert load_job(json.dumps(document, indent="\t"), "job.json") == load_job(SMALL, "job.yaml")
    assert load_job("{model: {url: m}, input: {url: i}, output: {url: o}}", "job.yaml") == load_job(SMALL, "job.yaml")


def test_keys_are_the_text_that_was_written() -> None:
    text = SMALL + "columns: {inputs: {on: {column: a, null: nan}, 1: {column: b, null: {fill: 0}}}}"
    inputs = load_job(text, "job.yaml").columns.inputs
    assert list(inputs) == ["on", "1"]
    assert (inputs["on"].null, inputs["1"].null) == ("nan", NullFill(fill=0))


def test_anchors_and_merges_work_and_what_is_merged_may_be_replaced() -> None:
    text = "model: &m {url: m, engine: eager}\ninput: {url: i}\noutput: {url: o}\n"
    assert load_job(text.replace("input: {url: i}", "input: {<<: {url: x}, url: i}"), "j").input.url == ("i",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: {url: a}\nmodel: {url: b}", "line 2, column 1: key 'model' is given twice"),
        ('{"model": {"url": 1, "url": 2}}', "key 'url' is given twice"),
        ("model: {url: a", "line 1"),
        ("a: b: c", "line 1, column 5"),
        ("!!python/object/apply:os.system ['true']", "line 1"),
        ("{model: 2026-99-99}", "month"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("{{a: 1}: 2}", "job.yaml"),
        ("\x00", "job.yaml"),
        ("", "it is empty; expected 'model', 'models', 'input'"),
        ("- a\n- b", "it is a list"),
        ("just words", "it is text"),
    ],
)
def test_text_that_is_no_job_is_refused_with_the_place(text: str, says: str) -> None:
    message = _refusal(text)
    assert says in message
    assert "'job.yaml'" in message


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("worker: {count: 2}", "job.yaml: 'worker' is no key of a job; did you mean 'workers'?"),
        ("workers: {gpu: 2}", "job.yaml: 'gpu' is no key of 'workers'; did you mean 'gpus'?"),
        (
            "zebra: 1",
            "job.yaml: 'zebra' is no key of a job; it has 'model', 'models', 'input', 'columns', 'output', 'workers', ",
        ),
        (
            "columns: {inputs: {x: {colum: a}}}",
            "job.yaml: 'colum' is no key of 'columns.inputs.x'; did you mean 'column'?",
        ),
        ("workers: {count: 0}", "job.yaml: 'workers.count' is 0; expected 'auto' or a number of at least 1"),
        ("workers: {count: lots}", "job.yaml: 'workers.count' is 'lots'; expected 'auto' or a whole number"),
        ("workers:", "job.yaml: 'workers' is empty; expected keys and values"),
        ("columns: {keep: [no]}", "job.yaml: 'columns.keep.0' is false; expected text, in quotes"),
        ("columns: {keep: {id: 1}}", "job.yaml: 'columns.keep.id' is 1; expected text, in quotes"),
        ("columns: {keep: [{}]}", "job.yaml: 'columns.keep.0' is an empty section; expected at least 1"),
        (
            "columns: {inputs: {x: {column: a, null: {fil: 1}}}}",
            "job.yaml: 'fil' is no key of 'columns.inputs.x.null'; did you mean 'fill'?",
        ),
        (
            'columns: {inputs: {example: {columns: [age, "f*"]}}}',
            "job.yaml: 'columns' is no key of 'columns.inputs.example'; 'example' is a key of a tensor, whose name goes"
            " before it: `inputs: {TENSOR: {example: ...}}`",
        ),
        (
            "columns: {inputs: {constant: false}}",
            "job.yaml: cannot use 'columns.inputs.constant': 'constant' is a key of a tensor, whose name goes before"
            " it: `inputs: {TENSOR: {constant: ...}}`",
        ),
        (
            "columns: {inputs: {example: {colum: a}}}",  # of a tensor that is called so
            "job.yaml: 'colum' is no key of 'columns.inputs.example'; did you mean 'column'?",
        ),
        ("batch_rows: 8", "job.yaml: 'batch_rows' is no key of a job; 'batch_rows' is a key of 'limits'"),
        (
            "inputs: {x: a}",
            "job.yaml: 'inputs' is no key of a job; did you mean 'input'? 'inputs' is a key of 'columns'",
        ),
        (
            "columns: {inputs: {x: {fill: 0}}}",
            "job.yaml: 'fill' is no key of 'columns.inputs.x'; 'fill' is a key of 'columns.inputs.TENSOR.null'",
        ),
        (
            "columns: {inputs: {x: {column: a, null: zero}}}",
            "job.yaml: 'columns.inputs.x.null' is 'zero'; expected 'error' or 'nan' or keys and values",
        ),
        (
            "columns: {inputs: {x: {column: a, constant: 1}}}",
            "job.yaml: cannot use 'columns.inputs.x': give exactly one of 'column', 'stack', 'example', 'constant'; "
            "found 'column' and 'constant'",
        ),
        (
            "limits: {shard_bytes: 3 apples}",
            "job.yaml: cannot use 'limits.shard_bytes': '3 apples' is no size; write a number of bytes,"
            " or a number with KiB, MiB, GiB or TiB",
        ),
    ],
)
def test_a_mistake_is_told_with_key_and_finding_and_choices(more: str, line: str) -> None:
    message = _refusal(SMALL + more)
    assert line in message
    assert message.count("\n") == (2 if "fil:" in more else 0), "one line for each problem, which 'fill' is missing too"


@pytest.mark.parametrize("name", ["columns", "column", "fill", "url", "example", "x", "limits", "batch_rows"])
@pytest.mark.parametrize("place", ["model", "columns", "limits", "columns.inputs.example", "columns.outputs.y"])
def test_a_suggestion_is_never_the_word_itself(name: str, place: str) -> None:
    job: dict[str, Any] = {"model": {"url": "m"}, "input": {"url": "i"}, "output": {"url": "o"}}
    section = job
    for key in place.split("."):
        section = section.setdefault(key, {})
    section[name] = [1]
    assert f"did you mean {name!r}" not in _refusal(json.dumps(job))


def test_a_missing_key_is_named() -> None:
    message = _refusal("input: {url: i}\nmodel: {}\noutput: {url: o}")
    assert message == "cannot use job file 'job.yaml': job.yaml: 'model.url' is missing; no job goes without it"


def test_all_problems_are_told_at_once_each_on_one_line() -> None:
    text = "model: {urls: m}\ninput: {url: []}\noutput: {url: o, format: xls}\nworkers: {count: -1}\nlimit: {}\n"
    first, *lines = _refusal(text).splitlines()
    assert first == "cannot use job file 'job.yaml': 6 problems"
    assert lines == [
        "  - job.yaml: 'model.url' is missing; no job goes without it",
        "  - job.yaml: 'urls' is no key of 'model'; did you mean 'url'?",
        "  - job.yaml: 'input.url' is an empty list; expected at least 1",
        "  - job.yaml: 'output.format' is 'xls'; expected 'parquet', 'arrow', 'tfrecord', 'csv' or 'jsonl'",
        "  - job.yaml: 'workers.count' is -1; expected 'auto' or a number of at least 1",
        "  - job.yaml: 'limit' is no key of a job; did you mean 'limits'? 'limit' is a key of 'input'",
    ]


@pytest.mark.parametrize(
    "more",
    [
        f"options: {{key: {CANARY}}}",
        f"options: {{key: [{CANARY}]}}",
        f"options: {CANARY}",
        f"option: {{key: {CANARY}}}",
        f"url: 's3://key:{CANARY}@bucket'",
    ],
)
def test_no_refusal_repeats_what_may_be_a_secret(more: str) -> None:
    assert CANARY not in _refusal("model: {url: m}\noutput: {url: o}\ninput:\n  format: parquet\n  " + more)


def test_overrides_replace_and_add_and_the_last_one_wins() -> None:
    changes = [
        "workers.count=3",
        "workers.count=2",
        "limits.shard_bytes=64MiB",
        "columns.keep=[a, b]",
        "model.signature='1'",
    ]
    job = load_job(JOB, "job.yaml", [*changes, "input.url=s3://x/k=v", "columns.inputs.text={stack: [a, b]}"])
    assert (job.workers.count, job.workers.gpus) == (2, 1)
    assert job.limits.shard_bytes == 64 * 2**20
    assert job.columns.keep == ("a", "b")
    assert job.model.signature == "1"
    assert job.input.url == ("s3://x/k=v",)
    assert job.columns.inputs["text"].stack == ("a", "b")
    assert load_job(SMALL, "job.yaml", ["workers.resources.tpu=1"]).workers.resources == {"tpu": 1}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("workers.cont=2", "--set: 'cont' is no key of 'workers'; did you mean 'count'?"),
        ("worker.count=2", "--set: 'worker' is no key of a job; did you mean 'workers'?"),
        ("workers.count=0", "--set: 'workers.count' is 0"),
        ("workers.count", "cannot use the override 'workers.count': no '=' is in it; expected KEY=VALUE, as 'workers"),
        (
            "=2",
            "cannot use the override '=...': a name before '=' is empty, or in quotes that do not end; expected KEY",
        ),
        (" = 2", "cannot use the override ' =...': a name before '=' is empty"),
        ("workers..count=2", "cannot use the override 'workers..count=...': a name before '=' is empty"),
        (
            'columns.inputs."x.cast=2',
            "cannot use the override 'columns.inputs.\"x.cast=...': a name before '=' is empty",
        ),
        ("model.url.x=2", "'model.url' is no section but text; override 'model.url' whole"),
        ("columns.keep=[a", "cannot read the value of override 'columns.keep'"),
    ],
)
def test_a_mistake_in_an_override_is_told_as_one(override: str, says: str) -> None:
    assert says in _refusal(JOB, [override])


@pytest.mark.parametrize("inputs", ["", "{age: age}", "{age: {column: age}}"])
def test_a_rule_of_an_input_can_be_set_however_the_input_is_written(inputs: str) -> None:
    job = load_job(f"{SMALL}columns: {{inputs: {inputs or '{}'}}}", "job.yaml", ["columns.inputs.age.cast=unsafe"])
    assert (job.columns.inputs["age"].column, job.columns.inputs["age"].cast) == ("age", "unsafe")
    assert load_job(SMALL, "job.yaml", ["columns.inputs.age.cast=unsafe"]) == job


def test_an_input_with_a_rule_and_no_column_is_fed_from_the_one_of_its_name() -> None:
    inputs = load_job(f"{SMALL}columns: {{inputs: {{age: {{null: nan}}, x: {{constant: 1}}}}}}", "j").columns.inputs
    assert (inputs["age"].column, inputs["x"].column) == ("age", None)


@pytest.mark.parametrize("name", ["user.age", "a=b", 'say "x"', "", "two words", '"', 'a.b=c"d'])
def test_a_tensor_of_any_name_can_be_reached_in_double_quotes(name: str) -> None:
    job = load_job(SMALL, "job.yaml", [dotted("columns", "inputs", name, "cast") + "=nearest"])
    assert {key: rule.cast for key, rule in job.columns.inputs.items()} == {name: "nearest"}
    assert dotted("columns", "inputs", "age", "cast") == "columns.inputs.age.cast"


def test_short_forms_are_opened_where_an_override_goes_into_them() -> None:
    text = SMALL + "columns: {inputs: {ids: {column: c, pad: max}}, outputs: [p, label]}"
    job = load_job(text, "job.yaml", ["columns.inputs.ids.pad.value=7", "columns.outputs.label.column=l"])
    pad, outputs = job.columns.inputs["ids"].pad, job.columns.outputs or {}
    assert pad is not None
    assert (pad.to, pad.value) == ("max", 7)
    assert {name: rule.column for name, rule in outputs.items()} == {"p": None, "label": "l"}
    job = load_job(SMALL + "columns: {outputs: {p: score}}", "job.yaml", ["columns.outputs.p.shape=[1]"])
    assert (job.columns.outputs or {})["p"] == OutputColumn(column="score", shape=(1,))


def test_a_mistake_in_a_quoted_name_is_told_as_it_is_to_be_written() -> None:
    says = _refusal(SMALL, ['columns.inputs."user.age".cast=x'])
    assert """--set: 'columns.inputs."user.age".cast' is 'x'; expected 'safe', 'nearest' or 'unsafe'""" in says


def test_one_list_of_kept_columns_has_one_fingerprint_however_it_is_written() -> None:
    ways = ["id", "[id]", "{a: id}", "[{a: id}]", "[all, -raw]"]
    made = [load_job(f"{SMALL}columns: {{keep: {way}}}", "job.yaml") for way in ways]
    assert [job.columns.keep for job in made] == [("id",), ("id",), ({"a": "id"},), ({"a": "id"},), ("all", "-raw")]
    assert [Job.model_validate(job_document(job)) for job in made] == made
    assert len({job.fingerprint for job in made}) == 3


def test_urls_stay_as_written_unless_a_base_is_given() -> None:
    text = "model: {url: m}\ninput: {url: [i, /abs/i, 's3://b/i']}\noutput: {url: o}\n"
    assert load_job(text, "job.yaml").input.url == ("i", "/abs/i", "s3://b/i")
    based = load_job(text, "job.yaml", base="s3://jobs/churn/")
    assert (based.model.url, based.output.url) == ("s3://jobs/churn/m", "s3://jobs/churn/o")
    assert based.input.url == ("s3://jobs/churn/i", "/abs/i", "s3://b/i")


def test_flags_alone_make_the_same_job_as_a_file() -> None:
    job = job_from(
        "s3://models/churn",
        ["s3://lake/users/dt=2026-11-01/*.parquet"],
        "s3://lake/scores/2026-11-01",
        "serving_default",
        maps=["features=f0,f1,f2", "text=comment"],
        outputs=["score=churn_probability"],
        keep=["user_id"],
        overrides=["model.version=latest", "input.format=parquet", "workers={count: 8, gpus: 1, cpus: 4}"],
    )
    assert job == load_job(JOB, "job.yaml")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('"a,b"', "a,b"),
        ('""', ""),
        ('"a,b",c', {"stack": ["a,b", "c"]}),
        ("a,b", {"stack": ["a", "b"]}),
        ('"a', '"a'),
        ('5" disk', '5" disk'),
    ],
)
def test_a_name_with_a_comma_is_quoted_in_a_flag(text: str, meant: object) -> None:
    told = load_job(SMALL, "job.yaml", [f"columns.inputs.x={json.dumps(meant)}"])
    assert job_from("m", ["i"], "o", maps=[f"x={text}"]) == told


def test_flags_may_be_as_few_as_three() -> None:
    assert job_from("m", ["i"], "o", None, [], [], [], []) == load_job(SMALL, "job.yaml")
    assert list(job_from("m", ["i"], "o", outputs=["a", "b=c"]).columns.outputs or ()) == ["a", "b"]
    more = job_from("m", ["i"], "o", outputs=["b=c", "..."]).columns
    assert [name for name, _ in more.written(["a", "b"])] == ["b", "a"]


@pytest.mark.parametrize(
    ("maps", "says"),
    [(["x"], "'x': a side is missing"), (["=a"], "expected 'TENSOR=COLUMN'"), (["x=a", "x=b"], "'x' is mapped twice")],
)
def test_a_mistake_in_a_mapping_flag_is_told_as_one(maps: list[str], says: str) -> None:
    with pytest.raises(JobError, match=says):
        job_from("m", ["i"], "o", None, maps)


@pytest.mark.parametrize("text", [SMALL, JOB])
def test_the_document_of_a_job_is_minimal_json_and_makes_the_same_job_again(text: str) -> None:
    job = load_job(text, "job.yaml")
    document = json.loads(json.dumps(job_document(job)))
    assert Job.model_validate(document) == job
    assert "limits" not in document
    assert load_job(json.dumps(document), "again.json") == job


@pytest.mark.parametrize("budget", ["0", "12", "0.5%", "'2 %'", "100%"])
def test_a_budget_is_a_number_or_a_share(budget: str) -> None:
    limits = load_job(SMALL, "job.yaml", [f"limits.max_rejected_rows={budget}"]).limits
    assert str(limits.max_rejected_rows) == budget.strip("'").replace(" ", "")


@pytest.mark.parametrize("budget", ["-1", "101%", "lots", "1.5", "yes"])
def test_what_is_no_budget_is_told_with_both_forms(budget: str) -> None:
    message = _refusal(SMALL, [f"limits.max_bad_files={budget}"])
    assert "cannot use 'limits.max_bad_files'" in message
    assert "write a whole number from 0, or a share such as '0.5%' ('100%': any)" in message


def test_what_only_decides_whether_a_job_ends_well_is_not_in_its_fingerprint() -> None:
    job = load_job(SMALL, "job.yaml")
    patient = ["limits.max_rejected_rows=5%", "limits.max_bad_files=1", "limits.stall_s=5.0", "limits.batch_rows=7"]
    assert load_job(SMALL, "job.yaml", patient).fingerprint == job.fingerprint
    for strict in ("on_bad_row=reject", "nonfinite=reject", "nan_output=reject", "max_row_bytes=1MiB"):
        assert load_job(SMALL, "job.yaml", [f"limits.{strict}"]).fingerprint != job.fingerprint
