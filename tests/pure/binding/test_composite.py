"""Ragged and sparse tensors: which inputs are one, how lists fill them, and how they become lists again."""

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
from runner.binding.bind import bind, wanted_columns
from runner.binding.binding import Binding
from runner.binding.fetching import Rules
from runner.model.signature import Signature, TensorSpec, dense
from runner.tensor import Strings


def tensor(name: str, dtype: str = "float32", shape: Any = (None,), **more: Any) -> TensorSpec:
    return TensorSpec(name, dtype, shape, f"{name}:0", **more)


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec] | None = None) -> Signature:
    outputs = [tensor("y")] if outputs is None else outputs
    return Signature("s", "", {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})


def ragged_parts(name: str, dtype: str, levels: int, item: tuple[int, ...], splits: str = "int64") -> list[TensorSpec]:
    return [tensor(name, dtype, (None, *item)), *(tensor(f"{name}_{n + 1}", splits) for n in range(levels))]


def sparse_parts(name: str, dtype: str, rank: int | None = 2) -> list[TensorSpec]:
    return [
        tensor(name, "int64", (None, rank)),
        tensor(f"{name}_1", dtype),
        tensor(f"{name}_2", "int64", (rank,)),
    ]


def whole(name: str, encoding: Any, parts: list[TensorSpec], shape: Any, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape, "", encoding, tuple(parts))


def bound(model: Signature, schema: Any, **columns: Any) -> Binding:
    rules = Rules(text=False)  # lists of bytes go there and back
    binding = bind(Columns.model_validate(columns), pa.schema(schema), model, "fixed_shape_tensor", rules=rules)
    again: Binding = pickle.loads(pickle.dumps(binding))  # noqa: S301  # our own bytes
    return again


def refused(model: Signature, schema: Any, **columns: Any) -> str:
    with pytest.raises(BindingError) as caught:
        bound(model, schema, **columns)
    return caught.value.message


INTS = pa.list_(pa.int64())
FLOATS = pa.list_(pa.float32())


def batch(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


# -- there and back ----------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_lists_that_go_through_a_ragged_or_sparse_tensor_come_back(data: st.DataObject) -> None:
    levels = data.draw(st.integers(1, 3), "levels")
    kind, leaf, dtype = data.draw(
        st.sampled_from(
            [
                (pa.float32(), st.floats(-9, 9, width=32), "float32"),
                (pa.int64(), st.integers(-9, 9), "int64"),
                (pa.binary(), st.binary(max_size=3), "string"),
            ]
        ),
        "values",
    )
    lists: Any = leaf
    for _ in range(levels):
        large = data.draw(st.booleans(), "large")
        kind, lists = (pa.large_list if large else pa.list_)(kind), st.lists(lists, max_size=3)
    rows = data.draw(st.lists(lists, min_size=1, max_size=6), "rows")
    offset, extra = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
    column = pa.array([*[[]] * offset, *rows, *[[]] * extra], kind).slice(offset, len(rows))
    encoding: Any = data.draw(st.sampled_from(["ragged", "sparse"]), "encoding")
    fixed = data.draw(st.sampled_from([0, 6]), "fixed batch")

    rank = levels + 1
    given = ragged_parts("x", dtype, levels, ()) if encoding == "ragged" else sparse_parts("x", dtype, rank)
    model = signature(
        [*given, *([tensor("z", shape=(6,))] if fixed else [])],
        [whole("y", encoding, given, (None,) * rank, dtype)],
    )
    binding = bound(model, [("x", kind), ("z", pa.float32())])
    fed = binding.feed(batch(x=column, z=pa.array(np.zeros(len(rows), np.float32))))
    out = binding.fetch(batch(x=column), fed).column(0).to_pylist()  # the model gives back what it is fed
    assert out == (rows if encoding == "ragged" else [indexed(row, levels) for row in rows])


def indexed(row: list[Any], levels: int, place: tuple[int, ...] = ()) -> list[Any]:
    """The values of nested lists, each with its place."""
    if levels == 0:
        return [{"index": place[0] if len(place) == 1 else list(place), "value": row}]
    return [one for index, inner in enumerate(row) for one in indexed(inner, levels - 1, (*place, index))]


def test_a_ragged_tensor_is_values_and_row_splits() -> None:
    binding = bound(signature(ragged_parts("r", "int32", 1, (), "int32")), [("r", INTS)])
    feeds = binding.feed(batch(r=pa.array([[1, 2], [], [3]], INTS)))
    assert {name: value.dtype for name, value in feeds.items()} == {"r": np.int32, "r_1": np.int32}  # type: ignore[union-attr]
    np.testing.assert_array_equal(feeds["r"], [1, 2, 3])
    np.testing.assert_array_equal(feeds["r_1"], [0, 2, 2, 3])


def test_a_ragged_tensor_of_strings_and_two_levels() -> None:
    kind = pa.list_(pa.list_(pa.string()))
    binding = bound(signature(ragged_parts("t", "string", 2, ())), [("t", kind)])
    feeds = binding.feed(batch(t=pa.array([[["a"], []], [], [["b", "c"]]], kind)))
    assert isinstance(feeds["t"], Strings)
    assert feeds["t"].values.to_pylist() == [b"a", b"b", b"c"]
    np.testing.assert_array_equal(feeds["t_1"], [0, 2, 2, 3])
    np.testing.assert_array_equal(feeds["t_2"], [0, 1, 1, 3])


def test_the_inner_dimensions_of_a_ragged_tensor_may_be_fixed() -> None:
    kind = pa.list_(pa.list_(pa.float32(), 2))
    binding = bound(signature(ragged_parts("u", "float32", 1, (2,))), [("u", kind)])
    feeds = binding.feed(batch(u=pa.array([[[1, 2]], [], [[3, 4], [5, 6]]], kind)))
    np.testing.assert_array_equal(feeds["u"], [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(feeds["u_1"], [0, 1, 1, 3])


def test_a_sparse_tensor_is_as_wide_as_its_longest_row_unless_signature_or_job_say_more() -> None:
    rows = batch(q=pa.array([[1.0], [], [2.0, 3.0]], FLOATS))
    flat = signature(sparse_parts("q", "float32"))
    feeds = bound(flat, [("q", FLOATS)]).feed(rows)
    np.testing.assert_array_equal(feeds["q"], [[0, 0], [2, 0], [2, 1]])
    np.testing.assert_array_equal(feeds["q_1"], [1, 2, 3])
    np.testing.assert_array_equal(feeds["q_2"], [3, 2])
    feeds = bound(flat, [("q", FLOATS)], inputs={"q": {"column": "q", "shape": [7]}}).feed(rows)
    np.testing.assert_array_equal(feeds["q_2"], [3, 7])
    parts = [tensor("q_indices", "int64", (None, 2)), tensor("q_values"), tensor("q_dense_shape", "int64", (2,))]
    declared = signature([whole("q", "sparse", parts, (None, 5))])
    feeds = bound(declared, [("q", FLOATS)]).feed(rows)
    np.testing.assert_array_equal(feeds["q_dense_shape"], [3, 5])
    assert "found 'shape: [7]' in the job; the signature says sparse float32[?, 5]" in refused(
        declared, [("q", FLOATS)], inputs={"q": {"column": "q", "shape": [7]}}
    )


def test_structs_give_the_indices_of_a_sparse_tensor() -> None:
    kind = pa.list_(pa.struct([("index", pa.int32()), ("value", pa.float32())]))
    model = signature(sparse_parts("q", "float32"))
    binding = bound(model, [("f", kind)], inputs={"q": {"column": "f", "shape": [10]}})
    rows = [[{"index": 7, "value": 1.0}, {"index": 2, "value": 2.0}], [], [{"index": 1, "value": 3.0}]]
    feeds = binding.feed(batch(f=pa.array(rows, kind)))
    np.testing.assert_array_equal(feeds["q"], [[0, 2], [0, 7], [2, 1]])
    np.testing.assert_array_equal(feeds["q_1"], [2, 1, 3])
    np.testing.assert_array_equal(feeds["q_2"], [3, 10])
    with pytest.raises(DataError, match="row 1 of the batch holds something at index 10") as caught:
        binding.feed(batch(f=pa.array([[], [{"index": 10, "value": 1.0}]], kind)))
    assert caught.value.facts["code"] == "ROW_SHAPE"
    with pytest.raises(DataError, match="row 1 of the batch holds a list with a null element"):
        binding.feed(batch(f=pa.array([[], [None]], kind)))


# -- which inputs are one ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "base"),
    [
        (("q", "q_1", "q_2"), "q"),
        (("args_0", "args_0_1", "args_0_2"), "args_0"),
        (("q_indices", "q_values", "q_dense_shape"), "q"),
        (("q_indices", "q_values", "q_shape"), "q"),
    ],
)
def test_sparse_inputs_are_found_by_the_names_that_tensorflow_gives(names: tuple[str, ...], base: str) -> None:
    parts = [tensor(names[0], "int64", (None, 2)), tensor(names[1]), tensor(names[2], "int64", (2,))]
    model = signature([*parts, tensor("x")])
    schema = pa.schema([(base, FLOATS), ("x", pa.float32()), ("other", pa.int32())])
    assert wanted_columns(Columns(), model, schema) == [base, "x"]
    feeds = bound(model, schema).feed(batch(**{base: pa.array([[1.0]], FLOATS), "x": pa.array([1.0], pa.float32())}))
    assert set(feeds) == {*names, "x"}
    assert bound(model, schema).describe()[0]["note"] == "sparse"


def test_the_parts_of_a_composite_tensor_of_tf1_are_found() -> None:
    parts = [tensor("r_component_0", "int32"), tensor("r_component_1", "int64")]
    kind = pa.list_(pa.int32())
    feeds = bound(signature(parts), [("r", kind)]).feed(batch(r=pa.array([[1], []], kind)))
    assert set(feeds) == {"r_component_0", "r_component_1"}


def test_inputs_that_only_look_like_parts_stay_what_they_are() -> None:
    model = signature([tensor("x"), tensor("x_1", "int64")])
    values = {"x": pa.array([1.0], pa.float32()), "x_1": pa.array([5])}
    feeds = bound(model, [("x", pa.float32()), ("x_1", pa.int64())]).feed(batch(**values))
    np.testing.assert_array_equal(feeds["x_1"], [5])
    assert "input 'x_1' int64[?] from column 'x_1': found no such column" in refused(model, [("x", pa.float32())])
    feeds = bound(model, [("x", pa.float32())], inputs={"x_1": {"constant": [3]}}).feed(batch(x=values["x"]))
    np.testing.assert_array_equal(feeds["x_1"], [3])


def test_what_fits_both_kinds_is_up_to_the_job() -> None:
    model = signature([tensor("q", "int64", (None, None)), tensor("q_1", "int64"), tensor("q_2", "int64")])
    kind = pa.list_(pa.int64())
    assert "input 'q_1' int64[?] from column 'q_1': found no such column" in refused(model, [("q", kind)])
    feeds = bound(model, [("q", kind)], inputs={"q": {"column": "q", "as": "sparse"}}).feed(
        batch(q=pa.array([[4], [5]], kind))
    )
    np.testing.assert_array_equal(feeds["q_1"], [4, 5])


def test_the_job_may_name_what_would_be_found_anyway_and_even_where_columns_have_the_names() -> None:
    model = signature(ragged_parts("r", "int64", 1, ()))
    schema = [("tags", INTS), ("r_1", pa.int64())]
    feeds = bound(model, schema, inputs={"r": {"column": "tags", "as": "ragged"}}).feed(
        batch(tags=pa.array([[7], []], INTS), r_1=pa.array([1, 1]))
    )
    np.testing.assert_array_equal(feeds["r_1"], [0, 1, 1])


def test_all_that_does_not_fit_is_said_at_once() -> None:
    model = signature(
        [
            *ragged_parts("r", "int64", 2, ()),
            *sparse_parts("q", "float32"),
            tensor("x"),
            *ragged_parts("s", "int32", 1, ()),
        ]
    )
    text = refused(
        model,
        [("r", INTS), ("q", pa.float32()), ("x", FLOATS), ("s", pa.list_(pa.string()))],
        inputs={"r": {"column": "r", "as": "ragged"}, "x": {"column": "x", "as": "sparse"}},
    )
    assert "4 problems" in text
    assert (
        "input 'r' ragged int64[?, ?, ?] from column 'r': found list<int64>; expected lists, 2 levels of them for"
        " ragged int64[?, ?, ?], not 1" in text
    )
    assert "input 'q' sparse float32[?, ?] from column 'q': found float; expected lists, 1 level of them" in text
    assert "input 'x' float32[?] from column 'x': found 'as: sparse' for a dense input; expected the tensors of" in text
    assert "input 's' ragged int32[?, ?] from column 's': found string; expected int32" in text


# -- rows that are bad -------------------------------------------------------------------------------------------


def test_null_lists_are_errors_unless_the_job_takes_them_for_empty() -> None:
    model = signature(ragged_parts("r", "int64", 1, ()))
    rows = batch(r=pa.array([[1], None, [2]], INTS))
    with pytest.raises(DataError, match="row 1 of the batch holds null") as caught:
        bound(model, [("r", INTS)]).feed(rows)
    assert caught.value.facts["code"] == "ROW_NULL"
    feeds = bound(model, [("r", INTS)], inputs={"r": {"column": "r", "null": {"fill": []}}}).feed(rows)
    np.testing.assert_array_equal(feeds["r_1"], [0, 1, 1, 2])
    assert "expected 'null: {fill: []}'" in refused(model, [("r", INTS)], inputs={"r": {"column": "r", "null": "nan"}})


@pytest.mark.parametrize("encoding", ["ragged", "sparse"])
def test_a_bad_value_names_the_row_and_not_the_item(encoding: str) -> None:
    model = signature(ragged_parts("r", "int32", 1, ()) if encoding == "ragged" else sparse_parts("r", "int32"))
    with pytest.raises(DataError, match="row 2 of the batch holds a value that int32 cannot hold") as caught:
        bound(model, [("r", INTS)]).feed(batch(r=pa.array([[1, 2], [], [3, 2**40, 2**41]], INTS)))
    facts = caught.value.facts
    assert (facts["code"], facts["row"], facts["rows"], facts["column"]) == ("ROW_OVERFLOW", 2, 1, "r")
    with pytest.raises(DataError, match="row 1 of the batch holds a list with a null element"):
        bound(model, [("r", INTS)]).feed(batch(r=pa.array([[1, 2], [None]], INTS)))


def test_a_row_wider_than_the_signature_says_is_an_error() -> None:
    parts = [tensor("i", "int64", (None, 2)), tensor("v"), tensor("d", "int64", (2,))]
    binding = bound(signature([whole("q", "sparse", parts, (None, 2))]), [("q", FLOATS)])
    with pytest.raises(DataError, match="row 1 of the batch holds something at index 2") as caught:
        binding.feed(batch(q=pa.array([[1], [1, 2, 3]], FLOATS)))
    assert caught.value.facts["code"] == "ROW_SHAPE"


# -- outputs that break the promise --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splits", "values", "code", "text"),
    [
        ([0, 1], 1, "MODEL_BATCH", "its row splits make 1 lists of 2"),
        ([0, 2, 1], 1, "MODEL_OUTPUT", "its row splits do not rise from 0"),
        ([1, 1, 2], 2, "MODEL_OUTPUT", "its row splits do not rise from 0"),
        ([0, 1, 2], 3, "MODEL_BATCH", "it has 3 rows for 2 rows fed"),
    ],
)
def test_row_splits_are_checked(splits: list[int], values: int, code: str, text: str) -> None:
    parts = ragged_parts("y", "float32", 1, ())
    binding = bound(signature([tensor("x")], [whole("y", "ragged", parts, (None, None))]), [("x", pa.float32())])
    assert binding.fetches == ("y", "y_1")
    rows = batch(x=pa.array([1.0, 2.0], pa.float32()))
    with pytest.raises(DataError, match=text) as caught:
        binding.fetch(rows, {"y": np.zeros(values, np.float32), "y_1": np.array(splits)})
    assert caught.value.facts["code"] == code


def test_a_sparse_output_is_checked_and_sorted_by_row() -> None:
    parts = sparse_parts("y", "float32")
    binding = bound(signature([tensor("x")], [whole("y", "sparse", parts, (None, None))]), [("x", pa.float32())])
    rows = batch(x=pa.array([1.0, 2.0], pa.float32()))
    indices, values = np.array([[1, 4], [0, 2], [1, 3]]), np.array([1, 2, 3], np.float32)
    out = binding.fetch(rows, {"y": indices, "y_1": values, "y_2": np.array([2, 5])})
    assert out.column(0).to_pylist() == [
        [{"index": 2, "value": 2.0}],
        [{"index": 4, "value": 1.0}, {"index": 3, "value": 3.0}],
    ]
    with pytest.raises(DataError, match="it has 3 rows for 2 rows fed"):
        binding.fetch(rows, {"y": indices, "y_1": values, "y_2": np.array([3, 5])})
    with pytest.raises(DataError, match="a value outside of its 2 rows"):
        binding.fetch(rows, {"y": indices + 1, "y_1": values, "y_2": np.array([2, 5])})


def test_engines_see_parts_as_tensors_of_their_own() -> None:
    parts = ragged_parts("r", "float32", 1, ())
    model = signature(
        [whole("r", "ragged", parts, (None, None))], [whole("y", "sparse", sparse_parts("y", "int8"), None)]
    )
    assert list(dense(model).inputs) == ["r", "r_1"]
    assert list(dense(model).outputs) == ["y", "y_1", "y_2"]
