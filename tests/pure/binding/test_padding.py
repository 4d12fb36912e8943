"""Lists in tensors of one width: how wide, what is filled in, what is too long, and outputs cut to their rows."""

from __future__ import annotations

import pickle
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
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Strings

INTS = pa.list_(pa.int32())


def bound(
    shape: Any, pad: Any, kind: pa.DataType = INTS, dtype: str = "int32", out: Any = (None,), **more: Any
) -> Binding:
    specs = {"x": TensorSpec("x", dtype, shape, "x:0")}
    outputs = {"y": TensorSpec("y", dtype, out, "y:0")}
    rules = Columns.model_validate({"inputs": {"x": {"column": "c", "pad": pad} | more.pop("rule", {})}, **more})
    binding = bind(rules, pa.schema([("c", kind)]), Signature("s", "", specs, outputs), "list")
    again: Binding = pickle.loads(pickle.dumps(binding))  # noqa: S301  # our own bytes
    return again


def fed(binding: Binding, rows: Any, kind: pa.DataType = INTS) -> Any:
    return binding.feed(pa.RecordBatch.from_pydict({"c": pa.array(rows, kind)}))["x"]


@pytest.mark.parametrize(
    ("pad", "width"),
    [
        ("max", 3),
        ({"to": "max", "value": -1}, 3),
        ({"multiple_of": 8}, 8),
        ({"to": {"multiple_of": 2}, "value": 7}, 4),
        ({"buckets": [2, 5, 9]}, 5),
    ],
)
def test_the_policy_says_how_wide_and_what_is_filled_in(pad: Any, width: int) -> None:
    value = pad.get("value", 0) if isinstance(pad, dict) else 0
    rows = [[1, 2, 3], [], [4]]
    np.testing.assert_array_equal(
        fed(bound((None, None), pad), rows), [row + [value] * (width - len(row)) for row in rows]
    )


def test_a_known_width_is_filled_up_too() -> None:
    binding = bound((None, 4), "max")
    np.testing.assert_array_equal(fed(binding, [[1], []]), [[1, 0, 0, 0], [0, 0, 0, 0]])
    with pytest.raises(DataError, match=r"row 1 of the batch holds a list of 5.*at most 4, the width of the tensor"):
        fed(binding, [[1], [1] * 5])
    assert binding.lengths(pa.table({"c": pa.array([[1]], INTS)})) is None  # all rows are as wide: nothing to sort by


def test_rows_of_empty_lists_are_one_wide() -> None:
    np.testing.assert_array_equal(fed(bound((None, None), "max"), [[], []]), [[0], [0]])


def test_a_list_longer_than_the_largest_bucket_is_an_error_of_its_row() -> None:
    with pytest.raises(
        DataError, match=r"row 2 of the batch holds a list of 4.*at most 3, the largest bucket"
    ) as caught:
        fed(bound((None, None), {"buckets": [2, 3]}), [[1], [1, 2], [1, 2, 3, 4]])
    assert (caught.value.facts["code"], caught.value.facts["row"]) == ("ROW_SHAPE", 2)
    kind = pa.list_(INTS)
    with pytest.raises(DataError, match="row 1 of the batch holds a list of 4"):
        fed(bound((None, None, None), {"buckets": [3]}, kind), [[[1], [1]], [[1], [1, 2, 3, 4]]], kind)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_values_stand_at_the_front_and_the_filler_behind(data: st.DataObject) -> None:
    kind, leaf, dtype, filler = data.draw(
        st.sampled_from(
            [
                (pa.int64(), st.integers(1, 9), "int64", 0),
                (pa.bool_(), st.just(True), "bool", False),
                (pa.string(), st.text("ab", min_size=1, max_size=3), "string", ""),
                (pa.list_(pa.float32(), 2), st.lists(st.integers(1, 9), min_size=2, max_size=2), "float32", [0, 0]),
            ]
        )
    )
    levels = data.draw(st.integers(1, 2))
    lists: Any = st.lists(leaf, max_size=3)
    kind, inner = pa.list_(kind), kind
    if levels == 2:
        kind, lists = pa.large_list(kind), st.lists(lists, max_size=3)
    rows = data.draw(st.lists(lists, min_size=1, max_size=4))
    tail = (2,) if pa.types.is_fixed_size_list(inner) else ()
    tensor = fed(bound((None,) * (1 + levels) + tail, "max", kind, dtype), rows, kind)
    widest = [max([1, *(len(row) for row in rows)])]
    if levels == 2:
        widest.append(max([1, *(len(one) for row in rows for one in row)]))
    expected = [_filled(row, widest, filler) for row in rows]
    if isinstance(tensor, Strings):
        found = np.array([value.decode() for value in tensor.values.to_pylist()], object).reshape(tensor.shape)
    else:
        found = tensor
    assert found.tolist() == expected


def _filled(row: list[Any], widest: list[int], filler: Any) -> list[Any]:
    if len(widest) == 1:
        return row + [filler] * (widest[0] - len(row))
    inner = [_filled(one, widest[1:], filler) for one in row]
    return inner + [_filled([], widest[1:], filler)] * (widest[0] - len(inner))


def test_null_rows_and_bad_values_are_errors_of_their_rows() -> None:
    with pytest.raises(DataError, match="row 1 of the batch holds null"):
        fed(bound((None, None), "max"), [[1], None])
    rule = {"null": {"fill": []}}
    np.testing.assert_array_equal(fed(bound((None, None), "max", rule=rule), [[1, 2], None]), [[1, 2], [0, 0]])
    with pytest.raises(DataError, match="row 1 of the batch holds a list with a null element"):
        fed(bound((None, None), "max"), [[1, 2], [None]])


def test_padding_is_counted_and_rows_are_known_by_the_width_they_need() -> None:
    binding = bound((None, None), {"multiple_of": 4})
    batch = pa.RecordBatch.from_pydict({"c": pa.array([[1], [1] * 5, []], INTS)})
    assert binding.padding(batch, binding.feed(batch)) == (24, 6)
    lengths = binding.lengths(batch)
    assert lengths is not None
    assert lengths.tolist() == [4, 8, 4]
    found = bound((None, None), {"buckets": [2, 9]}).lengths(pa.table({"c": batch.column(0)}))
    assert found is not None
    assert found.tolist() == [2, 9, 2]


@pytest.mark.parametrize(
    ("shape", "pad", "more", "text"),
    [
        ((None,), "max", {}, "found 'pad'; expected a tensor of more than one dimension, not int32[?]"),
        ((None, None), {"to": "max", "value": "a"}, {}, "in 'pad: value' found a constant of str; expected integers"),
        ((None, None), "max", {"kind": pa.int32()}, "found int32; expected lists, 1 level of them"),
        ((None, None), "max", {"outputs": {"y": {"cut": "z"}}}, "expected an input with 'pad'; there is 'x'"),
        ((None, None), "max", {"outputs": {"y": {"cut": "x"}}}, "expected an output of at least two known dimensions"),
        ((None, None), "max", {"out": (None, 7), "outputs": {"y": {"cut": "x"}}}, "its second dimension is always 7"),
    ],
)  # fmt: skip
def test_what_cannot_be_padded_or_cut_is_refused(shape: Any, pad: Any, more: Any, text: str) -> None:
    with pytest.raises(BindingError) as caught:
        bound(shape, pad, **more)
    assert text in caught.value.message


@pytest.mark.parametrize("dtype", ["int32", "string"])
@pytest.mark.parametrize("tail", [(), (2,)])
def test_an_output_that_follows_the_padded_width_is_cut_to_the_length_of_each_row(dtype: str, tail: Any) -> None:
    kind = pa.list_(pa.string() if dtype == "string" else pa.int32())
    binding = bound((None, None), {"multiple_of": 4}, kind, dtype, (None, None, *tail), outputs={"y": {"cut": "x"}})
    rows = [["a"], [], ["b", "c", "d"]] if dtype == "string" else [[1], [], [2, 3, 4]]
    batch = pa.RecordBatch.from_pydict({"c": pa.array(rows, kind)})
    out: Any = binding.feed(batch)["x"]
    if tail and isinstance(out, Strings):
        out = Strings(out.values.take(pa.array(np.repeat(np.arange(12), 2))), (3, 4, 2))
    elif tail:
        out = np.stack([out, out], axis=2)
    found = binding.fetch(batch, {"y": out}).column(0).to_pylist()
    assert found == [[[value] * 2 if tail else value for value in row] for row in rows]


def test_an_output_of_another_width_is_not_cut_by_guess() -> None:
    binding = bound((None, None), "max", out=(None, None), outputs={"y": {"cut": "x"}})
    batch = pa.RecordBatch.from_pydict({"c": pa.array([[1], [2, 3]], INTS)})
    with pytest.raises(DataError, match=r"it is \[2, 3\] for 2 rows padded to 2; leave out 'cut'") as caught:
        binding.fetch(batch, {"y": np.zeros((2, 3), np.int32)})
    assert caught.value.facts["code"] == "MODEL_OUTPUT"
