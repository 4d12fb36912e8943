"""Quantiles of a sketch against those of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.compare.sketch import ERROR, Sketch

DISTANCES = st.lists(st.floats(0, 1e300) | st.sampled_from([0.0, 1.0, 5e-324, 1e-310, 0.1, 10.0]), min_size=1)


@settings(deadline=None, max_examples=60)
@given(distances=DISTANCES, cut=st.integers(0, 20))
def test_a_quantile_is_as_near_to_that_of_all_values_as_the_sketch_says(distances: list[float], cut: int) -> None:
    values, sketch = np.array(distances), Sketch()
    sketch.add(values[:cut])
    sketch.add(values[cut:])
    for share in (0.0, 0.5, 0.9, 0.999, 1.0):
        exact = float(np.quantile(values, share, method="inverted_cdf"))
        assert sketch.quantile(share) == pytest.approx(exact, rel=ERROR, abs=np.finfo(float).tiny)
        assert sketch.quantile(share) <= exact
    assert (sketch.largest, sketch.total, sketch.zeros) == (values.max(), len(values), np.sum(values == 0))
    assert sum(sketch.decades().values()) == sketch.total - sketch.zeros


def test_a_decade_begins_with_its_power_of_ten() -> None:
    sketch = Sketch()
    sketch.add(np.array([0.0, 0.001, 0.00999, 0.01, 1.0, 9.99, 10.0, 1e-300]))
    assert sketch.decades() == {-300: 1, -3: 2, -2: 1, 0: 2, 1: 1}


def test_half_of_a_million_distances_lie_below_the_median() -> None:
    values, sketch = np.random.default_rng(0).exponential(size=1_000_000), Sketch()
    for piece in np.array_split(values, 7):
        sketch.add(piece)
    for share in (0.5, 0.9, 0.99, 0.999):
        assert sketch.quantile(share) == pytest.approx(np.quantile(values, share), rel=2 * ERROR)


@given(whole=st.lists(st.integers(0, 2048), min_size=1))
@settings(deadline=None, max_examples=30)
def test_small_whole_numbers_have_exact_quantiles(whole: list[int]) -> None:
    sketch = Sketch()
    sketch.add(np.array(whole, float))
    for share in (0.0, 0.5, 0.9, 1.0):
        assert sketch.quantile(share) == np.quantile(whole, share, method="inverted_cdf")
