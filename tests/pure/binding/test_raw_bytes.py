"""Bytes that are the values of a row, such as raw pixels, in tensors of a fixed shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import BindingError, DataError
from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.model.signature import Signature, TensorSpec

LAYOUTS = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(12), pa.dictionary(pa.int8(), pa.binary())]
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3)


def binding(dtype: str, shape: Any, field: pa.Field, **rule: Any) -> Binding:
    inputs = {"x": TensorSpec("x", dtype, shape, "x:0")}
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    columns = Columns.model_validate({"inputs": {"x": {"column": "c", **rule}}})
    return bind(columns, pa.schema([field]), Signature("s", "", inputs, outputs), "list")


def feed(values: pa.Array, dtype: str = "uint8", shape: Any = (None, 2, 2, 3), **rule: Any) -> Any:
    batch = pa.RecordBatch.from_arrays([values], names=["c"])
    return binding(dtype, shape, pa.field("c", values.type), **rule).feed(batch)["x"]


def column(arrow: pa.DataType, rows: list[bytes | None]) -> pa.Array:
    values = pa.array(rows, pa.binary())
    return values.dictionary_encode().cast(arrow) if pa.types.is_dictionary(arrow) else values.cast(arrow)


@pytest.mark.parametrize("arrow", LAYOUTS, ids=str)
def test_raw_pixels_of_every_layout_are_the_tensor(arrow: pa.DataType) -> None:
    values = column(arrow, [row.tobytes() for row in PIXELS]).slice(1, 2)
    fed = feed(values)
    assert fed.dtype == np.uint8
    assert np.array_equal(fed, PIXELS[1:3])
    assert np.array_equal(feed(values, "int8"), PIXELS[1:3].view(np.int8))
    if pa.types.is_binary_view(arrow):  # readers deliver none, and pyarrow takes nothing out of them
        return
    with_null = column(arrow, [PIXELS[0].tobytes(), None, PIXELS[2].tobytes()])
    assert np.array_equal(feed(with_null, null={"fill": 7})[1], np.full((2, 2, 3), 7))
    assert np.array_equal(feed(with_null, null={"fill": 7})[2], PIXELS[2])


@pytest.mark.parametrize("arrow", [pa.binary(), pa.large_binary(), pa.binary(12)], ids=str)
def test_raw_pixels_are_fed_by_address(arrow: pa.DataType) -> None:
    values = column(arrow, [row.tobytes() for row in PIXELS])
    fed = feed(values.slice(1))
    assert fed.__array_interface__["data"][0] == values.buffers()[-1].address + 12


def test_lists_of_images_are_a_dimension_more() -> None:
    values = pa.array([[row.tobytes() for row in PIXELS[:2]], [row.tobytes() for row in PIXELS[2:]]])
    assert np.array_equal(feed(values, shape=(None, 2, 2, 2, 3)), PIXELS.reshape(2, 2, 2, 2, 3))
    assert np.array_equal(feed(values, shape=(None, None, 2, 2, 3)), PIXELS.reshape(2, 2, 2, 2, 3))


def test_a_row_of_other_bytes_is_a_bad_row() -> None:
    with pytest.raises(DataError) as caught:
        feed(column(pa.binary(), [b"x" * 12, b"x" * 11, b"x" * 12]))
    assert (caught.value.facts["code"], caught.value.facts["row"]) == ("ROW_SHAPE", 1)
    assert "holds 11 bytes" in caught.value.message
    assert "expected 12 bytes" in caught.value.message


@pytest.mark.parametrize(
    ("arrow", "dtype", "shape", "said"),
    [
        (pa.binary(), "uint8", (None, None, None, 3), "bytes fill dimensions of fixed size only"),
        (pa.binary(), "uint8", None, "whose lengths say the shape"),
        (pa.binary(), "uint8", (None,), "expected one value per row"),
        (pa.binary(11), "uint8", (None, 2, 2, 3), "expected 12 bytes, or lists of 2"),
        (pa.string(), "uint8", (None, 2, 2, 3), "expected uint8"),
        (pa.binary(), "float32", (None, 3), "expected float"),
    ],
    ids=str,
)
def test_bytes_that_leave_a_doubt_are_refused(arrow: pa.DataType, dtype: str, shape: Any, said: str) -> None:
    with pytest.raises(BindingError) as caught:
        binding(dtype, shape, pa.field("c", arrow))
    assert said in caught.value.message


def test_bytes_that_are_said_to_be_other_values_are_refused() -> None:
    with pytest.raises(BindingError, match="with values of float32"):
        binding("uint8", (None, 2, 2, 3), pa.field("c", pa.binary(12), metadata={"tensor.dtype": "float32"}))
    binding("uint8", (None, 2, 2, 3), pa.field("c", pa.binary(12), metadata={"tensor.dtype": "uint8"}))
