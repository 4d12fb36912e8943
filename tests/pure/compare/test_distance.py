"""Two columns compared row by row, against what plain Python says of the same values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.compare.distance import comparable, compare, farthest, kind_of, spoken

FLOATS = st.one_of(st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf]), st.floats(width=32))
WHOLE = {
    pa.int8(): (-(2**7), 2**7 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint8(): (0, 2**8 - 1),
    pa.uint64(): (0, 2**64 - 1),
}
TOP = pa.list_(pa.struct([("index", pa.int32()), ("value", pa.float32())]))


def column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A slice of a longer array, as row groups may be."""
    return pa.array([*values[:1], *values, *values[-1:]], kind)[1 : len(values) + 1]


def apart(left: float, right: float) -> float:
    """Right minus left; NaN where there is no measure."""
    return 0.0 if left == right else right - left


def identical(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    return bool(left == right)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(FLOATS | st.none(), FLOATS | st.none())))
@pytest.mark.parametrize("kinds", [(pa.float32(), pa.float32()), (pa.float32(), pa.float64())])
def test_floats_are_equal_by_their_bits_and_differ_by_a_number(
    kinds: tuple[pa.DataType, pa.DataType], rows: list[tuple[float | None, float | None]]
) -> None:
    found = compare(*(column([row[side] for row in rows], kinds[side]) for side in (0, 1)))
    assert found.difference is not None
    for at, (left, right) in enumerate(rows):
        if left is None or right is None:
            assert found.equal[at] == (left is right)
            assert found.unmatched[at] == (left is not right)
            assert math.isnan(found.difference[at]) == (left is not right)
            continue
        widened = kinds[0] != kinds[1] and left == right
        assert found.equal[at] == (widened or identical(left, right))
        np.testing.assert_equal(found.difference[at], apart(left, right))
        assert (found.nan_left[at], found.nan_right[at]) == (math.isnan(left), math.isnan(right))
        assert not found.unmatched[at]


@settings(deadline=None, max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("left", WHOLE, ids=str)
@pytest.mark.parametrize("right", WHOLE, ids=str)
def test_whole_numbers_are_compared_as_such_beyond_what_a_float_holds(
    left: pa.DataType, right: pa.DataType, data: st.DataObject
) -> None:
    def near(kind: pa.DataType) -> st.SearchStrategy[int]:
        low, high = WHOLE[kind]
        edges = [n for n in (low, high, 0, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63)) if low <= n <= high]
        return st.sampled_from(edges) | st.integers(low, high)

    rows = data.draw(st.lists(st.tuples(near(left), near(right)), max_size=20))
    found = compare(column([row[0] for row in rows], left), column([row[1] for row in rows], right))
    assert found.difference is not None
    for at, (a, b) in enumerate(rows):
        assert found.equal[at] == (a == b)
        assert found.difference[at] == pytest.approx(b - a, rel=2**-52)
        assert (found.difference[at] == 0) == (a == b)


ELEMENTS = st.none() | FLOATS
ANY_LISTS = st.tuples(*[st.none() | st.lists(ELEMENTS, max_size=3)] * 2)
EQUAL_LENGTHS = st.lists(st.tuples(ELEMENTS, ELEMENTS), max_size=3).map(
    lambda pairs: ([left for left, _ in pairs], [right for _, right in pairs])
)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(ANY_LISTS | EQUAL_LENGTHS, max_size=20))
def test_a_list_differs_by_its_element_that_differs_most(rows: list[tuple[Any, Any]]) -> None:
    kind = pa.list_(pa.float64())
    found = compare(*(column([row[side] for row in rows], kind) for side in (0, 1)))
    assert found.difference is not None
    for at, (left, right) in enumerate(rows):
        if left is None or right is None or len(left) != len(right):
            assert found.equal[at] == (left is right)
            assert found.unmatched[at] == math.isnan(found.difference[at]) == (left is not right)
            continue
        pairs = list(zip(left, right, strict=True))
        assert found.equal[at] == all(a is b if None in (a, b) else identical(a, b) for a, b in pairs)
        assert found.unmatched[at] == any((a is None) != (b is None) for a, b in pairs)
        distances = [
            math.nan if None in (a, b) else abs(apart(a, b)) for a, b in pairs if a is not None or b is not None
        ]
        expected = math.nan if any(map(math.isnan, distances)) else max(distances, default=0.0)
        np.testing.assert_equal(found.difference[at], expected)


def test_of_two_elements_that_differ_the_larger_difference_counts() -> None:
    kind = pa.list_(pa.float32())
    found = compare(column([[1, 2], [1]], kind), column([[3, -1], [1, 2]], kind))
    assert found.difference is not None
    np.testing.assert_equal(found.difference, [3, math.nan])


def test_a_tensor_is_a_list_of_its_elements() -> None:
    left = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((3, 2, 2), np.float32))
    moved = np.zeros((3, 2, 2), np.float32)
    moved[1, 1, 0], moved[2] = -2.5, np.nan
    found = compare(left[1:], pa.FixedShapeTensorArray.from_numpy_ndarray(moved)[1:])
    assert found.equal.tolist() == [False, False]
    np.testing.assert_equal(found.difference, [2.5, math.nan])
    assert found.nan_right.tolist() == [False, True]


NESTED = pa.list_(pa.list_(pa.int32(), 2))


@pytest.mark.parametrize(
    ("kind", "left", "right", "equal"),
    [
        (pa.bool_(), [True, None, False], [True, None, True], [True, True, False]),
        (pa.string(), ["a", "", None], ["a", None, None], [True, False, True]),
        (pa.binary(2), [b"ab", b"cd"], [b"ab", b"ce"], [True, False]),
        (pa.list_(pa.string()), [["a"], [], ["a", "b"]], [["a"], ["a"], ["a", "c"]], [True, False, False]),
        (NESTED, [[[1, 2]], [[1, 2], [3, 4]], []], [[[1, 2]], [[1, 2], [3, 5]], []], [True, False, True]),
        (
            TOP,
            [[{"index": 1, "value": 0.5}], [{"index": 1, "value": 0.5}], [{"index": 1, "value": math.nan}], None],
            [[{"index": 1, "value": 0.5}], [{"index": 2, "value": 0.5}], [{"index": 1, "value": math.nan}], None],
            [True, False, True, True],
        ),
        (pa.timestamp("s"), [1, 2], [1, 3], [True, False]),
    ],
    ids=str,
)
def test_whatever_a_column_holds_it_is_equal_or_not(kind: pa.DataType, left: Any, right: Any, equal: Any) -> None:
    assert compare(column(left, kind), column(right, kind)).equal.tolist() == equal


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (pa.float16(), pa.float64(), True),
        (pa.int8(), pa.uint64(), True),
        (pa.int8(), pa.float32(), False),
        (pa.int8(), pa.bool_(), False),
        (pa.string(), pa.large_string(), True),
        (pa.string(), pa.binary(), False),
        (pa.list_(pa.float32(), 2), pa.list_(pa.float32(), 3), False),
        (pa.list_(pa.float32(), 2), pa.list_(pa.float64()), True),
        (pa.list_(pa.float32()), pa.float32(), False),
        (pa.fixed_shape_tensor(pa.float32(), [2, 3]), pa.fixed_shape_tensor(pa.float32(), [3, 2]), False),
        (pa.fixed_shape_tensor(pa.float32(), [6]), pa.list_(pa.float32(), 6), True),
        (TOP, TOP, True),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), False),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.string())]), False),
        (pa.timestamp("s"), pa.timestamp("ms"), False),
    ],
    ids=str,
)
def test_only_columns_of_one_kind_are_compared(left: pa.DataType, right: pa.DataType, expected: bool) -> None:
    assert comparable(left, right) == comparable(right, left) == expected


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.uint8(), "number"),
        (pa.fixed_shape_tensor(pa.float32(), [2, 3]), "numbers"),
        (NESTED, "numbers"),
        (pa.bool_(), "label"),
        (pa.string(), "label"),
        (TOP, "value"),
        (pa.list_(pa.string()), "value"),
        (pa.date32(), "value"),
    ],
    ids=str,
)
def test_what_can_be_said_of_a_column(column: pa.DataType, kind: str) -> None:
    assert kind_of(column) == kind


@pytest.mark.parametrize(
    ("left", "right", "at"),
    [
        ([1.0, 2.0, 3.0], [1.5, 4.0, 2.0], 1),
        ([[1, 2], [3, 4]], [[1, 2], [3, 7]], 3),
        ([1.0, math.nan, math.nan], [9.0, math.nan, 1.0], 2),
        ([math.inf, 1.0], [math.inf, 1.5], 1),
        ([1.0, None], [1.0, None], 0),
        ([1.0], [1.0, 2.0], None),
        ([], [], None),
        (None, [1.0], None),
    ],
)
def test_the_element_that_differs_most_is_found(left: Any, right: Any, at: int | None) -> None:
    assert farthest(left, right) == at


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.int8(), "whole numbers"),
        (pa.list_(pa.float32(), 1000), "lists of 1,000 floats"),
        (NESTED, "lists of lists of 2 whole numbers"),
        (pa.fixed_shape_tensor(pa.float32(), [2, 3]), "tensors of shape [2, 3] of floats"),
        (TOP, "lists of structs of 'index', 'value'"),
        (pa.string(), "text"),
    ],
    ids=str,
)
def test_what_a_column_holds_is_said_in_words(column: pa.DataType, said: str) -> None:
    assert spoken(column) == said
