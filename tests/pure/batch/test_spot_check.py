"""A few rows of a batch called again, on models of NumPy: who is caught, who is left alone, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import ModelCallError, ModelError
from jobs.section.columns import Columns
from runner.batch.batches import Where
from runner.batch.spot_check import SpotCheck
from runner.binding.bind import bind
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Array, Feeds, Outputs, Strings

F32 = np.float32
Model = Callable[[Mapping[str, Any]], Outputs]


def of(function: Callable[[Array], Any]) -> Model:
    return lambda fed: {"y": np.asarray(function(np.asarray(fed["x"])))}


def checked(model: Model, *batches: Sequence[Any], fixed: int | None = None, dtype: str = "float32") -> int:
    """The calls that it made beside those of the batches."""
    calls = 0

    def run(feeds: Feeds) -> Outputs:
        nonlocal calls
        calls += 1
        return model(feeds)

    spec, output = TensorSpec("x", dtype, (fixed,), "x:0"), TensorSpec("y", dtype, (fixed,), "y:0")
    kind = pa.string() if dtype == "string" else pa.float32()
    binding = bind(Columns(), pa.schema([("x", kind)]), Signature("s", "", {"x": spec}, {"y": output}), "list")
    check = SpotCheck(run, binding, "signature 's' of model 'm'")
    for number, values in enumerate(batches):
        batch = pa.record_batch({"x": pa.array(values, kind)})
        feeds = binding.feed(batch)
        check(Where("in.parquet", number), np.arange(len(values)), batch, feeds, model(feeds))
    return calls


COUPLED: dict[str, Callable[[Array], Array]] = {
    "cumulative sum": np.cumsum,
    "largest so far": np.maximum.accumulate,
    "first row": lambda x: x * 0 + x[0],
    "last row": lambda x: x * 0 + x[-1],
    "reversed": lambda x: x[::-1].copy(),
    "sorted": np.sort,
    "shifted": lambda x: np.concatenate([x[:1] * 0, x[:-1]]),
    "softmax": lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
    "centred": lambda x: x - x.mean(),
}
BATCHES: dict[str, list[list[float]]] = {
    "random": [np.random.default_rng(0).normal(3, 1, 200).tolist()],
    "two rows": [[1.0, 4.0]],
    "sorted": [[float(value) for value in range(1, 300)]],
    "equal ones first": [[7.0] * 100, [7.0], [7.0, 7.0], [7.0] * 50 + [1.0, 9.0, 2.0] + [7.0] * 20],
}


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("coupled", COUPLED)
def test_answers_that_left_their_rows_end_the_job_with_the_first_batch_whose_rows_differ(
    coupled: str, rows: str
) -> None:
    if (coupled, rows) == ("largest so far", "two rows"):
        return  # one of two may be a number that was rounded
    with pytest.raises(ModelError, match=r"output 'y' of signature 's' .* depend on the rows .*'in.parquet' row group"):
        checked(of(COUPLED[coupled]), *BATCHES[rows])


@pytest.mark.parametrize("fixed", [None, 400])
@pytest.mark.parametrize("rows", BATCHES)
def test_answers_that_stay_with_their_rows_cost_four_calls(rows: str, fixed: int | None) -> None:
    noise = np.random.default_rng(0)
    for model in (
        of(lambda x: x * 2),
        of(lambda x: x + np.full(len(x), noise.normal(0, 1e-7), F32)),
        of(lambda x: x * (1 + F32(1e-5) * len(x))),
    ):
        calls = checked(model, *BATCHES[rows], *BATCHES["random"], *BATCHES["random"], fixed=fixed)
        assert calls == (3 if rows == "two rows" else 4)


def test_random_answers_and_refusals_end_nothing() -> None:
    draw = np.random.default_rng(0)
    assert checked(of(lambda x: x + draw.random(len(x), F32)), *BATCHES["random"]) == 5

    given = iter([0.1, 0.9, 0.3, 0.5, 0.7, 0.9, 0.2, 0.6])  # the second twice: two draws may be equal
    assert checked(of(lambda x: x + F32(10 * next(given))), *BATCHES["random"]) == 7

    def many(fed: Mapping[str, Any]) -> Outputs:
        if len(fed["x"]) < 100:
            raise ModelCallError("too few", code="INVALID_ARGUMENT")
        return {"y": fed["x"]}

    assert checked(many, *BATCHES["random"], *BATCHES["random"]) == 1


def test_one_row_that_rounds_to_another_number_is_no_mix() -> None:
    def rounded(x: Array) -> Array:
        return np.where((x == 100) & (len(x) < 10), x + 1, x)

    assert checked(of(rounded), BATCHES["sorted"][0]) == 4


def test_what_rounds_by_the_size_of_a_call_alone_is_no_mix_unless_it_is_far_off() -> None:
    """As bfloat16 does: by more than a fiftieth, where a number is small beside those that it is the sum of."""
    rows = BATCHES["random"][0]
    assert checked(of(lambda x: x * F32(1 + 0.2 * (len(x) > 10))), rows, rows) == 6
    for wrong in (lambda x: x / len(x), lambda x: x * F32(1 + 0.2 * x.mean()), lambda x: x + F32(0.05) * x[::-1]):
        with pytest.raises(ModelError, match="depend on the rows beside a row"):
            checked(of(wrong), rows)


def test_rows_or_answers_that_are_always_equal_are_looked_at_a_few_times() -> None:
    assert checked(of(lambda x: x), *[[7.0] * 50] * 200) == 0
    assert checked(of(lambda x: x * 0), *BATCHES["random"] * 20) == 4 * 4


def test_texts_are_compared() -> None:
    def model(fed: Mapping[str, Any]) -> Outputs:
        values = fed["x"].values.to_pylist()
        return {"y": Strings(pa.array(values[::-1], pa.large_binary()), (len(values),))}

    words = [f"word {number}" for number in range(40)]
    with pytest.raises(ModelError, match="depend on the rows beside a row"):
        checked(model, words, dtype="string")
    assert checked(lambda fed: {"y": fed["x"]}, words, dtype="string") == 4
