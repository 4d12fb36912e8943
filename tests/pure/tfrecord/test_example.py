"""Serialized tf.Examples made of columns: byte for byte what protobuf writes."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from example_messages import example
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.formats.tfrecord.example import encode, varints
from jobs.errors import BindingError, DataError
from jobs.section.columns import Columns
from runner.binding.bind import bind, wanted_columns
from runner.binding.binding import Binding
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Strings

KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any], str]] = [
    (pa.float32(), st.floats(width=32, allow_nan=False), "float_list"),
    (pa.float64(), st.floats(-1e30, 1e30).map(lambda x: float(np.float32(x))), "float_list"),
    (pa.int64(), st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 300)), "int64_list"),
    (pa.uint8(), st.integers(0, 255), "int64_list"),
    (pa.int16(), st.integers(-(2**15), 2**15 - 1), "int64_list"),
    (pa.bool_(), st.booleans(), "int64_list"),
    (pa.string(), st.text(max_size=4), "bytes_list"),
    (pa.large_binary(), st.one_of(st.binary(max_size=5), st.integers(120, 20_000).map(bytes)), "bytes_list"),
    (pa.binary(3), st.binary(min_size=3, max_size=3), "bytes_list"),
]


@st.composite
def columns(draw: st.DrawFn) -> tuple[int, list[tuple[str, str, pa.Array]]]:
    """Rows, and columns of them with their kind: slices with offsets, nulls, lists of any and of one length."""
    rows, offset = draw(st.integers(0, 6)), draw(st.integers(0, 2))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        kind, values, name = draw(st.sampled_from(KINDS))
        shape = draw(st.sampled_from(["one", "list", "large", "fixed"]))
        if shape in ("list", "large"):
            kind, values = (pa.list_ if shape == "list" else pa.large_list)(kind), st.lists(values, max_size=4)
        if shape == "fixed":
            kind, values = pa.list_(kind, 2), st.lists(values, min_size=2, max_size=2)
        if draw(st.booleans()):
            values = st.none() | values
        column = pa.array(draw(st.lists(values, min_size=rows + offset, max_size=rows + offset)), kind)
        found.append((f"{'näme' * draw(st.integers(0, 40))}{len(found)}", name, column.slice(offset)))
    return rows, found


@settings(max_examples=300, deadline=None)
@given(columns())
def test_the_bytes_are_those_of_protobuf(case: tuple[int, list[tuple[str, str, pa.Array]]]) -> None:
    rows, given_columns = case
    found = encode([(name, column) for name, _, column in given_columns], rows)
    found.validate(full=True)
    assert found.to_pylist() == [
        example(
            {
                name: (kind, values if isinstance(values, list) else [_bytes(values)])
                for name, kind, column in given_columns
                if (values := _listed(column[row].as_py())) is not None
            }
        )
        for row in range(rows)
    ]


def _listed(value: Any) -> Any:
    return [_bytes(one) for one in value] if isinstance(value, list) else value


def _bytes(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value.encode() if isinstance(value, str) else value


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_varints_are_base_128_the_lowest_first(values: list[int]) -> None:
    content, lengths = varints(np.array(values, np.uint64))
    found, at = [], 0
    for length in lengths:
        digits = content[at : at + length].tolist()
        assert all(digit >= 0x80 for digit in digits[:-1])
        assert digits[-1] < 0x80
        found.append(sum((digit & 0x7F) << (7 * place) for place, digit in enumerate(digits)))
        at += length
    assert (found, at) == (values, len(content))


# -- as an input of a job ------------------------------------------------------------------------------------------


def bound(schema: Any, rule: Any, shape: Any = (None,), dtype: str = "string") -> Binding:
    model = Signature(
        "s", "", {"e": TensorSpec("e", dtype, shape, "e:0")}, {"y": TensorSpec("y", "float32", (None,), "y:0")}
    )
    columns = Columns.model_validate({"inputs": {"e": rule}})
    binding = bind(columns, pa.schema(schema), model, "list")
    assert list(binding.columns) == wanted_columns(columns, model, pa.schema(schema))
    again: Binding = pickle.loads(pickle.dumps(binding))  # noqa: S301  # our own bytes
    return again


SCHEMA = [("f1", pa.float32()), ("f2", pa.int8()), ("f10", pa.string()), ("other", pa.date32())]
ROWS = pa.RecordBatch.from_pydict(
    {"f1": pa.array([1.5, None], pa.float32()), "f2": pa.array([-1, 2], pa.int8()), "f10": ["a", ""]}
)


def test_patterns_name_features_by_their_columns_and_a_mapping_names_them_itself() -> None:
    fed = bound(SCHEMA, {"example": {"columns": "f*"}}).feed(ROWS)["e"]
    assert isinstance(fed, Strings)
    assert fed.shape == (2,)
    assert fed.values.to_pylist() == [
        example({"f1": ("float_list", [1.5]), "f2": ("int64_list", [-1]), "f10": ("bytes_list", [b"a"])}),
        example({"f2": ("int64_list", [2]), "f10": ("bytes_list", [b""])}),
    ]
    renamed = bound(SCHEMA, {"example": {"columns": {"age": "f2", "again": "f2"}}})
    assert renamed.columns == ("f2",)
    fed = renamed.feed(ROWS)["e"]
    assert isinstance(fed, Strings)
    assert fed.values.to_pylist()[1] == example({"age": ("int64_list", [2]), "again": ("int64_list", [2])})
    assert renamed.describe()[0]["note"] == "tf.Example of 2 features"
    assert renamed.identity() != bound(SCHEMA, {"example": {"columns": ["f2"]}}).identity()


def test_a_fixed_batch_of_examples_is_filled_up() -> None:
    fed = bound(SCHEMA, {"example": {"columns": ["f2"]}}, shape=None).feed(ROWS)["e"]
    assert fed.shape == (2,)


@pytest.mark.parametrize(
    ("rule", "more", "text"),
    [
        ({"columns": ["other"]}, {}, "found date32[day] in column 'other'; convert the column to int64 before the job"),
        ({"columns": ["f1", "nope"]}, {}, "found no such column; the input has 'f1', 'f2', 'f10', 'other'"),
        ({"columns": ["f1"]}, {"dtype": "float32"}, "expected an input string[?], which takes serialized Examples"),
        ({"columns": ["f1"]}, {"shape": (None, 2)}, "expected an input string[?], which takes serialized Examples"),
    ],
)
def test_what_cannot_become_an_example_is_refused(rule: Any, more: Any, text: str) -> None:
    with pytest.raises(BindingError) as caught:
        bound(SCHEMA, {"example": rule}, **more)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("values", "kind", "code", "text"),
    [
        ([[1], [2, None]], pa.list_(pa.int64()), "ROW_NULL", "row 1 of the batch holds a list with a null element"),
        (
            [1.0, 1e300, None, 1e301],
            pa.float64(),
            "ROW_OVERFLOW",
            "row 1 of the batch holds a value that float32 cannot",
        ),
        ([None, 2**64 - 1], pa.uint64(), "ROW_OVERFLOW", "row 1 of the batch holds a value that int64 cannot hold"),
    ],
)
def test_a_row_that_fits_no_example_is_named(values: Any, kind: pa.DataType, code: str, text: str) -> None:
    binding = bound([("c", kind)], {"example": {"columns": "c"}})
    with pytest.raises(DataError, match=text) as caught:
        binding.feed(pa.RecordBatch.from_pydict({"c": pa.array(values, kind)}))
    assert (caught.value.facts["code"], caught.value.facts["column"]) == (code, "c")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(pa.float32(), "float_list", 1.0), (pa.int64(), "int64_list", 0), (pa.binary(), "bytes_list", b"")],
    ids=str,
)
def test_an_empty_list_leaves_its_feature_out_or_stays_without_values(kind: pa.DataType, name: str, value: Any) -> None:
    column = pa.array([[value], [], None, [value, value]], pa.list_(kind))
    both = [("a", column), ("s", pa.array([value] * 4, kind))]  # a text without letters is a value
    one = {"s": (name, [value])}
    full, none, two = ({"a": (name, values)} | one for values in ([value], [], [value, value]))
    without, stated = encode(both, 4, without_empty=True), encode(both, 4)
    assert without.to_pylist() == [example(full), example(one), example(one), example(two)]
    assert stated.to_pylist() == [example(full), example(none), example(one), example(two)]


def test_the_job_says_what_an_empty_list_becomes_and_leaves_it_out_of_the_identity_at_its_default() -> None:
    model = Signature(
        "s", "", {"e": TensorSpec("e", "string", (None,), "e:0")}, {"y": TensorSpec("y", "float32", (None,), "y:0")}
    )
    rows = pa.RecordBatch.from_pydict({"a": pa.array([[], [5]], pa.list_(pa.int64()))})

    def made(**more: str) -> tuple[Any, list[bytes]]:
        columns = Columns.model_validate({"inputs": {"e": {"example": {"columns": ["a"], **more}}}})
        found = bind(columns, rows.schema, model, "list")
        fed = found.feed(rows)["e"]
        assert isinstance(fed, Strings)
        return found.identity()["inputs"]["e"], fed.values.to_pylist()

    full = example({"a": ("int64_list", [5])})
    usual = {"example": [["a", "a", "int64_list"]], "cast": "safe"}
    assert made() == made(empty="missing") == (usual, [b"\n\x00", full])
    assert made(empty="empty") == (usual | {"empty": "empty"}, [example({"a": ("int64_list", [])}), full])
