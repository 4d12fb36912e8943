"""The trial with NaN, on models of NumPy: which outputs a NaN does not reach, however an input is fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import ModelCallError
from jobs.section.columns import Columns
from jobs.section.limits import Limits
from runner.binding.bind import bind
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Array, Feeds, Outputs, bfloat16_bits, bfloat16_values
from runner.worker.trial.sample import Sample
from runner.worker.trial.subject import Subject
from runner.worker.trial.trial import Trial, try_nan

NAN = float("nan")


class Engine:
    devices: tuple[str, ...] = ()

    def __init__(self, answer: Callable[[Mapping[str, Array]], Outputs]) -> None:
        self._answer = answer
        self.calls: list[int] = []

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        fed = {name: np.asarray(value) for name, value in feeds.items()}
        self.calls.append(max(len(value) for value in fed.values()))
        return self._answer(fed)

    def placed(self, feeds: Feeds, fetches: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        return {}

    def close(self) -> None: ...


def tensor(name: str, dtype: str = "float32", shape: Any = (None,)) -> TensorSpec:
    return TensorSpec(name, dtype, shape, f"{name}:0")


def unseen(
    engine: Engine,
    specs: Sequence[TensorSpec],
    batch: pa.RecordBatch,
    targets: Sequence[TensorSpec] = (tensor("y"),),
    batch_rows: int = 100,
    **columns: Any,
) -> Mapping[str, Sequence[str]]:
    signature = Signature("s", "", {one.name: one for one in specs}, {one.name: one for one in targets})
    binding = bind(Columns.model_validate(columns), batch.schema, signature, "list")
    subject = Subject(engine, binding, signature, Sample(binding, signature, batch), batch_rows, "m")
    return try_nan(Trial("input", True), subject, Limits()).unseen


def rows(**columns: pa.Array) -> pa.RecordBatch:
    return pa.record_batch(columns)


def row_sums(values: Array, splits: Array) -> Array:
    return np.add.reduceat(values, splits[:-1]).astype(np.float32)


@pytest.mark.parametrize("swallowed", [True, False])
def test_a_nan_in_a_list_is_put_into_the_values_of_its_own_row(swallowed: bool) -> None:
    lists = rows(r=pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32())))

    def ragged(fed: Mapping[str, Array]) -> Outputs:
        values = np.nan_to_num(fed["r"]) if swallowed else fed["r"]
        return {"y": row_sums(values, fed["r_1"])}

    def sparse(fed: Mapping[str, Array]) -> Outputs:
        values = np.nan_to_num(fed["r_1"]) if swallowed else fed["r_1"]
        sums = np.zeros(int(fed["r_2"][0]), np.float32)
        np.add.at(sums, fed["r"][:, 0], values)
        return {"y": sums}

    expected = {"r": ("y",)} if swallowed else {}
    assert unseen(Engine(ragged), [tensor("r"), tensor("r_1", "int64")], lists) == expected
    parts = [tensor("r", "int64", (None, 2)), tensor("r_1"), tensor("r_2", "int64", (2,))]
    assert unseen(Engine(sparse), parts, lists, inputs={"r": {"column": "r", "as": "sparse"}}) == expected


def test_a_nan_in_bfloat16_goes_in_and_is_seen_coming_out() -> None:
    def answer(fed: Mapping[str, Array]) -> Outputs:
        x = bfloat16_values(fed["x"].astype(np.uint16))
        return {"kept": bfloat16_bits(x), "lost": bfloat16_bits(np.where(np.isnan(x), np.float32(7), x))}

    outputs = [tensor("kept", "bfloat16"), tensor("lost", "bfloat16")]
    batch = rows(x=pa.array([1.0, 2.0], pa.float32()))
    assert unseen(Engine(answer), [tensor("x", "bfloat16")], batch, outputs) == {"x": ("lost",)}


def test_a_fixed_batch_and_a_tensor_of_two_names_are_fed_as_ever() -> None:
    def answer(fed: Mapping[str, Array]) -> Outputs:
        assert fed["a"] is fed["b"] or np.shares_memory(fed["a"], fed["b"])
        assert fed["a"].shape == (4,)
        return {"y": np.nan_to_num(fed["a"])}

    twins = [TensorSpec(name, "float32", (4,), "t:0") for name in ("a", "b")]
    same = {"inputs": {"a": "x", "b": "x"}}
    batch = rows(x=pa.array([1.0, 2.0], pa.float32()))
    assert unseen(Engine(answer), twins, batch, [tensor("y", shape=(4,))], 4, **same) == {"a": ("y",)}


def test_an_input_whose_nan_is_refused_does_not_hide_what_becomes_of_the_others() -> None:
    def answer(fed: Mapping[str, Array]) -> Outputs:
        if np.isnan(fed["strict"]).any():
            raise ModelCallError("found NaN", code="INVALID_ARGUMENT")
        return {"y": np.nan_to_num(fed["lax"]) + fed["strict"]}

    batch = rows(lax=pa.array([1.0], pa.float32()), strict=pa.array([1.0], pa.float32()))
    assert unseen(Engine(answer), [tensor("lax"), tensor("strict")], batch) == {"lax": ("y",)}


def test_what_is_not_finite_in_the_sample_and_what_is_random_say_nothing() -> None:
    draw = np.random.default_rng(0)

    def answer(fed: Mapping[str, Array]) -> Outputs:
        return {"y": np.nan_to_num(fed["x"]) + 1, "noise": draw.random(len(fed["x"]), np.float32)}

    batch = rows(x=pa.array([NAN, 2.0], pa.float32()))
    assert unseen(Engine(answer), [tensor("x")], batch, [tensor("y"), tensor("noise")]) == {}  # as if it were 0
    batch = rows(x=pa.array([5.0, NAN], pa.float32()))
    assert unseen(Engine(answer), [tensor("x")], batch, [tensor("y"), tensor("noise")]) == {"x": ("y",)}


def test_many_inputs_take_few_calls_and_none_is_larger_than_the_job_allows() -> None:
    names = [f"c{number}" for number in range(100)]
    batch = rows(**{name: pa.array([1.0], pa.float32()) for name in names})
    specs = [tensor(name) for name in names]
    for most, calls in ((1000, 5), (10, 21)):
        engine = Engine(lambda fed: {"y": np.nan_to_num(np.sum(list(fed.values()), axis=0))})
        found = unseen(engine, specs, batch, batch_rows=most)
        assert list(found) == names
        assert len(engine.calls) == calls
        assert max(engine.calls) <= min(most, 64)
