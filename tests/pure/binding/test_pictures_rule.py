"""Rules for pictures: what a job may say, and the agreement of a column of pictures with a tensor."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from jobs.errors import BindingError
from jobs.section.columns import Columns, Decode, InputColumn
from runner.binding.bind import bind
from runner.binding.blame import RowError
from runner.binding.picture.bound import decoded_bytes_per_row, pictures_of
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Strings

SCHEMA = pa.schema([("jpg", pa.binary()), ("large", pa.large_binary()), ("name", pa.string())])


def signature(shape: Any = (None, 224, 224, 3), dtype: str = "uint8") -> Signature:
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    return Signature("serve", "", {"x": TensorSpec("x", dtype, shape, "x:0")}, outputs)


def bound(of: Signature, column: str = "jpg", **decode: Any) -> Any:
    columns = Columns(inputs={"x": {"column": column, "decode": decode}})
    return bind(columns, SCHEMA, of, "list")


@pytest.mark.parametrize(
    ("rule", "story"),
    [
        ({"to": [224, 224]}, r"'to' is \[height, width, channels\], with 1, 3 or 4 channels; found \[224, 224\]"),
        ({"to": [224, 224, 2]}, "with 1, 3 or 4 channels"),
        ({"to": [0, 224, 3]}, "greater than or equal to 1"),
        ({"resize": "area", "antialias": True}, "'antialias: true' does nothing with 'resize: area'"),
        ({"dtype": "uint8", "scale": "after"}, "'scale' makes numbers from 0 to 1, which uint8 does not hold"),
        ({"resize": "lanczos3"}, "'bilinear', 'nearest', 'bicubic' or 'area'"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(rule: dict[str, Any], story: str) -> None:
    with pytest.raises(ValueError, match=story):
        Decode.model_validate(rule)


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ({"cast": "unsafe"}, "found 'cast' beside it"),
        ({"null": "nan", "pad": "max"}, "found 'null' and 'pad' beside it"),
        ({"as": "ragged"}, "found 'as' beside it"),
    ],
)
def test_a_rule_for_pictures_stands_alone(beside: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        InputColumn.model_validate({"column": "a", "decode": {}} | beside)
    with pytest.raises(ValueError, match="found 'stack' beside it"):
        InputColumn.model_validate({"stack": ["a", "b"], "decode": {}})


def test_what_a_rule_leaves_open_is_that_of_the_tensor() -> None:
    for column in ("jpg", "large"):
        (found,) = pictures_of(bound(signature(), column)).values()
        assert (found.to, found.dtype) == ((224, 224, 3), "uint8")
    binding = bound(signature((None, None, None, 3), "float32"), to=[100, 50, 3], scale="after")
    assert pictures_of(binding)["x"].dtype == "float32"
    assert decoded_bytes_per_row(binding) == 100 * 50 * 3 * 4
    assert bound(signature((8, 224, 224, 3))).batch_rows == 8
    assert pictures_of(bound(signature(None), to=[9, 9, 1]))["x"].to == (9, 9, 1)


@pytest.mark.parametrize(
    ("of", "rule", "story"),
    [
        (signature((None, None, None, 3)), {}, "the tensor leaves its shape open"),
        (signature((None, 224)), {}, r"rows of the shape \[224\], and pictures are \[height, width, channels\]"),
        (signature((None, 3, 224, 224)), {}, "found 'decode' for 224 channels; expected 1, 3 or 4"),
        (signature(dtype="int32"), {}, "pictures become dense tensors of uint8 or float32"),
        (signature(dtype="string"), {}, "pictures become dense tensors of uint8 or float32"),
        (signature(), {"column": "name"}, "found 'decode' for string; expected a column of binary"),
    ],
)
def test_a_tensor_or_a_column_that_does_not_fit_is_refused(of: Signature, rule: dict[str, Any], story: str) -> None:
    with pytest.raises(BindingError, match=story):
        bound(of, **rule)


def test_pictures_are_fed_as_they_are_and_a_null_is_a_bad_row() -> None:
    binding = bound(signature())
    batch = pa.RecordBatch.from_arrays([pa.array([b"one", b"two"], pa.binary())], ["jpg"])
    fed = binding.feed(batch)["x"]
    assert isinstance(fed, Strings)
    assert (fed.values.to_pylist(), fed.shape) == ([b"one", b"two"], (2,))
    batch = pa.RecordBatch.from_arrays([pa.array([b"one", None], pa.binary())], ["jpg"])
    with pytest.raises(RowError, match="expected a picture in every row") as caught:
        binding.feed(batch)
    assert (caught.value.facts["code"], caught.value.at.tolist()) == ("ROW_NULL", [1])


def test_what_decides_the_numbers_is_part_of_the_plan() -> None:
    documents = [bound(signature(), **rule).identity() for rule in ({}, {"antialias": True}, {"to": [224, 224, 3]})]
    assert documents[0] == documents[2] != documents[1]
