"""Columns of other types in other files, and of no type at all: the values of each file, in their own way."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectors.formats.schema import conform, unify
from connectors.formats.tfrecord.example import kind_of
from jobs.errors import BindingError
from jobs.section.columns import Columns
from jobs.section.limits import Limits
from jobs.section.output import Output
from runner.batch.batches import Where
from runner.batch.rejects import Rejects
from runner.binding.bind import bind
from runner.binding.binding import Binding
from runner.binding.blame import RowError
from runner.model.signature import Signature, TensorSpec
from runner.preflight.output import narrowed
from runner.tensor import Strings

LARGE = 2**53 + 1
Y = {"y": TensorSpec("y", "float32", (None,), "y:0")}


def model(dtype: str, shape: Sequence[int | None] = (None,), name: str = "x") -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, dtype, tuple(shape), f"{name}:0")}


class Files:
    """Files with a column `x` each, a column `z` of zeros, and the schema over all of them."""

    def __init__(self, *columns: pa.Array) -> None:
        tables = [pa.table({"x": column, "z": pa.array([0.0] * len(column), pa.float32())}) for column in columns]
        schemas = [(str(at), table.schema) for at, table in enumerate(tables)]
        self.schema, problems = unify(schemas, ["x", "z"])
        assert problems == []
        read = [conform(table, self.schema, "f") for table in tables]
        self.batches = [table.combine_chunks().to_batches()[0] for table in read]

    def bound(self, spec: dict[str, TensorSpec], **columns: Any) -> Binding:
        return bind(Columns.model_validate(columns), self.schema, Signature("s", "", spec, Y), "list")

    def fed(self, spec: dict[str, TensorSpec], **columns: Any) -> list[Any]:
        binding = self.bound(spec, **columns)
        return [binding.feed(batch) for batch in self.batches]

    def kept(self) -> list[Any]:
        """What is kept of each file's rows that are not bad; or the code of those that are, and which ones."""
        binding, kept = self.bound(model("float32", name="z"), keep=["x"]), list[Any]()
        for batch in self.batches:
            try:
                binding.feed(batch)
            except RowError as error:
                kept.append((error.facts["code"], error.at.tolist()))
                batch = batch.take(pa.array(np.delete(np.arange(len(batch)), error.at)))
                binding.feed(batch)
            written = binding.fetch(batch, {"y": np.zeros(len(batch), np.float32)})
            assert written.schema == binding.output_schema
            kept.append(written.column("x").to_pylist())
        return kept


def error(binding: Binding, batch: pa.RecordBatch) -> RowError:
    with pytest.raises(RowError) as caught:
        binding.feed(batch)
    return caught.value


@pytest.mark.parametrize(("dtype", "most"), [("float64", 2**53), ("float32", 2**24), ("bfloat16", 2**8)])
def test_integers_beside_doubles_are_fed_where_the_tensor_holds_them(dtype: str, most: int) -> None:
    both = Files(pa.array([1, most]), pa.array([0.5, 2.0]), pa.array([1, most + 1]))
    binding = both.bound(model(dtype))
    assert [len(binding.feed(batch)["x"]) for batch in both.batches[:2]] == [2, 2]
    bad = error(binding, both.batches[2])
    assert (bad.facts["code"], bad.at.tolist()) == ("ROW_INEXACT", [1])
    assert "`columns.inputs.x.cast: nearest`, which rounds" in bad.message
    (fed, *_) = both.fed(model(dtype), inputs={"x": {"column": "x", "cast": "unsafe"}})
    assert len(fed["x"]) == 2


def test_doubles_are_rounded_to_a_narrower_tensor_also_beside_integers() -> None:
    whole, parts = Files(pa.array([3]), pa.array([0.1, float("nan")])).fed(model("float32"))
    assert whole["x"].tolist() == [3.0]
    np.testing.assert_array_equal(parts["x"], np.array([0.1, np.nan], np.float32))
    (row,) = (
        row for row in Files(pa.array([3]), pa.array([0.1])).bound(model("float32")).describe() if row["tensor"] == "x"
    )
    assert row["type"] == "int64 or double"
    assert row["note"] == "int64: exact values only, double: rounded; a value that would become infinite is an error"


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_doubles_beside_integers_feed_a_tensor_of_integers_where_they_are_whole(dtype: str) -> None:
    both = Files(
        pa.array([5]), pa.array([7.0, 200.0]), pa.array([0.5, float("nan"), float("inf"), 1e300, -1e300, 2.0**63])
    )
    binding = both.bound(model(dtype))
    assert [binding.feed(batch)["x"].tolist() for batch in both.batches[:2]] == [[5], [7, 200]]
    bad = error(binding, both.batches[2])
    assert (bad.facts["code"], bad.at.tolist()) == ("ROW_INEXACT", [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(("dtype", "most"), [("int4", 7), ("uint8", 255), ("int8", 127), ("qint8", 127)])
def test_doubles_that_a_narrow_tensor_of_integers_does_not_hold_are_bad_rows(dtype: str, most: int) -> None:
    both = Files(pa.array([5]), pa.array([float(most), most + 1.0, 1.0]))
    bad = error(both.bound(model(dtype)), both.batches[1])
    assert (bad.facts["code"], bad.at.tolist()) == ("ROW_INEXACT", [1])


def test_integers_of_64_bits_feed_a_tensor_of_them_as_they_are_beside_doubles() -> None:
    both = Files(pa.array([1, LARGE]), pa.array([1.0, None]))
    binding = both.bound(model("int64"), inputs={"x": {"column": "x", "null": {"fill": -1}}})
    sent, schema = pickle.loads(pickle.dumps((binding, both.schema)))  # noqa: S301  # our own bytes
    whole, parts = (sent.feed(batch) for batch in both.batches)
    assert schema == both.schema
    assert (whole["x"].tolist(), parts["x"].tolist()) == ([1, LARGE], [1, -1])


def test_numbers_of_several_types_feed_no_tensor_of_strings() -> None:
    with pytest.raises(BindingError, match="expected string or binary"):
        Files(pa.array([1]), pa.array([0.5])).bound(model("string"))


def test_doubles_alone_feed_no_tensor_of_integers() -> None:
    with pytest.raises(BindingError, match="found double; expected int64"):
        Files(pa.array([1.0])).bound(model("int64"))


@pytest.mark.parametrize("keep", [[], ["x"]])
def test_a_null_rule_is_for_each_file(keep: list[str]) -> None:
    both = Files(pa.array([1, None]), pa.array([None, 0.5]), pa.nulls(2))
    fed = both.fed(model("float32"), inputs={"x": {"column": "x", "null": {"fill": 9}}}, keep=keep)
    assert [one["x"].tolist() for one in fed] == [[1, 9], [9, 0.5], [9, 9]]


def test_lists_stacks_padding_and_structs_are_fed_alike() -> None:
    lists = Files(pa.array([[1, 2]]), pa.array([[0.5, 1.5]], pa.list_(pa.float64(), 2)))
    assert [one["x"].tolist() for one in lists.fed(model("float32", (None, 2)))] == [[[1, 2]], [[0.5, 1.5]]]
    padded = {"x": {"column": "x", "pad": {"to": "max"}}}
    assert [one["x"].tolist() for one in lists.fed(model("float64", (None, None)), inputs=padded)] == [
        [[1, 2]],
        [[0.5, 1.5]],
    ]
    stack = {"x": {"stack": ["x", "x"]}}
    pair = Files(pa.array([4]), pa.array([0.5]))
    assert [one["x"].tolist() for one in pair.fed(model("float32", (None, 2)), inputs=stack)] == [
        [[4, 4]],
        [[0.5, 0.5]],
    ]
    structs = Files(pa.array([{"a": 4}]), pa.array([{"b": 1, "a": 0.5}]))
    assert [one["z"].tolist() for one in structs.fed(model("float32", name="z"), inputs={"z": "x.a"})] == [[4], [0.5]]
    bad = Files(pa.array([[1, LARGE], [1, 2]]), pa.array([[0.5]]))
    assert error(bad.bound(model("float32", (None, 2))), bad.batches[0]).at.tolist() == [0]


def test_an_example_has_one_list_for_the_files_of_all_types() -> None:
    spec = model("string")
    rule = {"x": {"example": {"columns": ["x"]}}}
    both = Files(pa.array([1]), pa.array([1.0]))
    whole, parts = both.fed(spec, inputs=rule)
    assert isinstance(whole["x"], Strings)
    assert whole["x"].values.to_pylist() == parts["x"].values.to_pylist()
    inexact = Files(pa.array([1, LARGE]), pa.array([1.0]))
    bad = error(inexact.bound(spec, inputs=rule), inexact.batches[0])
    assert (bad.facts["code"], bad.at.tolist()) == ("ROW_INEXACT", [1])
    assert kind_of(pa.float64()) == "float_list"


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ((pa.array([1, 2**53]), pa.array([0.5])), [[1.0, 2.0**53], [0.5]]),
        ((pa.array([LARGE, 1, LARGE]), pa.array([0.5])), [("ROW_INEXACT", [0, 2]), [1.0], [0.5]]),
        ((pa.array([-1]), pa.array([1, 2**64 - 1], pa.uint64())), [[-1], ("ROW_OVERFLOW", [1]), [1]]),
        ((pa.array([[1], [2, LARGE], None]), pa.array([[0.5]])), [("ROW_INEXACT", [1]), [[1.0], None], [[0.5]]]),
        (
            (pa.array([{"a": 1}, {"a": LARGE}]), pa.array([{"a": 0.5, "b": 1}])),
            [("ROW_INEXACT", [1]), [{"a": 1.0, "b": None}], [{"a": 0.5, "b": 1}]],
        ),
        (
            (pa.array([1, 2**60], pa.duration("ms")), pa.array([1], pa.duration("us"))),
            [("ROW_OVERFLOW", [1]), [timedelta(milliseconds=1)], [timedelta(microseconds=1)]],
        ),
        (
            (pa.array([1, 2**60], pa.timestamp("s")), pa.array([1], pa.timestamp("us"))),
            [("ROW_OVERFLOW", [1]), [datetime(1970, 1, 1, 0, 0, 1)], [datetime(1970, 1, 1, 0, 0, 0, 1)]],
        ),
    ],
    ids=lambda given: str(given[0].type) if isinstance(given, tuple) else "",
)
def test_a_kept_column_is_of_one_type_or_its_row_is_bad(columns: Sequence[pa.Array], kept: list[Any]) -> None:
    assert Files(*columns).kept() == kept


@pytest.mark.parametrize("beside", ["before", "behind"])
def test_a_value_that_does_not_fit_is_no_fault_of_the_rows_beside_it(beside: str) -> None:
    lists = [[LARGE], [1], [2]] if beside == "before" else [[1], [2], [LARGE]]
    both = Files(pa.array(lists), pa.array([[0.5]]))
    good = slice(1, 3) if beside == "before" else slice(0, 2)
    for start, stop in ((good.start, good.stop), (good.start, good.start + 1)):
        rows = both.batches[0].slice(start, stop - start)
        binding = both.bound(model("float32", name="z"), keep=["x"])
        binding.feed(rows)
        written = binding.fetch(rows, {"y": np.zeros(len(rows), np.float32)})
        assert written.column("x").to_pylist() == lists[start:stop]


@pytest.mark.parametrize(("format", "bad"), [("tfrecord", [1]), ("parquet", []), ("arrow", [])])
@pytest.mark.parametrize("nested", [False, True])
def test_a_kept_integer_is_a_bad_row_where_the_output_makes_a_narrower_float_of_it(
    format: str, bad: list[int], nested: bool
) -> None:
    """The plan says so, and doubles are rounded there."""
    columns = [pa.array([1, 2**24 + 1]), pa.array([0.1, 2.0**24 + 1])]
    if nested:
        columns = [pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), column) for column in columns]
    both = Files(*columns)
    output = Output.model_validate({"url": "o", "format": format})
    binding = narrowed(output, both.bound(model("float32", name="z"), keep=["x"]), both.schema)
    binding.feed(both.batches[1])
    if bad:
        refused = error(binding, both.batches[0])
        assert (refused.facts["code"], refused.at.tolist()) == ("ROW_INEXACT", bad)
    else:
        binding.feed(both.batches[0])


def test_a_rejected_row_has_the_value_where_the_type_of_all_files_holds_it() -> None:
    both = Files(pa.array([1, LARGE]), pa.array([0.5]))
    rejects = Rejects(both.schema, ["x"], Limits(on_bad_row="reject", max_rejected_rows="100%"), 10)
    rejects.add(Where("f", 0), both.batches[0], [0, 1], ["a", "b"], code="ROW_INEXACT", column="x")
    rejects.add(Where("g", 0), both.batches[1], [0], ["c"], code="ROW_INEXACT", column="x")
    table = pa.Table.from_batches(rejects.losses().batches)
    assert table["kept"].to_pylist() == [{"x": 1.0}, {"x": None}, {"x": 0.5}]


# -- columns in which all is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shape", "fill"),
    [
        ("float32", (None,), [7, 7]),
        ("float32", (None, 2), [[7, 7], [7, 7]]),
        ("int64", (None,), [7, 7]),
        ("float32", None, [7, 7]),
    ],
)
def test_a_column_that_is_null_in_all_files_feeds_what_the_null_rule_says(dtype: str, shape: Any, fill: Any) -> None:
    spec = {"x": TensorSpec("x", dtype, shape, "x:0")}
    (fed,) = Files(pa.nulls(2)).fed(spec, inputs={"x": {"column": "x", "null": {"fill": 7}}})
    assert fed["x"].tolist() == fill


def test_without_a_rule_each_row_of_such_a_column_is_bad() -> None:
    void = Files(pa.nulls(2))
    bad = error(void.bound(model("string")), void.batches[0])
    assert (bad.facts["code"], bad.at.tolist()) == ("ROW_NULL", [0, 1])
    assert "'null:' rule" in bad.message


@pytest.mark.parametrize("kind", [pa.null(), pa.list_(pa.null())], ids=str)
def test_rows_of_no_type_have_a_shape_as_other_null_rows_do(kind: pa.DataType) -> None:
    void = Files(pa.nulls(2, kind))
    rows, rule = pa.Table.from_batches(void.batches), {"column": "x", "null": {"fill": [[1, 2, 3]]}}
    spec = model("float32", (None, None, None))
    assert void.bound(spec, inputs={"x": rule}).shapes(rows).tolist() == [[1, 3], [1, 3]]
    assert void.bound(spec).shapes(rows) is not None


@pytest.mark.parametrize("kind", [pa.null(), pa.list_(pa.null()), pa.list_(pa.list_(pa.null()))], ids=str)
@pytest.mark.parametrize("levels", [1, 2])
def test_empty_lists_of_no_type_feed_ragged_sparse_and_padded_tensors(kind: pa.DataType, levels: int) -> None:
    if str(kind).count("list") > levels:
        return
    rows = pa.nulls(2) if pa.types.is_null(kind) else pa.array([[], None], kind)
    rule = {"x": {"column": "x", "null": {"fill": []}}}
    splits = {f"x_{at}": TensorSpec(f"x_{at}", "int64", (None,), f"x_{at}:0") for at in range(1, levels + 1)}
    (fed,) = Files(rows).fed({**model("float32"), **splits}, inputs=rule)
    assert (len(fed["x"]), fed["x_1"].tolist()) == (0, [0, 0, 0])
    rule["x"]["pad"] = {"to": "max"}
    (fed,) = Files(rows).fed(model("float32", (None,) * (1 + levels)), inputs=rule)
    assert fed["x"].shape[0] == 2
    assert fed["x"].size == 0 or not fed["x"].any()


def test_a_feature_of_no_type_is_left_out_of_an_example() -> None:
    rule = {"x": {"example": {"columns": ["x"]}}}
    (fed,) = Files(pa.nulls(2)).fed(model("string"), inputs=rule)
    assert len(set(fed["x"].values.to_pylist())) == 1
