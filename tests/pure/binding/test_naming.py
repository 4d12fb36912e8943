"""What the words of a job mean: paths to fields of structs, one tensor under two names, and names of any kind."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import BindingError, DataError
from jobs.job import Columns
from runner.binding.bind import bind, wanted_columns
from runner.binding.binding import Binding
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Strings


def tensor(name: str, dtype: str = "float32", shape: Any = (None,), of: str = "", **more: Any) -> TensorSpec:
    return TensorSpec(name, dtype, shape, f"{of or name}:0", **more)


def bound(specs: list[TensorSpec], schema: pa.Schema, **columns: Any) -> Binding:
    model = Signature("s", "", {spec.name: spec for spec in specs}, {"y": tensor("y")})
    rules = Columns.model_validate(columns)
    binding = bind(rules, schema, model, "list")
    assert list(binding.columns) == wanted_columns(rules, model, schema)
    again: Binding = pickle.loads(pickle.dumps(binding))  # noqa: S301  # our own bytes
    return again


def refused(specs: list[TensorSpec], schema: pa.Schema, **columns: Any) -> str:
    with pytest.raises(BindingError) as caught:
        bound(specs, schema, **columns)
    return caught.value.message


@pytest.mark.surprises
def test_5000_columns_are_bound_one_look_up_each(saw: Callable[[str], None]) -> None:
    for width in (1250, 5000):
        schema = pa.schema([pa.field(f"f{at}", pa.float32()) for at in reversed(range(width))])
        inputs, rules = [tensor("x", shape=(None, width))], {"x": {"stack": "f*"}}
        began = time.process_time()
        binding = bound(inputs, schema, inputs=rules)
        saw(f"{width:,} columns in one stack: bound in {time.process_time() - began:.2f} s of CPU")
        assert binding.columns == tuple(f"f{at}" for at in range(width))


# paths

USER = pa.struct([("age", pa.float32()), ("home", pa.struct([("zip", pa.string()), ("tags", pa.list_(pa.int32()))]))])
ROWS = pa.RecordBatch.from_pydict(
    {
        "user": pa.array(
            [
                {"age": 1.5, "home": {"zip": "a", "tags": [1, 2]}},
                {"age": 2.5, "home": {"zip": "b", "tags": []}},
            ],
            USER,
        ),
        "id": [7, 8],
    }
)


def test_a_dotted_name_leads_to_a_field_of_a_struct() -> None:
    inputs = [tensor("x"), tensor("z", "string"), tensor("t", "int32", (None, None))]
    rules = {"x": "user.age", "z": "user.home.zip", "t": {"column": "user.home.tags", "pad": "max"}}
    binding = bound(inputs, ROWS.schema, inputs=rules, keep=["user", "id"])
    assert binding.columns == ("user", "id")
    feeds = binding.feed(ROWS)
    np.testing.assert_array_equal(feeds["x"], [1.5, 2.5])
    assert isinstance(feeds["z"], Strings)
    assert feeds["z"].values.to_pylist() == [b"a", b"b"]
    np.testing.assert_array_equal(feeds["t"], [[1, 2], [0, 0]])
    lengths = binding.lengths(pa.Table.from_batches([ROWS]))
    assert lengths is not None
    assert lengths.tolist() == [2, 1]
    out = binding.fetch(ROWS, {"y": np.zeros(2, np.float32)})
    assert out.schema.names == ["user", "id", "y"]
    assert binding.describe()[0]["column"] == "user.age"


def test_fields_are_stacked_and_become_examples() -> None:
    kind = pa.struct([("a", pa.float32()), ("b", pa.float32())])
    rows = pa.RecordBatch.from_pydict({"p": pa.array([{"a": 1, "b": 2}], kind)})
    feeds = bound([tensor("x", shape=(None, 2))], rows.schema, inputs={"x": {"stack": ["p.a", "p.b"]}}).feed(rows)
    np.testing.assert_array_equal(feeds["x"], [[1, 2]])
    example = {"example": {"columns": {"a": "p.a"}}}
    assert bound([tensor("e", "string")], rows.schema, inputs={"e": example}).columns == ("p",)


def test_a_null_struct_is_a_null_of_its_fields() -> None:
    rows = pa.RecordBatch.from_pydict({"user": pa.array([{"age": 1.0}, None, {"age": None}], USER)})
    binding = bound([tensor("x")], rows.schema, inputs={"x": "user.age"})
    with pytest.raises(DataError, match=r"row 1 of the batch holds null \(2 such rows") as caught:
        binding.feed(rows)
    assert caught.value.facts["column"] == "user.age"
    filled = bound([tensor("x")], rows.schema, inputs={"x": {"column": "user.age", "null": "nan"}}).feed(rows)
    np.testing.assert_array_equal(filled["x"], [1, np.nan, np.nan])


def test_an_exact_name_wins_over_a_path() -> None:
    rows = pa.RecordBatch.from_pydict(
        {"a": pa.array([{"b": 1.0}], pa.struct([("b", pa.float32())])), "a.b": pa.array([2.0], pa.float32())}
    )
    binding = bound([tensor("x")], rows.schema, inputs={"x": "a.b"})
    assert binding.columns == ("a.b",)
    np.testing.assert_array_equal(binding.feed(rows)["x"], [2.0])


def test_a_path_that_can_mean_two_fields_means_none() -> None:
    inner = pa.struct([("c", pa.float32())])
    schema = pa.schema([("a", pa.struct([("b.c", pa.float32())])), ("a.b", inner)])
    text = refused([tensor("x")], schema, inputs={"x": "a.b.c"})
    assert "COLUMN_AMBIGUOUS" in text
    assert "found 2 fields that can be meant: 'a -> b.c', 'a.b -> c'" in text


def test_a_whole_struct_feeds_nothing_and_is_kept_as_a_whole() -> None:
    text = refused([tensor("x")], ROWS.schema, inputs={"x": "user"}, keep=["user.age"])
    assert "name the field that is meant, as COLUMN.FIELD (it has 'age', 'home')" in text
    assert "kept column 'user.age': found the field user -> age; expected a whole column" in text
    assert "found no such column" in refused([tensor("x")], ROWS.schema, inputs={"x": "user.agee"})


# one tensor under two names


def test_two_names_of_one_tensor_are_fed_one_column() -> None:
    schema = pa.schema([("a", pa.bool_()), ("c", pa.bool_())])
    inputs = [tensor("a", "bool", of="t"), tensor("b", "bool", of="t")]
    for rules, column in (({}, "a"), ({"b": "c"}, "c"), ({"a": "c", "b": "c"}, "c")):
        binding = bound(inputs, schema, inputs=rules)
        assert binding.columns == (column,)
        feeds = binding.feed(pa.RecordBatch.from_pydict({column: [True, False]}))
        assert feeds["a"] is feeds["b"]


def test_two_names_of_one_tensor_with_a_default_follow_the_one_that_is_fed() -> None:
    inputs = [tensor("a", of="t", default=np.array([1], np.float32)), tensor("b", of="t")]
    feeds = bound(inputs, pa.schema([("b", pa.float32())])).feed(
        pa.RecordBatch.from_pydict({"b": pa.array([3], "float")})
    )
    assert feeds["a"] is feeds["b"]


def test_one_tensor_is_not_fed_from_two_columns() -> None:
    schema = pa.schema([("a", pa.float32()), ("b", pa.float32())])
    text = refused([tensor("a", of="t"), tensor("b", of="t")], schema)
    assert "input 'b' float32[?]: it is the same tensor as input 'a', and fed from somewhere else" in text
    assert "MODEL_SIGNATURE" in text


# names


@pytest.mark.parametrize("name", ["in put/1", "größe", "a.b", 'say "x"', "x'y", "a\nb", "f*", "[0]", "🙂", ""])
def test_names_may_hold_any_character(name: str) -> None:
    rows = pa.RecordBatch.from_arrays([pa.array([1.0], pa.float32())], names=[name])
    for rules in ({}, {name: name}, {name: {"column": name}}):
        binding = bound([tensor(name)], rows.schema, inputs=rules, outputs={"y": f"out {name}"}, keep=[name])
        np.testing.assert_array_equal(binding.feed(rows)[name], [1.0])
        assert binding.fetch(rows, {"y": np.zeros(1, np.float32)}).schema.names == [name, f"out {name}"]
