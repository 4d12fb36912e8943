"""Feeding blames exactly the rows that are bad, all of them: casts against NumPy, shapes and nulls against the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.section.columns import InputColumn
from runner.binding.blame import RowError
from runner.binding.feeding import input_source
from runner.binding.source import finite
from runner.model.signature import TensorSpec

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
UNTIMED = settings(deadline=None)  # a busy machine is no failure
FLOATS = ("float16", "float32", "float64")


def feed(values: pa.Array, dtype: str, shape: tuple[int | None, ...] = (None,), strict: bool = False) -> Any:
    spec = TensorSpec("x", dtype, shape, "x:0")
    source = input_source(spec, InputColumn(column="x"), [pa.field("x", values.type)])
    return (finite(source) if strict else source).feed(pa.record_batch({"x": values}))


def blamed(values: pa.Array, dtype: str, shape: tuple[int | None, ...] = (None,), strict: bool = False) -> list[int]:
    """The rows of the first thing that is wrong; every story is of its own row."""
    try:
        feed(values, dtype, shape, strict)
    except RowError as error:
        found = error
    else:
        return []
    assert len(found.stories) == len(found.at) == found.facts["rows"]
    assert found.facts["row"] == found.at[0]
    rows: list[int] = found.at.tolist()
    return rows


def bounds(kind: str) -> st.SearchStrategy[int]:
    """Integers of a type, mostly near the bounds of all of them."""
    own = np.iinfo(kind)
    edges = [
        edge + step for name in INTEGERS for edge in (np.iinfo(name).min, np.iinfo(name).max) for step in (-1, 0, 1)
    ]
    inside = [int(edge) for edge in edges if own.min <= edge <= own.max]
    return st.one_of(st.sampled_from(inside), st.integers(int(own.min), int(own.max)))


@UNTIMED
@given(st.sampled_from(INTEGERS), st.sampled_from(INTEGERS), st.data())
def test_integers_are_blamed_where_numpy_would_change_them(source: str, target: str, data: st.DataObject) -> None:
    drawn = np.array(data.draw(st.lists(bounds(source), min_size=1, max_size=20)), source)
    cast = drawn.astype(target)
    changed = [index for index, (a, b) in enumerate(zip(drawn.tolist(), cast.tolist(), strict=True)) if a != b]
    assert blamed(pa.array(drawn), target) == changed
    if not changed:
        np.testing.assert_array_equal(feed(pa.array(drawn), target), cast)


@UNTIMED
@given(st.sampled_from(FLOATS), st.sampled_from(FLOATS), st.data())
def test_floats_are_blamed_where_numpy_makes_an_infinity(source: str, target: str, data: st.DataObject) -> None:
    width: Any = int(source[5:])
    drawn = np.array(data.draw(st.lists(st.floats(width=width), min_size=1, max_size=20)), source)
    with np.errstate(all="ignore"):
        cast = drawn.astype(target)
    overflown = np.flatnonzero(np.isinf(cast) & np.isfinite(drawn)).tolist()
    assert blamed(pa.array(drawn), target) == overflown
    if not overflown:
        np.testing.assert_array_equal(feed(pa.array(drawn), target), cast)
        strange = np.flatnonzero(~np.isfinite(cast)).tolist()
        assert blamed(pa.array(drawn), target, strict=True) == strange


@UNTIMED
@given(st.sampled_from(INTEGERS), st.sampled_from(FLOATS), st.data())
def test_integers_become_floats_without_change_or_are_bad_rows(source: str, target: str, data: st.DataObject) -> None:
    drawn = np.array(data.draw(st.lists(bounds(source), min_size=1, max_size=20)), source)
    with np.errstate(all="ignore"):
        held = drawn.astype(target)
    changed = [at for at, value in enumerate(held) if not np.isfinite(value) or int(value) != int(drawn[at])]
    assert blamed(pa.array(drawn), target) == changed
    if not changed:
        assert [int(value) for value in feed(pa.array(drawn), target)] == drawn.tolist()


@UNTIMED
@given(st.integers(1, 4), st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=30), st.booleans())
def test_lists_are_blamed_where_they_are_missing_else_where_they_are_of_another_length(
    width: int, lengths: list[int | None], large: bool
) -> None:
    rows = [None if length is None else [float(index)] * length for index, length in enumerate(lengths)]
    kind = pa.large_list(pa.float32()) if large else pa.list_(pa.float32())
    missing = [index for index, length in enumerate(lengths) if length is None]
    wrong = [index for index, length in enumerate(lengths) if length != width]
    assert blamed(pa.array(rows, kind), "float32", (None, width)) == (missing or wrong)


@UNTIMED
@given(st.lists(st.lists(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=3), max_size=3), min_size=1))
def test_the_inside_of_nested_lists_is_blamed_on_its_row(rows: list[list[list[int | None]]]) -> None:
    values = pa.array(rows, pa.list_(pa.list_(pa.int32())))
    outer = [index for index, row in enumerate(rows) if len(row) != 2]
    inner = [index for index, row in enumerate(rows) if any(len(one) != 2 for one in row)]
    null = [index for index, row in enumerate(rows) if any(value is None for one in row for value in one)]
    assert blamed(values, "int32", (None, 2, 2)) == (outer or inner or null)


def test_every_row_has_a_story_of_its_own() -> None:
    values = pa.array([[1], [1, 2], [], [1, 2, 3]], pa.list_(pa.int32()))
    with pytest.raises(RowError) as caught:
        feed(values, "int32", (None, 2))
    assert [story.partition("found ")[2] for story in caught.value.stories] == [
        f"a list of {length}; expected lists of 2" for length in (1, 0, 3)
    ]


def test_where_any_length_will_do_no_row_is_to_blame_but_the_batch() -> None:
    values = pa.array([[1], [1, 2]], pa.list_(pa.int32()))
    with pytest.raises(Exception, match="rows of several shapes share no call") as caught:
        feed(values, "int32", (None, None))
    assert not isinstance(caught.value, RowError)
