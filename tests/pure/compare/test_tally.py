"""The sums over many batches, and the rows that are kept of them, against NumPy over all rows at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.compare import tally as tallying
from runner.compare.distance import kind_of
from runner.compare.tally import Tally

NUMBERS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, math.nan, math.inf])


def tallied(left: list[Any], right: list[Any], kind: pa.DataType, batch: int = 3, most: int = 4) -> Tally:
    """In batches of so many rows."""
    tally = Tally(kind_of(kind), most)
    for first in range(0, len(left), batch):
        stop = first + batch
        tally.add(pa.array(left[first:stop], kind), pa.array(right[first:stop], kind), 0, first)
    return tally


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), batch=st.integers(1, 8))
def test_sums_over_batches_are_those_over_all_rows(rows: list[tuple[float, float]], batch: int) -> None:
    left, right = (np.array([row[side] for row in rows], np.float32).astype(float) for side in (0, 1))
    tally = tallied(left.tolist(), right.tolist(), pa.float32(), batch)
    with np.errstate(invalid="ignore"):
        difference = np.where(left == right, 0.0, right - left)
    finite = difference[np.isfinite(difference)]
    assert (tally.rows, tally.measured, tally.infinite) == (len(rows), len(finite), np.isinf(difference).sum())
    assert tally.total == pytest.approx(finite.sum(), rel=1e-9, abs=1e-3)
    assert tally.total_absolute == pytest.approx(np.abs(finite).sum(), rel=1e-9)
    assert tally.nan_both == (np.isnan(left) & np.isnan(right)).sum()
    assert tally.nan_left + tally.nan_both == np.isnan(left).sum()
    assert tally.nan_right + tally.nan_both == np.isnan(right).sum()

    key = np.where(np.isnan(difference), math.inf, np.abs(difference))
    key[np.isnan(left) & np.isnan(right)] = -1  # equal
    first = [int(row) for row in np.argsort(-key, kind="stable")[:4] if key[row] > 0]
    assert [far.row for far in tally.far if far.distance > 0] == first


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_the_correlation_is_that_of_numpy_wherever_the_mean_lies(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    left = drawn.normal(1e6, 1, 100)
    right = left * drawn.normal() + drawn.normal(-1e6, 1, 100)
    found = tallied(left.tolist(), right.tolist(), pa.float64(), batch=7).moments.correlation
    assert found == pytest.approx(np.corrcoef(left, right)[0, 1], abs=1e-6)


@pytest.mark.parametrize("left", [[], [1.0], [2.0, 2.0, 2.0], [math.nan, 1.0]])
def test_what_does_not_vary_has_no_correlation(left: list[float]) -> None:
    assert tallied(left, [1.0, 2.0, 3.0][: len(left)], pa.float32()).moments.correlation is None


def test_labels_are_counted_in_pairs_and_long_ones_are_cut() -> None:
    left, right = ["a", "b", "a", None, "x" * 500], ["a", "c", "b", "a", "y" * 500]
    tally = tallied(left, right, pa.string(), most=2)
    assert tally.pairs == {("b", "c"): 1, ("a", "b"): 1, (None, "a"): 1, ("x" * 100 + "...", "y" * 100 + "..."): 1}
    assert [(far.row, far.left, far.right, far.difference) for far in tally.far] == [
        (1, "b", "c", None),
        (2, "a", "b", None),
    ]
    assert (tally.rows, tally.equal, tally.measured, tally.unmatched) == (5, 1, 0, 1)


def test_too_many_different_pairs_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallying, "MOST_PAIRS", 3)
    assert tallied([1, 2, 3], [2, 3, 4], pa.int64()).pairs is not None
    tally = tallied([1, 2, 3, 4, 5], [2, 3, 4, 5, 6], pa.int64())
    assert tally.pairs is None
    assert (tally.rows, tally.total, tally.equal) == (5, 5.0, 0)


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert tallied([b"\xff"], [b"a"], pa.binary()).pairs == {("\\xff", "a"): 1}
