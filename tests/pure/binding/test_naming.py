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
from jobs.section.columns import Columns
from runner.binding.bind import bind, wanted_columns
from runner.binding.binding import Binding
from runner.binding.naming import both_ways, kept_alone, not_kept
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


# kept columns

MANY = pa.schema([("x", pa.float32()), ("raw", pa.binary()), ("user_id", pa.int64()), ("user_name", pa.string())])


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (["user_id", "x"], {"user_id": "user_id", "x": "x"}),
        ("all", {"x": "x", "raw": "raw", "user_id": "user_id", "user_name": "user_name"}),
        ("*", {"x": "x", "raw": "raw", "user_id": "user_id", "user_name": "user_name"}),
        ("user_*", {"user_id": "user_id", "user_name": "user_name"}),
        (["all", "-raw"], {"x": "x", "user_id": "user_id", "user_name": "user_name"}),
        (["-raw", "all", "-user_*"], {"x": "x"}),
        ({"id": "user_id", "who": "user_name"}, {"id": "user_id", "who": "user_name"}),
        (["all", "-raw", "-x", {"id": "user_id"}], {"user_name": "user_name", "id": "user_id"}),
        (["user_id", {"id": "user_id"}], {"user_id": "user_id", "id": "user_id"}),
        (["user_*", "*_id", "raw"], {"user_id": "user_id", "user_name": "user_name", "raw": "raw"}),
        (["all", "-user_*", "user_id"], {"x": "x", "raw": "raw", "user_id": "user_id"}),
        ([], {}),
    ],
    ids=str,
)
def test_names_patterns_all_and_but_for_mean_columns(keep: Any, kept: dict[str, str]) -> None:
    binding = bound([tensor("x")], MANY, keep=keep)
    assert list(binding.kept.items()) == list(kept.items())
    assert binding.output_schema.names == [*kept, "y"]
    assert [binding.output_schema.field(name).type for name in kept] == [MANY.field(one).type for one in kept.values()]


def test_a_kept_column_is_written_under_its_new_name() -> None:
    binding = bound([tensor("x")], MANY, keep=[{"id": "user_id"}, "user_id", "raw"])
    batch = pa.RecordBatch.from_pydict({"x": [1.0], "raw": [b"r"], "user_id": [7], "user_name": ["n"]}, schema=MANY)
    rows = binding.fetch(batch, {"y": np.array([2.0], np.float32)})
    assert rows.to_pylist() == [{"id": 7, "user_id": 7, "raw": b"r", "y": 2.0}]
    assert binding.identity()["keep"] == [{"id": "user_id"}, "user_id", "raw"]
    assert binding.kept_columns == ["user_id", "raw"]
    assert [row["note"] for row in binding.describe() if row["role"] == "kept"] == ["the column 'user_id'", "", ""]


def test_the_identity_of_plain_names_is_what_it_was() -> None:
    assert bound([tensor("x")], MANY, keep=["user_id", "raw"]).identity()["keep"] == ["user_id", "raw"]
    assert bound([tensor("x")], MANY, keep="user_*").identity()["keep"] == ["user_id", "user_name"]


@pytest.mark.parametrize(
    ("keep", "line"),
    [
        ("usr_*", "COLUMN_MISSING: kept column 'usr_*': found no such column; the input has 'user_id'"),
        (["all", "-rw"], "COLUMN_MISSING: kept column '-rw': found no column to take out; the input has 'raw'"),
        (["-raw"], "kept column '-raw': found nothing to take it out of; expected `keep: [all, '-raw']`"),
        (["raw", "-raw"], "kept column '-raw': found nothing to take it out of"),
        (["all", "raw", "-raw"], "kept column '-raw': found 'raw', which `keep` names; expected a column that `all`"),
        (["user_*", "-raw"], "kept column '-raw': found 'raw', which nothing keeps; expected a column that `all`"),
        ({"id": "user"}, "COLUMN_MISSING: kept column 'user': found no such column"),
        (["raw", "raw"], "COLUMN_AMBIGUOUS: output column 'raw': 2 columns would have this name"),
        (["raw", {"raw": "x"}], "COLUMN_AMBIGUOUS: output column 'raw': 2 columns would have this name"),
        ({"y": "raw"}, "COLUMN_AMBIGUOUS: output column 'y': 2 columns would have this name; rename an output"),
    ],
    ids=str,
)
def test_what_means_no_column_and_what_clashes_is_told(keep: Any, line: str) -> None:
    assert line in refused([tensor("x")], MANY, keep=keep)


def test_columns_that_are_called_like_the_words_of_keep_can_be_reached() -> None:
    schema = pa.schema([(name, pa.float32()) for name in ("x", "all", "-x", "a*b", "ab", "*")])
    others = {
        "all": ["all"],
        "-x": ["-x"],
        "a*b": ["a*b"],
        "[*]": ["*"],
        ("[a-]*", "-[a]ll"): ["-x", "a*b", "ab"],
    }
    for keep, kept in others.items():
        entries = [keep] if isinstance(keep, str) else list(keep)
        assert list(bound([tensor("x")], schema, keep=entries).kept) == kept, keep
    assert list(bound([tensor("x")], schema, keep=[{"n": "all"}, {"m": "-x"}]).kept.values()) == ["all", "-x"]
    assert [*both_ways(("all", "-x", "ab"), schema)] == [
        "'all' in `keep` is the column of this name; '*' means all columns",
        "'-x' in `keep` is the column of this name; '-[x]' takes 'x' out",
    ]
    assert not [*both_ways(("all", "-x"), MANY)]


def test_columns_that_were_resolved_mean_the_same_beside_other_ones() -> None:
    rules = Columns.model_validate({"keep": ["all", "-raw", {"id": "user_id"}]})
    alone = kept_alone(rules, MANY)
    assert kept_alone(alone, pa.schema([*MANY, ("more", pa.int8())])) == alone
    assert [*not_kept(alone.keep, MANY)] == []


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
