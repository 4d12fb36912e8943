"""Tensors -> columns: what each output becomes, that it reads back, and what is no output of rows."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.formats.registry import make_encoder
from jobs.errors import BindingError, DataError
from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.binding.blame import RowError
from runner.binding.cast.kind import NATURAL
from runner.binding.fetching import TODAY, Rules, output_field
from runner.model.signature import Signature, TensorSpec
from runner.preflight.begun import ruled
from runner.tensor import Strings

BATCH = pa.RecordBatch.from_pydict({"x": np.arange(3, dtype=np.float32)})


def spec(dtype: str, shape: Any, encoding: Any = "dense") -> TensorSpec:
    return TensorSpec("y", dtype, shape, "y:0", encoding)


def binding(
    output: TensorSpec,
    encoding: str = "fixed_shape_tensor",
    outputs: Any = None,
    rows: Any = None,
    rules: Rules = TODAY,
) -> Binding:
    inputs = {"x": TensorSpec("x", "float32", (rows,), "x:0")}
    columns = Columns.model_validate({"outputs": outputs})
    return bind(columns, BATCH.schema, Signature("s", "", inputs, {"y": output}), encoding, rules=rules)


def fetched(
    output: TensorSpec,
    tensor: Any,
    encoding: str = "fixed_shape_tensor",
    outputs: Any = None,
    rules: Rules = TODAY,
) -> pa.Array:
    column = binding(output, encoding, outputs, rules=rules).fetch(BATCH, {"y": tensor}).column("y")
    column.validate(full=True)
    return column


def refused(output: TensorSpec, outputs: Any = None, rows: Any = None) -> str:
    with pytest.raises(BindingError) as caught:
        binding(output, outputs=outputs, rows=rows)
    return caught.value.message


ELEMENT = pa.field("item", pa.float32(), nullable=False)


@pytest.mark.parametrize(
    ("dtype", "shape", "encoding", "expected"),
    [
        ("float32", (None,), "fixed_shape_tensor", pa.float32()),
        ("float32", (None,), "binary", pa.float32()),
        ("bfloat16", (None,), "list", pa.float32()),
        ("float16", (None,), "list", pa.float16()),
        ("float8_e4m3fn", (None,), "list", pa.float32()),
        ("float4_e2m1fn", (None,), "list", pa.float32()),
        ("int4", (None,), "list", pa.int8()),
        ("uint2", (None,), "list", pa.uint8()),
        ("qint32", (None,), "list", pa.int32()),
        ("bool", (None,), "list", pa.bool_()),
        ("string", (None,), "fixed_shape_tensor", pa.string()),
        ("float32", (None, 1), "fixed_shape_tensor", pa.float32()),
        ("float32", (None, 1), "list", pa.float32()),
        ("int64", (None, 1, 1), "binary", pa.int64()),
        ("bool", (None, 1), "fixed_shape_tensor", pa.bool_()),
        ("string", (None, 1), "list", pa.string()),
        ("complex64", (None, 1), "list", NATURAL["complex64"]),
        ("float32", (None, 1, 2), "fixed_shape_tensor", pa.fixed_shape_tensor(pa.float32(), (1, 2))),
        ("float32", (None, None, 1), "list", pa.list_(pa.field("item", pa.list_(ELEMENT, 1), nullable=False))),
        ("float32", (None, 4), "fixed_shape_tensor", pa.fixed_shape_tensor(pa.float32(), (4,))),
        ("float32", (None, 2, 3), "fixed_shape_tensor", pa.fixed_shape_tensor(pa.float32(), (2, 3))),
        ("float32", (None, 4), "list", pa.list_(ELEMENT, 4)),
        ("float32", (None, 2, 4), "list", pa.list_(pa.field("item", pa.list_(ELEMENT, 4), nullable=False), 2)),
        ("float32", (None, None), "fixed_shape_tensor", pa.list_(ELEMENT)),
        ("float32", (None, None, 4), "list", pa.list_(pa.field("item", pa.list_(ELEMENT, 4), nullable=False))),
        ("float32", (None, 2, 3), "binary", pa.binary(24)),
        ("bool", (None, 5), "binary", pa.binary(5)),
        ("bfloat16", (None, 2), "binary", pa.binary(8)),
        ("int64", (None, None, 3), "binary", pa.binary()),
        ("string", (None, 2), "binary", pa.list_(pa.field("item", pa.string(), nullable=False), 2)),
        ("bool", (None, 2), "fixed_shape_tensor", pa.list_(pa.field("item", pa.bool_(), nullable=False), 2)),
    ],
    ids=str,
)
def test_the_column_of_an_output(dtype: str, shape: Any, encoding: str, expected: pa.DataType) -> None:
    field = output_field(spec(dtype, shape), encoding)
    assert field is not None
    assert (field.name, field.type, field.nullable) == ("y", expected, False)
    assert field.type.equals(expected)


@pytest.mark.parametrize("encoding", ["fixed_shape_tensor", "list", "binary"])
@pytest.mark.parametrize("shape", [(None, 1), (None, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "complex128", "bfloat16", "string"])
def test_a_row_of_exactly_one_value_becomes_that_value(dtype: str, shape: Any, encoding: str) -> None:
    flat: Any = {
        "bool": np.array([True, False, True]),
        "bfloat16": (np.array([0, 1, 2], np.float32).view(np.uint32) >> 16).astype(np.uint16),
        "string": Strings(pa.array([b"a", b"", "ä".encode()]), (3,)),
    }.get(dtype)
    flat = np.arange(3).astype(dtype) if flat is None else flat
    tensor = replace(flat, shape=(3, *shape[1:])) if dtype == "string" else flat.reshape(3, *shape[1:])
    column = fetched(spec(dtype, shape), tensor, encoding)
    assert column.equals(fetched(spec(dtype, (None,)), flat, encoding))
    bound = binding(spec(dtype, shape), encoding)
    assert bound.identity()["outputs"]["y"]["row"] == [], "the plan says what is written"
    assert bound.outputs[0].row == shape[1:], "and people are shown what the signature says"


def test_a_number_of_one_value_rows_is_written_without_a_copy() -> None:
    tensor = np.arange(3, dtype=np.float64).reshape(3, 1)
    column = fetched(spec("float64", (None, 1)), tensor)
    assert column.type == pa.float64()
    assert column.buffers()[1].address == tensor.__array_interface__["data"][0]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("fixed_shape_tensor", pa.fixed_shape_tensor(pa.float32(), (1,))),
        ("list", pa.list_(ELEMENT, 1)),
        ("binary", pa.binary(4)),
    ],
)
def test_a_shape_of_the_job_keeps_the_tensor_of_one_value(encoding: str, expected: pa.DataType) -> None:
    for outputs in ({"y": {"shape": [1]}}, {"y": {"of": "y", "shape": [1]}}):
        column = fetched(spec("float32", (None, 1)), np.ones((3, 1), np.float32), encoding, outputs)
        assert column.type == expected
        assert len(column) == 3


def test_the_empty_shape_says_that_each_row_is_one_value() -> None:
    rule = {"y": {"shape": []}}
    for shape, tensor in (
        (None, np.ones((3, 1))),
        (None, np.ones((3, 1, 1))),
        (None, np.ones(3)),
        ((None, None), np.ones((3, 1))),
        ((None, 1), np.ones((3, 1))),
        ((None,), np.ones(3)),
    ):
        assert fetched(spec("float64", shape), tensor, outputs=rule).to_pylist() == [1, 1, 1]
    with pytest.raises(DataError, match="it is float64\\[3, 2\\]; the signature promised") as caught:
        fetched(spec("float64", (None, None)), np.ones((3, 2)), outputs=rule)
    assert caught.value.facts["code"] == "MODEL_OUTPUT"
    assert "found 'shape: []' in the job; the signature says float64[?, 2]" in refused(
        spec("float64", (None, 2)), outputs=rule
    )


def test_by_the_rules_of_older_versions_the_tensor_and_the_bytes_stay() -> None:
    first = Rules(text=False, single=False)
    kept = fetched(spec("float32", (None, 1)), np.ones((3, 1), np.float32), rules=first)
    assert kept.type == pa.fixed_shape_tensor(pa.float32(), (1,))
    said = fetched(spec("string", (None,)), Strings(pa.array([b"a", b"\xff", b""]), (3,)), rules=first)
    assert said.type == pa.binary()
    assert [ruled(binding(spec("float32", (None, 1)), rules=rules)) for rules in (Rules(), first)] == [True, False]
    assert not ruled(binding(spec("float32", (None, 4))))


def test_bytes_say_what_they_hold() -> None:
    field = output_field(spec("bfloat16", (None, None, 3)), "binary")
    assert field is not None
    assert field.metadata == {b"tensor.dtype": b"float32", b"tensor.shape": b"[null, 3]"}


@pytest.mark.parametrize(
    "output",
    [spec("resource", (None,)), spec("float32", None), spec("float32", ()), spec("float32", (None, None), "sparse")],
    ids=str,
)
def test_what_cannot_become_a_column_has_no_field(output: TensorSpec) -> None:
    assert output_field(output) is None


def test_a_tensor_of_unknown_rank_becomes_what_the_caller_says() -> None:
    field = output_field(spec("float32", None), "list", row_shape=(4,), name="z")
    assert field == pa.field("z", pa.list_(ELEMENT, 4), nullable=False)


@pytest.mark.parametrize("encoding", ["fixed_shape_tensor", "list", "binary"])
@pytest.mark.parametrize("shape", [(None,), (None, 4), (None, 2, 2), (None, None), (None, None, 2)], ids=str)
def test_numbers_are_written_without_a_copy(encoding: str, shape: Any) -> None:
    dimensions = (3, *[size or 2 for size in shape[1:]])
    tensor = np.arange(np.prod(dimensions), dtype=np.float64).reshape(dimensions)
    column = fetched(spec("float64", shape), tensor, encoding)
    buffers = [buffer for buffer in column.buffers() if buffer is not None]
    assert buffers[-1].address == tensor.__array_interface__["data"][0]
    values = [np.frombuffer(value) for value in column.to_pylist()] if "binary" in str(column.type) else None
    flat = np.concatenate(values) if values else np.array(column.to_pylist()).ravel()
    assert np.array_equal(flat, tensor.ravel())


@pytest.mark.parametrize("encoding", ["fixed_shape_tensor", "list", "binary"])
@pytest.mark.parametrize("shape", [(None,), (None, 2), (None, 1, 2), (None, None)], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bool", "complex128", "bfloat16", "string", "uint64"])
def test_every_column_reads_back_from_parquet(dtype: str, shape: Any, encoding: str) -> None:
    dimensions = (3, *[size or 2 for size in shape[1:]])
    count = int(np.prod(dimensions))
    numbers = np.arange(count).reshape(dimensions)
    tensor: Any = {
        "bool": numbers % 2 == 0,
        "complex128": numbers + 2j * numbers,
        "bfloat16": (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16),
        "string": Strings(pa.array([b"%d" % at for at in range(count)]), dimensions),
    }.get(dtype)
    tensor = numbers.astype(dtype) if tensor is None else tensor
    bound = binding(spec(dtype, shape), encoding)
    rows = bound.fetch(BATCH, {"y": tensor})
    file = io.BytesIO()
    pq.write_table(pa.Table.from_batches([rows]), file)
    back = pq.read_table(io.BytesIO(file.getvalue()))
    assert back.column("y").to_pylist() == rows.column("y").to_pylist()
    assert back.schema.field("y").type == bound.output_schema.field("y").type


def test_strings_of_wide_offsets_and_slices_become_plain_bytes() -> None:
    values = pa.array([b"skipped", b"a", b"\xff", b""], pa.large_binary()).slice(1)
    column = fetched(spec("string", (None,)), Strings(values, (3,)), rules=Rules(text=False))
    assert column.type == pa.binary()
    assert column.to_pylist() == [b"a", b"\xff", b""]


@pytest.mark.parametrize(("outputs", "rules"), [(None, Rules()), ({"y": {"decode": "utf-8"}}, Rules(text=False))])
def test_strings_are_text_and_the_rows_that_are_none_are_named(outputs: Any, rules: Rules) -> None:
    good = Strings(pa.array(["ä", "b", "c", "d", "e", "f"]).cast(pa.binary()), (3, 2))
    column = fetched(spec("string", (None, 2)), good, outputs=outputs, rules=rules)
    assert column.to_pylist() == [["ä", "b"], ["c", "d"], ["e", "f"]]
    bad = Strings(pa.array([b"a", b"b", b"c", b"\xff", b"\xfe", b"\xfd"]), (3, 2))
    with pytest.raises(RowError, match="output 'y' to column 'y': row 1 of the batch is no UTF-8 \\(2 such rows") as e:
        fetched(spec("string", (None, 2)), bad, outputs=outputs, rules=rules)
    assert e.value.facts == {"code": "ROW_UTF8", "column": "y", "row": 1, "rows": 2}
    assert e.value.at.tolist() == [1, 2]
    assert "`output: {strings: binary}`" in e.value.message
    assert all("`output: {strings: binary}`" in story for story in e.value.stories)


@pytest.mark.parametrize(
    ("tensor", "code", "text"),
    [
        (np.zeros((2, 4), np.float32), "MODEL_BATCH", "it has 2 rows for 3 rows fed"),
        (np.zeros((4, 4), np.float32), "MODEL_BATCH", "it has 4 rows for 3 rows fed"),
        (np.float32(1).reshape(()), "MODEL_BATCH", "it is a scalar for 3 rows fed"),
        (np.zeros((3, 5), np.float32), "MODEL_OUTPUT", "it is float32[3, 5]; the signature promised float32[?, 4]"),
        (np.zeros((3,), np.float32), "MODEL_OUTPUT", "it is float32[3]; the signature promised float32[?, 4]"),
        (np.zeros((3, 4), np.float64), "MODEL_OUTPUT", "it is float64[3, 4]; the signature promised float32[?, 4]"),
        (Strings(pa.array([b""] * 3), (3,)), "MODEL_OUTPUT", "it is string[3]; the signature promised float32[?, 4]"),
    ],
    ids=str,
)
def test_a_tensor_that_is_not_what_was_promised_is_an_error(tensor: Any, code: str, text: str) -> None:
    with pytest.raises(DataError) as caught:
        fetched(spec("float32", (None, 4)), tensor)
    assert caught.value.facts["code"] == code
    assert f"could not write output 'y' to column 'y': {text}" in caught.value.message


def test_an_output_that_does_not_come_is_an_error() -> None:
    with pytest.raises(DataError, match="no output 'y'") as caught:
        binding(spec("float32", (None,))).fetch(BATCH, {})
    assert caught.value.facts["code"] == "MODEL_OUTPUT"


def test_lists_beyond_what_arrow_counts_are_refused_before_memory_is_filled() -> None:
    huge = np.broadcast_to(np.zeros(1, np.int8), (3, 2**30))
    target = binding(spec("int8", (None, None))).outputs[0]
    with pytest.raises(DataError, match=r"passes 2 GiB or 2\*\*31 values; .* lower 'limits: batch_rows'"):
        target._offsets(*huge.shape)


@pytest.mark.parametrize(
    ("output", "rows", "text"),
    [
        (spec("float32", ()), None, "output 'y' float32[]: found a scalar; expected one row for each row of the input"),
        (spec("float32", (1,)), None, "found a first dimension of 1 where any number of rows are fed"),
        (spec("float32", (4, 2)), 8, "found a first dimension of 4 where 8 rows are fed"),
        (spec("resource", (None,)), None, "output 'y' resource[?]: found dtype resource; expected numbers"),
        (
            spec("float32", (None, None), "composite"),
            None,
            "found a composite output; dense, ragged and sparse ones can",
        ),
        (spec("float32", None), None, "give the shape of one row in the job: `outputs: {y: {shape: [...]}}`"),
    ],
    ids=str,
)
def test_outputs_that_are_no_rows_are_refused(output: TensorSpec, rows: Any, text: str) -> None:
    implicit, explicit = refused(output, rows=rows), refused(output, outputs=["y"], rows=rows)
    assert text in implicit
    assert text in explicit
    assert "to leave it out, name the outputs to write in the job: `outputs: [NAME, NAME]`" in implicit
    assert "leave it out" not in explicit


def test_a_shape_of_the_job_settles_what_the_signature_leaves_open_and_nothing_else() -> None:
    rule = {"y": {"shape": [4]}}
    assert binding(spec("float32", None), outputs=rule).output_schema.field("y").type.shape == [4]
    assert binding(spec("float32", (None, None)), outputs=rule).output_schema.field("y").type.shape == [4]
    message = refused(spec("float32", (None, 5)), outputs=rule)
    assert "found 'shape: [4]' in the job; the signature says float32[?, 5]" in message


def test_only_strings_are_decoded() -> None:
    message = refused(spec("float32", (None,)), outputs={"y": {"decode": "utf-8"}})
    assert "only strings can be decoded, not float32" in message


@pytest.mark.parametrize("encoding", ["fixed_shape_tensor", "list", "binary"])
@pytest.mark.parametrize(("shape", "found"), [((None,), (0,)), ((None, 2), (0, 2)), ((2, None), (2, 0))], ids=str)
def test_a_dimension_that_turns_out_to_be_0_is_written_and_read(encoding: str, shape: Any, found: Any) -> None:
    column = fetched(spec("float32", (None, *shape)), np.zeros((3, *found), np.float32), encoding)
    parquet = make_encoder("parquet")
    back = parquet.decoded(parquet.encoded(pa.table({"z": column})), pa.schema([]))["z"]
    assert back.equals(pa.chunked_array([column]))
    assert back.to_pylist() == [b"" if encoding == "binary" else np.zeros(found).tolist()] * 3


def test_bytes_beside_a_dimension_of_0_would_not_tell_an_unknown_one() -> None:
    field = output_field(spec("float32", (None, None, 0)), "binary")
    assert field is not None
    assert field.type == pa.list_(pa.field("item", pa.list_(ELEMENT, 0), nullable=False))
