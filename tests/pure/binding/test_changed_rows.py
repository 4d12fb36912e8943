"""Rows in which `cast: unsafe` changes a value: counted, whatever the input is made of, with Python as the oracle."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import CHANGED, NAN_ANSWER, ODD_INPUT, Binding
from runner.model.signature import Signature, TensorSpec

PAIR = pa.struct([("re", pa.float64()), ("im", pa.float64())])


def bound(batch: pa.RecordBatch, *specs: TensorSpec, **rules: Any) -> Binding:
    outputs = {"y": TensorSpec("y", "float32", (None,), "y:0")}
    model = Signature("s", "", {spec.name: spec for spec in specs}, outputs)
    return bind(Columns.model_validate({"inputs": rules}), batch.schema, model, "list")


def x(dtype: str, *row: int | None) -> TensorSpec:
    return TensorSpec("x", dtype, (None, *row), "x:0")


def changed(spec: TensorSpec, values: pa.Array, **rule: Any) -> list[int]:
    batch = pa.RecordBatch.from_pydict({"c": values})
    binding = bound(batch, spec, x={"column": "c", "cast": "unsafe", **rule})
    binding.feed(batch)
    mask = binding.changed_rows(batch)
    return [] if mask is None else np.flatnonzero(mask).tolist()


@settings(deadline=None)
@given(
    source=st.sampled_from(["int8", "int64", "uint64", "float32", "float64", "bool"]),
    target=st.sampled_from(["int8", "int32", "int64", "uint64", "float16", "float32", "float64", "bool"]),
    data=st.data(),
)
def test_a_row_is_counted_where_the_tensor_holds_another_number(source: str, target: str, data: st.DataObject) -> None:
    kind = np.dtype(source)
    if kind.kind == "b":
        one: Any = st.booleans()
    elif kind.kind == "f":
        edges = st.sampled_from([0.5, -0.0, 2.0**24, 2.0**31, 2.0**63, 2.0**64, -1.0])
        one = edges | st.floats(width=8 * kind.itemsize)
    else:
        info = np.iinfo(kind)
        near = st.sampled_from([0, 1, 127, 128, 2**24 + 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -1, -(2**63)])
        one = near.filter(lambda value: info.min <= value <= info.max) | st.integers(int(info.min), int(info.max))
    values = data.draw(st.lists(one, min_size=1, max_size=8))
    batch = pa.RecordBatch.from_pydict({"c": pa.array(values, getattr(pa, source if source != "bool" else "bool_")())})
    binding = bound(batch, x(target), x={"column": "c", "cast": "unsafe"})
    fed = np.asarray(binding.feed(batch)["x"]).tolist()
    read = batch["c"].to_pylist()
    wanted = [at for at, (a, b) in enumerate(zip(read, fed, strict=True)) if a != b and not (a != a and b != b)]
    mask = binding.changed_rows(batch)
    assert ([] if mask is None else np.flatnonzero(mask).tolist()) == wanted


@pytest.mark.parametrize(
    ("spec", "values", "rule", "rows"),
    [
        (x("int64"), pa.array([Decimal("1.50"), Decimal("2.00"), Decimal(10**25)], pa.decimal128(38, 2)), {}, [0, 2]),
        (x("float32"), pa.array([Decimal("0.10"), Decimal("0.50")], pa.decimal128(9, 2)), {}, [0]),
        (x("int64"), pa.array([1500, 2000], pa.timestamp("ms")), {"timestamp": "s"}, [0]),
        (x("int32"), pa.array([1500, 2000, 2**43 * 1000], pa.timestamp("ms")), {"timestamp": "s"}, [0, 2]),
        (x("complex64"), pa.array([{"re": 0.1, "im": 1.0}, {"re": 1.0, "im": 2.0}], PAIR), {}, [0]),
        (x("int32", 2), pa.array([[1.0, 2.0], [1.0, 2.5]], pa.list_(pa.float64(), 2)), {}, [1]),
        (x("int32", None), pa.array([[1.5], [1.0, 2.0], [3.0, 0.5]]), {"pad": "max"}, [0, 2]),
        (x("int32"), pa.array([None, 1.5, 2.0]), {"null": {"fill": 7}}, [1]),
        (x("float32"), pa.array([2**24 + 1, 3], pa.int64()), {"cast": "nearest"}, []),
        (x("float32"), pa.array([3, 2**24], pa.int64()), {}, []),
    ],
    ids=str,
)
def test_whatever_an_input_is_made_of(
    spec: TensorSpec, values: pa.Array, rule: dict[str, Any], rows: list[int]
) -> None:
    assert changed(spec, values, **rule) == rows


def test_stacks_ragged_inputs_and_examples_are_counted_by_row() -> None:
    lists = pa.array([[1.0], [2.5, 1.0], []])
    batch = pa.RecordBatch.from_pydict(
        {"a": [1.5, 2.0, 3.0], "b": [1.0, 2.0, 3.5], "r": lists, "big": [0.1, 0.5, 1e300]}
    )
    unsafe = {"cast": "unsafe"}
    both = bound(batch, x("int32", 2), x={"stack": ["a", "b"], **unsafe})
    assert np.flatnonzero(both.changed_rows(batch)).tolist() == [0, 2]
    parts = [TensorSpec("r", "int32", (None,), "r:0"), TensorSpec("r_1", "int64", (None,), "r_1:0")]
    ragged = bound(batch, *parts, r={"column": "r", "as": "ragged", **unsafe})
    assert np.flatnonzero(ragged.changed_rows(batch)).tolist() == [1]
    examples = bound(batch, x("string"), x={"example": {"columns": ["big", "a"]}, **unsafe})
    assert np.flatnonzero(examples.changed_rows(batch)).tolist() == [0, 2]


def test_what_changed_is_one_of_the_marks_of_a_row() -> None:
    batch = pa.RecordBatch.from_pydict({"c": [2**24 + 1, 5, 2**24 + 3], "z": [1.0, np.inf, np.inf]})
    binding = bound(
        batch, x("float32"), TensorSpec("z", "float64", (None,), "z:0"), x={"column": "c", "cast": "unsafe"}
    )
    answers = {"y": np.array([1.0, np.nan, np.nan], np.float32)}
    marks = binding.marks(batch, binding.feed(batch), answers, binding.fetch(batch, answers))
    assert marks is not None
    assert marks.tolist() == [CHANGED, NAN_ANSWER | ODD_INPUT, CHANGED | NAN_ANSWER | ODD_INPUT]


@pytest.mark.surprises
def test_counting_costs_some_times_what_feeding_does(saw: Any) -> None:
    from time import process_time

    rows, width = 65_536, 32
    values = np.random.default_rng(0).standard_normal(rows * width)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), width)
    for kind, wide in (("whole", column.flatten().cast(pa.int64(), safe=False)), ("all change", column.flatten())):
        batch = pa.RecordBatch.from_pydict({"c": pa.FixedSizeListArray.from_arrays(wide, width)})
        binding = bound(batch, x("float32", width), x={"column": "c", "cast": "unsafe"})
        binding.feed(batch)  # the first one takes longer
        began = process_time()
        binding.feed(batch)
        fed = process_time()
        binding.changed_rows(batch)
        saw(f"{rows:,} rows of {width} ({kind}): fed in {fed - began:.4f} s, counted in {process_time() - fed:.4f} s")
