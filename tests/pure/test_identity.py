"""What makes two jobs the same job, in the words of a plan: nothing new may appear in the plans of older versions."""

from __future__ import annotations

from dataclasses import replace

from jobs.identity import Identity, InputIdentity, ModelIdentity, output_format, skipped_files
from jobs.section.limits import Limits
from jobs.section.output import Output

MODEL = ModelIdentity("d1", None, ("serve",), "serving_default", "session", False, None, ())
OUTPUT = Output(url="/out", format="parquet")


def test_a_plain_job_has_exactly_the_keys_of_the_first_plans() -> None:
    plain = Identity(MODEL, {"keep": ["id"]}, InputIdentity("parquet"), OUTPUT, Limits())
    assert plain.document() == {
        "model": {
            "digest": "d1",
            "version": None,
            "tags": ["serve"],
            "signature": "serving_default",
            "engine": "session",
            "xla": False,
            "mixed_precision": None,
            "op_libraries": [],
        },
        "columns": {"keep": ["id"]},
        "input": {"format": "parquet"},
        "output": {"format": "parquet", "compression": OUTPUT.compression, "tensor_encoding": OUTPUT.tensor_encoding},
        "limits": {"shard_bytes": 128 * 2**20, "shard_rows": Limits().shard_rows, "on_bad_row": "fail"},
    }


def test_what_is_not_at_its_default_is_named() -> None:
    trusted = ModelIdentity("d1", 7, ("serve",), "s", "eager", True, "bfloat16", ("ab",), ("ReadFile",))
    given = InputIdentity("parquet", only_rejects="p1", skipped={"s3://in/a": "FILE_MAGIC"})
    made = Identity(trusted, {}, given, OUTPUT, Limits(on_bad_row="reject", nan_output="reject")).document()
    assert made["model"]["trusted"] == ["ReadFile"]
    assert made["input"] == {"format": "parquet", "only_rejects": "p1", "skipped": {"s3://in/a": "FILE_MAGIC"}}
    assert (made["limits"]["on_bad_row"], made["limits"]["nan_output"]) == ("reject", "reject")
    assert "nonfinite" not in made["limits"]
    batched = replace(MODEL, batch=8)
    assert batched.document() == MODEL.document() | {"batch": 8}
    package = {"name": "ops", "version": "1.0", "libraries": {"ops/a.so": "ab"}}
    assert replace(MODEL, op_packages=[package]).document() == MODEL.document() | {"op_packages": [package]}


def test_that_nonfinite_values_pass_makes_no_other_plan_where_it_is_said() -> None:
    made = [
        Identity(MODEL, {}, InputIdentity("parquet"), OUTPUT, Limits(nonfinite=said)).document()["limits"]
        for said in (None, "pass", "reject")
    ]
    assert "nonfinite" not in made[0]
    assert made[0] == made[1]
    assert made[2] == made[0] | {"nonfinite": "reject"}


def test_where_bits_count_the_size_of_a_batch_is_named_and_else_it_is_not() -> None:
    given = InputIdentity("parquet")
    kept = Identity(MODEL, {}, given, OUTPUT, Limits(reproducible=True, batch_rows=8192)).document()["limits"]
    assert (kept["reproducible"], kept["batch_rows"]) == (True, 8192)
    usual = Identity(MODEL, {}, given, OUTPUT, Limits(batch_rows=8192)).document()["limits"]
    assert not usual.keys() & {"reproducible", "batch_rows"}


def test_a_plan_is_asked_by_name_for_what_it_keeps() -> None:
    made = Identity(MODEL, {}, InputIdentity("parquet", skipped={"a": "FILE_MAGIC"}), OUTPUT, Limits()).document()
    assert (skipped_files(made), output_format(made)) == ({"a": "FILE_MAGIC"}, "parquet")
    assert (skipped_files({}), output_format({})) == ({}, "")
