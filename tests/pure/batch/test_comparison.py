"""Two answers to the same rows: what counts as equal, where they differ, and what the uncompiled model refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import ModelCallError, ModelError
from jobs.section.columns import Columns
from runner.batch.batches import Where
from runner.batch.comparison import TOLERANCE, Comparison, difference
from runner.binding.bind import bind
from runner.model.signature import Signature, TensorSpec
from runner.tensor import Feeds, Outputs, Strings

F32 = np.float32


@pytest.mark.parametrize(
    ("compiled", "plain", "found"),
    [
        ([1.0, 1000.0], [1.9, 1000.0], None),  # within a thousandth of 1000
        ([1.0, 100.0], [1.9, 100.0], (0, "1.0, and uncompiled 1.899999976158142")),
        ([[1.0, 2.0], [3.0, 5.0]], [[1.0, 2.0], [3.0, 4.0]], (1, "5.0, and uncompiled 4.0")),
        ([1.0, np.nan], [1.0, np.nan], None),
        ([1.0, 2.0], [1.0, np.nan], (1, "2.0, and uncompiled nan")),
        ([np.inf, 1.0], [np.inf, 1.0], None),
        ([np.inf, 1.0], [-np.inf, 1.0], (0, "inf, and uncompiled -inf")),
        ([0.0], [0.0], None),
        ([[1.0]], [1.0], (0, "the shape [1, 1], and uncompiled [1]")),
    ],
)
def test_numbers_with_a_fraction_may_differ_by_a_share_of_the_largest(compiled: Any, plain: Any, found: Any) -> None:
    assert difference(np.array(compiled, F32), np.array(plain, F32), "float32", TOLERANCE) == found


def test_whole_numbers_and_strings_must_be_equal() -> None:
    whole = difference(np.array([1000, 1001]), np.array([1000, 1000]), "int64", TOLERANCE)
    assert whole == (1, "1001, and uncompiled 1000")
    one, other = (Strings(pa.array(values, pa.large_binary()), (2, 1)) for values in ([b"a", b"b"], [b"a", b"c"]))
    assert difference(one, other, "string", TOLERANCE) == (1, "b'b', and uncompiled b'c'")
    assert difference(one, one, "string", TOLERANCE) is None
    bits = np.array([0x3F80, 0x7FC0], np.uint16)  # 1 and NaN
    assert difference(bits, bits[::-1].copy(), "bfloat16", TOLERANCE) == (0, "1.0, and uncompiled nan")


class Plain:
    """Answers x // d, refuses a 0; counts its calls."""

    def __init__(self) -> None:
        self.calls, self.closed = 0, False

    def run(self, feeds: Feeds, fetches: Sequence[str]) -> Outputs:
        self.calls += 1
        d = np.asarray(feeds["d"])
        if (d == 0).any():
            raise ModelCallError("INVALID_ARGUMENT: Integer division by zero", code="INVALID_ARGUMENT")
        return {"y": (8 // d).astype(F32)}

    def close(self) -> None:
        self.closed = True


def compare(rows: int, batches: Sequence[Sequence[int]], answers: Sequence[Sequence[float]]) -> Plain:
    inputs, outputs = {"d": TensorSpec("d", "int64", (None,), "d:0")}, {"y": TensorSpec("y", "float32", (None,), "y:0")}
    binding = bind(Columns(), pa.schema([("d", pa.int64())]), Signature("s", "", inputs, outputs), "list")
    plain = Plain()
    comparison = Comparison(rows, lambda: plain, binding)
    for number, (values, answer) in enumerate(zip(batches, answers, strict=True)):
        batch = pa.record_batch({"d": pa.array(values, pa.int64())})
        where = Where("in.parquet", number, 100)
        comparison(where, np.arange(len(values)), batch, binding.feed(batch), {"y": np.array(answer, F32)})
    return plain


def test_so_many_rows_are_compared_and_then_the_second_model_is_let_go() -> None:
    plain = compare(3, [[1, 2], [4, 8], [0, 1]], [[8, 4], [2, -5], [0, 0]])
    assert (plain.calls, plain.closed) == (2, True)
    assert not compare(5, [[1, 2]], [[8, 4]]).closed


def test_a_row_with_another_answer_is_named_with_both() -> None:
    with pytest.raises(ModelError, match=r"output 'y' 5.0, and uncompiled 4.0 \['in.parquet' row group 0 row 101\]"):
        compare(9, [[1, 2]], [[8, 5]])


def test_a_row_that_is_refused_uncompiled_is_named_with_the_reason() -> None:
    batch = [1, 2, 4, 8, 1, 0, 2, 4, 0]
    reason = (
        r"an answer, and uncompiled INVALID_ARGUMENT: Integer division by zero \['in.parquet' row group 0 row 105\]"
    )
    with pytest.raises(ModelError, match=reason) as caught:
        compare(9, [batch], [[0.0] * 9])
    assert caught.value.facts == {"file": "in.parquet", "row_group": 0, "row": 105}
