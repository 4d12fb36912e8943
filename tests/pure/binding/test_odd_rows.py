"""Rows with NaN or infinity among their inputs: found in whatever way they are fed, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.section.columns import Columns
from runner.binding.bind import bind
from runner.binding.binding import NAN_ANSWER, ODD_INPUT, UNSEEN, Binding
from runner.model.signature import Signature, TensorSpec
from runner.tensor import AS_BITS, FLOATS, Feeds, bits_of, carrier, nonfinite, rows_of

NAN, INF = float("nan"), float("inf")


def tensor(name: str, dtype: str = "float32", shape: Any = (None,)) -> TensorSpec:
    return TensorSpec(name, dtype, shape, f"{name}:0")


def bound(specs: list[TensorSpec], schema: pa.Schema, targets: Any = (), **columns: Any) -> Binding:
    targets = targets or [tensor("y")]
    model = Signature("s", "", {spec.name: spec for spec in specs}, {spec.name: spec for spec in targets})
    return bind(Columns.model_validate(columns), schema, model, "fixed_shape_tensor")


def odd(binding: Binding, batch: pa.RecordBatch) -> list[int]:
    found = binding.odd_rows(binding.feed(batch), batch.num_rows)
    return [] if found is None else np.flatnonzero(found).tolist()


def carried(values: Any, dtype: str) -> Any:
    return bits_of(values, dtype) if dtype in AS_BITS else values.astype(carrier(dtype))


def holds_infinity(dtype: str) -> bool:
    return dtype not in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz")


@pytest.mark.parametrize("size", [(0, 3), (5, 1), (7, 3), (3000, 5)])
@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_what_is_not_finite_is_found_in_every_dtype_at_every_place(dtype: str, size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    values = draw.uniform(-20, 20, size=size)  # which the smallest of them holds
    assert nonfinite(carried(values, dtype), dtype) is None
    for what in (NAN, -NAN, INF, -INF):
        if np.isinf(what) and not holds_infinity(dtype):
            continue
        for at in {0, values.size // 2, values.size - 1} if values.size else ():
            changed = values.copy()
            changed.flat[at] = what
            mask = nonfinite(carried(changed, dtype), dtype)
            assert mask is not None
            assert np.flatnonzero(mask).tolist() == [at]
            assert np.flatnonzero(rows_of(mask)).tolist() == [at // size[1]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rows", [10, 20_000])
def test_finite_values_that_are_too_large_for_a_sum_are_no_false_alarm(dtype: str, rows: int) -> None:
    largest = np.full((rows, 2), np.finfo(dtype).max, dtype)
    assert nonfinite(largest, dtype) is None
    largest[3, 0] = -INF
    mask = nonfinite(largest, dtype)
    assert mask is not None
    assert np.flatnonzero(rows_of(mask)).tolist() == [3]


def test_integers_and_texts_hold_none() -> None:
    assert nonfinite(np.arange(3), "int64") is None


def test_rows_are_found_in_columns_lists_and_stacks_and_where_null_becomes_nan() -> None:
    inputs = [tensor("a"), tensor("b", shape=(None, 2)), tensor("c", "float64", (None, 2)), tensor("n", "int64")]
    batch = pa.record_batch(
        {
            "a": pa.array([1, NAN, 3, 4, 5, 6], pa.float32()),
            "b": pa.array([[0, 0], [0, 0], [0, INF], [0, 0], [0, 0], [0, 0]], pa.list_(pa.float32(), 2)),
            "c0": pa.array([0, 0, 0, None, 0, 0], pa.float64()),
            "c1": pa.array([0, -INF, 0, 0, 0, 0], pa.float64()),
            "n": pa.array(range(6), pa.int64()),
        }
    )
    stack = {"stack": "c*", "null": "nan"}
    binding = bound(inputs, batch.schema, inputs={"c": stack})
    assert odd(binding, batch) == [1, 2, 3]
    assert odd(binding, batch.slice(4)) == []
    assert binding.nan_filled == ["c"]
    assert [one.name for one in binding.odd_inputs] == ["a", "b", "c"]
    strict = binding.finite()
    assert [one.name for one in strict.odd_inputs] == ["c"], "what `null: nan` put there passes, as asked"
    assert odd(strict, batch.slice(3)) == [0]
    assert bound(inputs, batch.schema, inputs={"c": "b"}).finite().odd_inputs == [], "nothing is left to look at"


def test_what_fills_up_a_fixed_batch_is_no_row() -> None:
    batch = pa.record_batch({"x": pa.array([1, 2, NAN], pa.float32())})
    binding = bound([tensor("x", shape=(8,))], batch.schema, [tensor("y", shape=(8,))])
    feeds = binding.feed(batch)
    assert np.isnan(np.asarray(feeds["x"])).sum() == 6
    assert odd(binding, batch) == [2]


def test_constants_are_no_rows() -> None:
    batch = pa.record_batch({"x": pa.array([1, 2], pa.float32())})
    binding = bound([tensor("x"), tensor("k", shape=(2,))], batch.schema, inputs={"k": {"constant": [1, 2]}})
    assert [one.name for one in binding.odd_inputs] == ["x"]


def test_rows_are_found_in_lists_of_any_length() -> None:
    lists = pa.array([[1.0], [], [2.0, NAN], [3.0], [INF, 4.0]], pa.list_(pa.float32()))
    batch = pa.record_batch({"r": lists})
    ragged = bound([tensor("r"), tensor("r_1", "int64")], batch.schema)
    sparse = bound(
        [tensor("r", "int64", (None, 2)), tensor("r_1"), tensor("r_2", "int64", (2,))],
        batch.schema,
        inputs={"r": {"column": "r", "as": "sparse"}},
    )
    padded = bound([tensor("r", shape=(None, None))], batch.schema, inputs={"r": {"column": "r", "pad": "max"}})
    for binding in (ragged, sparse, padded):
        assert odd(binding, batch) == [2, 4]
        assert odd(binding, batch.slice(0, 2)) == []


def test_a_tensor_of_two_names_is_looked_at_once() -> None:
    twins = [TensorSpec(name, "float32", (None,), "t:0") for name in ("a", "b")]
    batch = pa.record_batch({"v": pa.array([NAN, 1], pa.float32())})
    binding = bound(twins, batch.schema, inputs={"a": "v", "b": "v"})
    assert [one.name for one in binding.odd_inputs] == ["a"]


@pytest.mark.parametrize("encoding", ["fixed_shape_tensor", "binary"])
def test_a_row_whose_outputs_are_all_finite_is_marked(encoding: str) -> None:
    outputs = {spec.name: spec for spec in (tensor("y"), tensor("z", shape=(None, 2)), tensor("n", "int64"))}
    batch = pa.record_batch({"x": pa.array([NAN, NAN, 3, 4, NAN, INF], pa.float32())})
    model = Signature("s", "", {"x": tensor("x")}, outputs)
    binding = bind(Columns(), batch.schema, model, encoding)
    answers: Feeds = {
        "y": np.array([NAN, 1, 1, NAN, 1, 1], np.float32),
        "z": np.array([[1, 1]] * 4 + [[1, -INF], [1, 1]], np.float32),
        "n": np.zeros(6, np.int64),
    }
    feeds = binding.feed(batch)
    marks = binding.marks(batch, feeds, answers, binding.fetch(batch, answers))
    assert marks is not None
    assert marks.tolist() == [ODD_INPUT | NAN_ANSWER, ODD_INPUT | UNSEEN, 0, NAN_ANSWER, ODD_INPUT, ODD_INPUT | UNSEEN]
    few = batch.slice(2, 1)
    fine = {name: np.asarray(answer)[2:3] for name, answer in answers.items()}
    assert binding.marks(few, binding.feed(few), fine, binding.fetch(few, fine)) is None


def test_the_outputs_may_be_lists() -> None:
    batch = pa.record_batch({"x": pa.array([NAN, NAN, 3], pa.float32())})
    parts = (tensor("y"), tensor("y_1", "int64"))
    whole = TensorSpec("y", "float32", (None, None), "", "ragged", parts)
    binding = bound([tensor("x")], batch.schema, [whole])
    answers: Feeds = {"y": np.array([1, INF, 2], np.float32), "y_1": np.array([0, 1, 2, 3], np.int64)}
    marks = binding.marks(batch, binding.feed(batch), answers, binding.fetch(batch, answers))
    assert marks is not None
    assert marks.tolist() == [ODD_INPUT | UNSEEN, ODD_INPUT, 0]
