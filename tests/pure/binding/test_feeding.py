"""Columns -> tensors: layouts, casts with NumPy as the oracle, nulls, and every way in which a row can be bad."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import BindingError, DataError
from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.binding.blame import RowError
from runner.binding.source import Span
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Strings, bfloat16_values


def binding(dtype: str, shape: Any, arrow: pa.DataType, **rule: Any) -> Binding:
    """One input 'x' fed by column 'c', one output that does not matter."""
    inputs = {"x": TensorSpec("x", dtype, shape, "x:0")}
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    columns = Columns.model_validate({"inputs": {"x": {"column": "c", **rule}}})
    return bind(columns, pa.schema([("c", arrow)]), Signature("s", "", inputs, outputs), "list")


def feed(dtype: str, shape: Any, values: pa.Array, **rule: Any) -> Any:
    batch = pa.RecordBatch.from_arrays([values], names=["c"])
    return binding(dtype, shape, values.type, **rule).feed(batch)["x"]


def refused(dtype: str, shape: Any, arrow: pa.DataType, **rule: Any) -> str:
    with pytest.raises(BindingError) as caught:
        binding(dtype, shape, arrow, **rule)
    assert caught.value.facts["code"] == "COLUMN_TYPE"
    return caught.value.message


def bad_row(dtype: str, shape: Any, values: pa.Array, **rule: Any) -> tuple[str, int, int, str]:
    with pytest.raises(DataError) as caught:
        feed(dtype, shape, values, **rule)
    facts = caught.value.facts
    assert facts["column"] == "c"
    assert "input 'x'" in caught.value.message
    assert "column 'c'" in caught.value.message
    assert f"row {facts['row']} of the batch" in caught.value.message
    return facts["code"], facts["row"], facts["rows"], caught.value.message


def address(tensor: np.ndarray[Any, Any]) -> int:
    return int(tensor.__array_interface__["data"][0])


# -- no copy -----------------------------------------------------------------------------------------------------


def test_a_sliced_primitive_column_is_fed_by_address() -> None:
    values = pa.array(range(10), pa.int64()).slice(3, 4)
    tensor = feed("int64", (None,), values)
    assert tensor.tolist() == [3, 4, 5, 6]
    assert address(tensor) == values.buffers()[1].address + 3 * 8


@pytest.mark.parametrize("kind", ["fixed_size_list", "fixed_shape_tensor", "list", "large_list"])
def test_sliced_lists_are_fed_by_address(kind: str) -> None:
    flat = pa.array(np.arange(60), pa.float32())
    storage = pa.FixedSizeListArray.from_arrays(flat, 6)
    values = {
        "fixed_size_list": storage,
        "fixed_shape_tensor": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 3)), storage),
        "list": pa.ListArray.from_arrays(np.arange(0, 61, 6, dtype=np.int32), flat),
        "large_list": pa.LargeListArray.from_arrays(np.arange(0, 61, 6), flat),
    }[kind].slice(2, 5)
    tensor = feed("float32", (None, 2, 3), values)
    assert np.array_equal(tensor, np.arange(60, dtype=np.float32).reshape(10, 2, 3)[2:7])
    assert address(tensor) == flat.buffers()[1].address + 2 * 6 * 4
    assert tensor.flags.c_contiguous


def test_strings_keep_their_bytes_where_they_are() -> None:
    values = pa.array(["a", "bb", "ccc", "dddd"]).slice(1, 2)
    tensor = feed("string", (None,), values)
    assert isinstance(tensor, Strings)
    assert tensor.values.to_pylist() == [b"bb", b"ccc"]
    assert tensor.values.buffers()[2].address == values.buffers()[2].address


# -- layouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "arrow", "rows"),
    [
        ((None,), pa.int32(), [1, 2]),
        ((None, 1), pa.int32(), [1, 2]),
        ((None, 1, 1), pa.int32(), [1, 2]),
        (None, pa.int32(), [1, 2]),
        (None, pa.list_(pa.int32(), 2), [[1, 2], [3, 4]]),
        (None, pa.list_(pa.list_(pa.int32())), [[[1], [2]], [[3], [4]]]),
        ((None, 2), pa.list_(pa.int32()), [[1, 2], [3, 4]]),
        ((None, None), pa.list_(pa.int32()), [[1, 2], [3, 4]]),
        ((None, None), pa.large_list(pa.int32()), [[], []]),
        ((None, None), pa.list_view(pa.int32()), [[1, 2], [3, 4]]),
        ((None, None), pa.list_(pa.int32(), 3), [[1, 2, 3], [4, 5, 6]]),
        ((None, None, 2), pa.list_(pa.list_(pa.int32(), 2)), [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
        ((None, 2, 2), pa.list_(pa.int32()), [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ((None, 2, 2), pa.list_(pa.int32(), 4), [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ((None, 2, None), pa.large_list(pa.list_(pa.int32())), [[[1], [2]], [[3], [4]]]),
        ((None,), pa.dictionary(pa.int8(), pa.int32()), [7, 7]),
        ((None, 2), pa.list_(pa.dictionary(pa.int8(), pa.int32())), [[7, 8], [8, 7]]),
        ((None, 2), pa.list_(pa.field("element", pa.uint8(), nullable=False)), [[1, 2], [3, 4]]),
        ((None, 2), pa.list_(pa.field("element", pa.int32(), nullable=False), 2), [[1, 2], [3, 4]]),
        ((None, 1, 2), pa.large_list(pa.list_(pa.field("e", pa.int32(), nullable=False))), [[[1, 2]], [[3, 4]]]),
    ],
)
def test_every_layout_gives_the_same_rows(shape: Any, arrow: pa.DataType, rows: list[Any]) -> None:
    tensor = feed("int32", shape, pa.array(rows, arrow))
    expected = np.array(rows, np.int32)
    if shape is not None and None not in shape[1:]:
        expected = expected.reshape(len(rows), *shape[1:])
    assert tensor.shape == expected.shape
    assert np.array_equal(tensor, expected)


@pytest.mark.parametrize(
    "arrow",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(2),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_strings_of_every_layout_are_bytes(arrow: pa.DataType) -> None:
    tensor = feed("string", (None,), pa.array([b"ab", b"cd", b"ab"], pa.binary()).cast(pa.string()).cast(arrow))
    assert isinstance(tensor, Strings)
    assert tensor.values.type in (pa.binary(), pa.large_binary())
    assert (tensor.values.to_pylist(), tensor.shape) == ([b"ab", b"cd", b"ab"], (3,))


def test_a_string_that_is_no_utf_8_reaches_the_model_as_it_is() -> None:
    assert feed("string", (None,), pa.array([b"\xff\x00"], pa.binary())).values.to_pylist() == [b"\xff\x00"]


@pytest.mark.parametrize(
    ("shape", "arrow", "expected"),
    [
        ((None,), pa.list_(pa.float32(), 1), "expected one value per row"),
        ((None, 4), pa.float32(), "expected lists of 4"),
        ((None, 4), pa.list_(pa.float32(), 3), "expected lists of 4"),
        ((None, 2, 3), pa.list_(pa.float32(), 5), "expected lists of 2 of lists of 3, or flat lists of 6"),
        ((None, 3, 2), pa.fixed_shape_tensor(pa.float32(), (2, 3)), "expected lists of 3 of lists of 2, or flat"),
        ((None, None, 2), pa.list_(pa.float32()), "expected lists of lists of 2"),
        ((None, 2, 3), pa.fixed_shape_tensor(pa.float32(), (3, 2), permutation=[1, 0]), "without a permutation"),
    ],
    ids=str,
)
def test_a_layout_that_does_not_fit_is_refused_before_the_first_row(shape: Any, arrow: Any, expected: str) -> None:
    message = refused("float32", shape, arrow)
    assert expected in message
    assert f"found {arrow}" in message
    assert "input 'x' float32[?" in message
    assert "column 'c'" in message


def test_a_tensor_of_no_dimensions_is_one_value_per_row() -> None:
    storage = pa.array([[1], [2]], pa.list_(pa.int32(), 1))
    values = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), ()), storage)
    assert feed("int32", (None,), values).tolist() == [1, 2]


def test_a_permutation_that_changes_nothing_is_taken() -> None:
    arrow = pa.fixed_shape_tensor(pa.int32(), (1, 2), permutation=[0, 1])
    storage = pa.array([[1, 2]], pa.list_(pa.int32(), 2))
    assert feed("int32", (None, 1, 2), pa.ExtensionArray.from_storage(arrow, storage)).tolist() == [[[1, 2]]]


# -- casts -------------------------------------------------------------------------------------------------------

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]


@settings(deadline=None)
@given(source=st.sampled_from(INTEGERS), target=st.sampled_from(INTEGERS), data=st.data())
def test_integers_arrive_unchanged_or_not_at_all(source: str, target: str, data: st.DataObject) -> None:
    info = np.iinfo(source)
    edges = [edge for name in INTEGERS for edge in (np.iinfo(name).min, np.iinfo(name).max, np.iinfo(name).max + 1)]
    inside = st.sampled_from([int(edge) for edge in edges if info.min <= edge <= info.max])
    values = data.draw(st.lists(st.integers(int(info.min), int(info.max)) | inside, min_size=1, max_size=8))
    wrong = [row for row, value in enumerate(values) if not np.iinfo(target).min <= value <= np.iinfo(target).max]
    column = pa.array(values, getattr(pa, source)())
    if wrong:
        assert bad_row(target, (None,), column)[:3] == ("ROW_OVERFLOW", wrong[0], len(wrong))
    else:
        tensor = feed(target, (None,), column)
        assert tensor.dtype == target
        assert tensor.tolist() == values


@settings(deadline=None)
@given(source=st.sampled_from(FLOATS), target=st.sampled_from(FLOATS), data=st.data())
def test_floats_are_rounded_but_never_become_infinite(source: str, target: str, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(st.floats(width=64), min_size=1, max_size=8)))
    with np.errstate(all="ignore"):
        given_values = values.astype(source)
        expected = given_values.astype(target)
    wrong = np.flatnonzero(np.isinf(expected) & np.isfinite(given_values))
    column = pa.array(given_values)
    if len(wrong):
        assert bad_row(target, (None,), column)[:3] == ("ROW_OVERFLOW", wrong[0], len(wrong))
    else:
        assert np.array_equal(feed(target, (None,), column), expected, equal_nan=True)


@pytest.mark.parametrize(("target", "bits"), [("float16", 11), ("bfloat16", 8), ("float32", 24), ("float64", 53)])
@pytest.mark.parametrize("source", INTEGERS)
def test_integers_become_floats_where_each_of_them_is_exact(source: str, target: str, bits: int) -> None:
    arrow, limits = getattr(pa, source)(), np.iinfo(source)
    edges = [edge for edge in (-(2**bits), 2**bits, 1, 0) if limits.min <= edge <= limits.max]
    tensor = feed(target, (None,), pa.array(edges, arrow))
    assert (bfloat16_values(tensor) if target == "bfloat16" else tensor).tolist() == edges
    if limits.max > 2**bits:
        inexact = [1, 2**bits + 1, int(limits.max)]
        code, row, rows, message = bad_row(target, (None,), pa.array(inexact, arrow))
        assert (code, row, rows) == ("ROW_INEXACT", 1, 2)
        assert "exactly" in message
        assert "expected one that fits, or `columns.inputs.x.cast: nearest`, which rounds" in message


@settings(deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=8))
def test_bfloat16_takes_exact_values_only(values: list[float]) -> None:
    wide = np.array(values, np.float32)
    exact = (wide.view(np.uint32) & 0xFFFF == 0) | np.isnan(wide)
    if exact.all():
        fed = bfloat16_values(feed("bfloat16", (None,), pa.array(wide)))
        assert np.array_equal(fed, wide, equal_nan=True)
    else:
        code, row, rows, message = bad_row("bfloat16", (None,), pa.array(wide))
        assert (code, row, rows) == ("ROW_INEXACT", int(np.argmin(exact)), int((~exact).sum()))
        assert "exactly" in message


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_an_unsafe_bfloat16_is_the_nearest_one(value: float) -> None:
    wide = np.float32(value)
    fed = float(bfloat16_values(feed("bfloat16", (None,), pa.array([wide]), cast="unsafe"))[0])
    down = np.array([wide]).view(np.uint32) & np.uint32(0xFFFF0000)
    candidates = np.concatenate([down, down + np.uint32(0x10000)]).view(np.float32).astype(np.float64)
    finite = candidates[np.isfinite(candidates)]
    if np.isfinite(fed):
        assert abs(fed - float(wide)) == np.abs(finite - float(wide)).min()
    else:  # beyond the largest bfloat16
        assert abs(float(wide)) > 3.3895e38


def test_an_unsafe_bfloat16_halfway_is_even_and_no_nan_becomes_a_number() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32)
    fed = feed("bfloat16", (None,), pa.array(bits.view(np.float32)), cast="unsafe")
    assert [hex(value) for value in fed[:2]] == ["0x3f80", "0x3f82"]
    assert np.isnan(bfloat16_values(fed[2:])).all()


@pytest.mark.parametrize(
    ("source", "target", "values"),
    [
        (pa.int64(), "int32", [2**40, -1, 5]),
        (pa.float64(), "int32", [1.9, -1.9, 7.0]),
        (pa.int64(), "float32", [2**24 + 1, 3, 4]),
        (pa.float64(), "float32", [1e300, 0.1, -1e300]),
        (pa.bool_(), "float32", [True, False, True]),
        (pa.float32(), "bool", [0.0, 0.5, -1.0]),
        (pa.int32(), "complex64", [1, 2, 3]),
    ],
    ids=str,
)
def test_an_unsafe_cast_is_what_numpy_does(source: pa.DataType, target: str, values: list[Any]) -> None:
    with np.errstate(all="ignore"):
        expected = np.array(values, source.to_pandas_dtype()).astype(target)
    tensor = feed(target, (None,), pa.array(values, source), cast="unsafe")
    assert tensor.dtype == expected.dtype
    assert np.array_equal(tensor, expected)


@pytest.mark.parametrize(
    ("arrow", "dtype", "advice"),
    [
        (
            pa.float32(),
            "int32",
            "expected int32, a type that fits into it without loss, or `columns.inputs.x.cast: unsafe`",
        ),
        (pa.bool_(), "float32", "or `columns.inputs.x.cast: unsafe`"),
        (pa.int8(), "bool", "or `columns.inputs.x.cast: unsafe`"),
        (pa.string(), "float32", "expected float"),
        (pa.int64(), "string", "expected string or binary"),
        (
            pa.timestamp("us"),
            "int64",
            "say in which unit they become numbers: `columns.inputs.x.timestamp: us`",
        ),
        (pa.date32(), "int32", "`columns.inputs.x.timestamp: d`"),
        (pa.decimal128(9, 2), "bool", "convert the column to bool before the job"),
        (pa.month_day_nano_interval(), "int64", "convert the column to int64 before the job"),
        (
            pa.struct([("a", pa.int32()), ("b", pa.int32())]),
            "int32",
            "name the field that is meant, as COLUMN.FIELD (it has 'a', 'b')",
        ),
        (pa.map_(pa.string(), pa.int32()), "int32", "expected int32"),
        (pa.float32(), "complex64", "or `columns.inputs.x.cast: unsafe`"),
        (pa.struct([("re", pa.float32())]), "complex64", "expected struct<re: float not null, im: float not null>"),
    ],
    ids=str,
)
def test_types_that_never_become_the_tensor_are_refused(arrow: pa.DataType, dtype: str, advice: str) -> None:
    message = refused(dtype, (None,), arrow)
    assert advice in message
    assert f"found {arrow}" in message
    assert f"{dtype}[?]" in message


@pytest.mark.parametrize("arrow", [pa.string(), pa.timestamp("us"), pa.date32()], ids=str)
def test_even_an_unsafe_cast_makes_no_numbers_of_text_and_dates(arrow: pa.DataType) -> None:
    assert "unsafe" not in refused("float64", (None,), arrow, cast="unsafe")


def test_complex_numbers_come_from_structs_of_either_order_and_width() -> None:
    arrow = pa.struct([("im", pa.float64()), ("re", pa.float32())])
    values = pa.array([{"re": 9, "im": 9}, {"re": 1.5, "im": -2.0}], arrow).slice(1)
    assert feed("complex64", (None,), values).tolist() == [1.5 - 2j]
    assert bad_row("complex64", (None,), pa.array([{"re": 0, "im": 1e300}], arrow))[:3] == ("ROW_OVERFLOW", 0, 1)
    halves = pa.array([{"re": 0, "im": None}, {"re": None, "im": 0}, {"re": 0, "im": 0}, None], arrow)
    assert bad_row("complex64", (None,), halves)[:3] == ("ROW_NULL", 0, 3)


def test_quantised_tensors_are_fed_from_their_carrier() -> None:
    assert feed("qint8", (None,), pa.array([-1, 2], pa.int8())).dtype == np.int8
    assert feed("quint16", (None,), pa.array([1, 2], pa.int64())).dtype == np.uint16


# -- bad rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "arrow", "rows", "expected"),
    [
        ((None,), pa.int32(), [1, None, 3, None], ("ROW_NULL", 1, 2)),
        ((None, 2), pa.list_(pa.int32()), [[1, 2], None], ("ROW_NULL", 1, 1)),
        ((None, 2), pa.list_(pa.int32()), [[1, 2], [3, None], [None, None]], ("ROW_NULL", 1, 2)),
        ((None, 2), pa.list_(pa.int32(), 2), [[1, 2], [3, None]], ("ROW_NULL", 1, 1)),
        ((None, 2, 1), pa.list_(pa.list_(pa.int32())), [[[1], [2]], [[3], None]], ("ROW_NULL", 1, 1)),
        ((None, 2), pa.list_(pa.int32()), [[1, 2], [3], [], [4, 5]], ("ROW_SHAPE", 1, 2)),
        ((None, 2, 2), pa.list_(pa.int32()), [[1, 2, 3, 4], [1, 2]], ("ROW_SHAPE", 1, 1)),
        ((None, None), pa.list_(pa.int32()), [[1, 2], [3, 4], [5]], ("ROW_SHAPE", 2, 1)),
        ((None, 2, None), pa.list_(pa.list_(pa.int32())), [[[1], [2]], [[3], [4, 5]]], ("ROW_SHAPE", 1, 1)),
        ((None, 2), pa.list_(pa.int64()), [[1, 2], [3, 2**31]], ("ROW_OVERFLOW", 1, 1)),
    ],
    ids=str,
)
def test_a_bad_row_is_named_with_the_count_of_its_kind(shape: Any, arrow: Any, rows: Any, expected: Any) -> None:
    assert bad_row("int32", shape, pa.array(rows, arrow))[:3] == expected
    # The row counts within the batch, whatever the batch is a slice of.
    shifted = pa.concat_arrays([pa.array(rows[:1] * 3, arrow), pa.array(rows, arrow)]).slice(2)
    code, row, count = expected
    assert bad_row("int32", shape, shifted)[:3] == (code, row + 1, count)


def test_a_list_of_the_wrong_length_says_both_lengths() -> None:
    message = bad_row("int32", (None, 4), pa.array([[1, 2, 3, 4], [1, 2, 3]]))[3]
    assert "holds a list of 3" in message
    assert "expected lists of 4" in message
    open_length = bad_row("int32", (None, None), pa.array([[1], [1, 2]]))[3]
    assert "expected lists of 1, as in the first row: rows of several shapes share no call" in open_length
    assert "pad" not in open_length, "it would change what the model sees"


@pytest.mark.parametrize("rows", [[[[1], [2, 3]], [[1], [2]]], [[[1], [2]], [[], [1]]]], ids=str)
def test_a_row_whose_own_lists_differ_is_a_bad_row(rows: Any) -> None:
    code, row, count, message = bad_row("int32", (None, None, None), pa.array(rows))
    assert (code, count) == ("ROW_SHAPE", 1)
    assert len({len(one) for one in rows[row]}) == 2
    assert "holds lists of " in message
    assert "expected lists of one length in a row" in message


def test_a_null_row_may_bring_its_own_shape() -> None:
    values = pa.array([None, None], pa.list_(pa.list_(pa.int32())))
    assert feed("int32", (None, None, 2), values, null={"fill": [[1, 2], [3, 4]]}).tolist() == [[[1, 2], [3, 4]]] * 2
    values = pa.array([None, [[5, 6]]], pa.list_(pa.list_(pa.int32())))
    assert bad_row("int32", (None, None, 2), values, null={"fill": [[1, 2], [3, 4]]})[0] == "ROW_SHAPE"
    assert (
        "'null: {fill: [...]}'"
        in bad_row("int32", (None, None), pa.array([None], pa.list_(pa.int32())), null={"fill": 1})[3]
    )


def test_nan_and_infinity_pass() -> None:
    assert feed("float32", (None,), pa.array([np.nan, np.inf, -np.inf], pa.float64())).tolist()[1:] == [np.inf, -np.inf]


def test_what_lies_under_a_null_is_no_value() -> None:
    hidden = pa.Array.from_buffers(
        pa.int64(), 2, [pa.array([True, False]).buffers()[1], pa.py_buffer(np.array([1, 2**40]))]
    )
    assert feed("int32", (None,), hidden, null={"fill": 7}).tolist() == [1, 7]


# -- nulls by rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shape", "arrow", "rows", "null", "expected"),
    [
        ("int32", (None,), pa.int32(), [1, None], {"fill": 7}, [1, 7]),
        ("float32", (None,), pa.int8(), [None, 1], {"fill": 0.5}, [0.5, 1]),
        ("bool", (None,), pa.bool_(), [None, True], {"fill": False}, [False, True]),
        ("int32", (None, 2), pa.list_(pa.int32()), [[1, 2], None], {"fill": 7}, [[1, 2], [7, 7]]),
        ("int32", (None, 2), pa.list_(pa.int32(), 2), [None, [1, 2]], {"fill": [8, 9]}, [[8, 9], [1, 2]]),
        ("int32", (None, 2), pa.list_(pa.int32()), [None, None], {"fill": 7}, [[7, 7], [7, 7]]),
        ("string", (None,), pa.string(), ["a", None, "b"], {"fill": ""}, [b"a", b"", b"b"]),
        (
            "string",
            (None, 2),
            pa.list_(pa.string()),
            [None, ["a", "b"]],
            {"fill": ["x", "y"]},
            [b"x", b"y", b"a", b"b"],
        ),
        ("string", (None, 2), pa.list_(pa.string()), [["a", "b"], None], {"fill": "x"}, [b"a", b"b", b"x", b"x"]),
    ],
    ids=str,
)
def test_null_rows_are_filled(dtype: str, shape: Any, arrow: Any, rows: Any, null: Any, expected: Any) -> None:
    tensor = feed(dtype, shape, pa.array(rows, arrow), null=null)
    assert (tensor.values.to_pylist() if isinstance(tensor, Strings) else tensor.tolist()) == expected
    assert tensor.shape == (len(rows), *shape[1:])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "complex64"])
def test_null_rows_become_nan_in_every_type_that_has_one(dtype: str) -> None:
    value, arrow = (1.5, pa.float16())
    if dtype == "complex64":
        value, arrow = ({"re": 1.5, "im": 0.0}, pa.struct([("re", pa.float32()), ("im", pa.float32())]))
    tensor = feed(dtype, (None,), pa.array([value, None], arrow), null="nan")
    wide = bfloat16_values(tensor) if dtype == "bfloat16" else tensor
    assert wide[0] == 1.5
    assert np.isnan(wide[1])


def test_a_null_inside_a_list_stays_an_error() -> None:
    values = pa.array([[1.0, None], None], pa.list_(pa.float32()))
    code, row, _, message = bad_row("float32", (None, 2), values, null="nan")
    assert (code, row) == ("ROW_NULL", 0)
    assert "whole rows only" in message


def test_rows_are_counted_in_the_batch_even_behind_filled_ones() -> None:
    values = pa.array([None, 1, None, 2**40], pa.int64())
    assert bad_row("int32", (None,), values, null={"fill": 0})[:3] == ("ROW_OVERFLOW", 3, 1)


def test_a_fill_without_a_row_to_take_the_shape_from_is_an_error() -> None:
    values = pa.array([None, None], pa.list_(pa.int32()))
    assert bad_row("int32", (None, None), values, null={"fill": 0})[:3] == ("ROW_NULL", 0, 2)


def test_a_fill_that_is_no_value_of_the_tensor_is_refused() -> None:
    assert "as int32 has no NaN" in refused("int32", (None,), pa.int32(), null="nan")
    assert "in 'null: fill' found a constant of str; expected integers" in refused(
        "int32", (None,), pa.int32(), null={"fill": "x"}
    )
    assert "found a constant of shape [3]" in refused(
        "int32", (None, 2), pa.list_(pa.int32()), null={"fill": [1, 2, 3]}
    )


# -- places in a table -------------------------------------------------------------------------------------------


def spanned(dtype: str, shape: Any, values: pa.Array, span: Span, **rule: Any) -> Any:
    batch = pa.RecordBatch.from_arrays([values], names=["c"])
    return binding(dtype, shape, values.type, **rule).within({"x": span}).feed(batch)["x"]


@pytest.mark.parametrize(
    ("dtype", "values", "bad"),
    [
        ("int64", [0, 9, 10, 3, -1], [2, 4]),
        ("int32", [9, 0], []),
        ("uint8", [0, 200], [1]),
        ("uint64", [2**64 - 1, 9], [0]),
        ("float32", [9.9, -0.9, 10.0, -1.0, float("nan"), float("inf")], [2, 3, 4, 5]),
        ("int64", [], []),
    ],
)
def test_a_place_beyond_the_table_is_a_bad_row(dtype: str, values: list[Any], bad: list[int]) -> None:
    column, table = pa.array(values, getattr(pa, dtype)()), Span(0, 9, "words")
    if not bad:
        assert len(spanned(dtype, (None,), column, table)) == len(values)
        return
    with pytest.raises(RowError, match="expected 0 to 9: rows of 'words'") as caught:
        spanned(dtype, (None,), column, table)
    assert (caught.value.facts["code"], caught.value.at.tolist()) == ("ROW_RANGE", bad)
    assert f"found {column[bad[0]].as_py()};" in caught.value.stories[0]


def test_places_below_zero_are_bad_only_beyond_the_end_that_the_model_counts_from() -> None:
    with pytest.raises(RowError, match="-10 to 9: rows of 'words', -10 to -1 silently from its end") as caught:
        spanned("int64", (None,), pa.array([-10, -11, 9]), Span(-10, 9, "words"))
    assert caught.value.at.tolist() == [1]


def test_the_rows_of_lists_are_named_and_what_fills_them_up_is_not_looked_at() -> None:
    lists = pa.array([[1, 2], [], [3, 10, 11], [0]], pa.list_(pa.int64()))
    with pytest.raises(RowError, match="holds 10 ") as caught:
        spanned("int64", (None, None), lists, Span(0, 9, "words"), pad={"to": "max", "value": -1})
    assert caught.value.at.tolist() == [2]
    good = spanned(
        "int64", (None, None), lists.take(pa.array([0, 3])), Span(0, 9, "words"), pad={"to": "max", "value": -1}
    )
    assert good.tolist() == [[1, 2], [0, -1]]
    filled = spanned("int64", (None,), pa.array([1, None]), Span(0, 9, "words"), null={"fill": -1})
    assert filled.tolist() == [1, -1]


def test_an_input_is_known_to_be_within_its_span_only_if_what_fills_it_up_is_too() -> None:
    def known(fill: int) -> list[str]:
        bound = binding("int64", (None, None), pa.list_(pa.int64()), pad={"to": "max", "value": fill})
        return bound.within({"x": Span(0, 9, "words")}).spanned

    assert (known(9), known(-1)) == (["x"], [])
    text = binding("string", (None,), pa.string()).within({"x": Span(0, 9, "words")})
    assert text.spanned == [], "text is no place in a table"
    assert text.describe()[0]["note"] == ""
    assert (
        binding("int64", (None,), pa.int64()).within({"x": Span(0, 9, "w")}).describe()[0]["note"]
        == "0 to 9: rows of 'w'"
    )
