"""Blame: values that are bad become rows that are named once, with their first bad value."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.errors import DataError
from runner.binding.blame import Blame, RowError

BLAME = Blame("x", "feature")


def refused(blame: Blame, failed: list[bool], rejectable: bool = True) -> DataError:
    with pytest.raises(DataError) as caught:
        blame.refuse("ROW_NULL", "value {}".format, "expected none", np.array(failed), rejectable)
    return caught.value


def test_each_value_is_a_row_where_nothing_else_is_said() -> None:
    error = refused(BLAME, [False, True, True])
    assert isinstance(error, RowError)
    assert error.at.tolist() == [1, 2]
    assert error.message == (
        "could not feed input 'x' from column 'feature': row 1 of the batch holds value 1 (2 such rows in this batch);"
        " expected none"
    )
    assert error.facts == {"code": "ROW_NULL", "column": "feature", "row": 1, "rows": 2}
    assert error.stories[1] == "could not feed input 'x' from column 'feature': found value 2; expected none"


def test_several_values_of_a_row_name_it_once_with_the_first_that_is_bad() -> None:
    error = refused(BLAME.among(3), [False, False, True, True, False, True])
    assert isinstance(error, RowError)
    assert error.at.tolist() == [1, 2]
    assert [story.split("found ")[1] for story in error.stories] == ["value 2; expected none", "value 5; expected none"]


def test_items_name_the_rows_that_they_belong_to_each_once() -> None:
    rows = np.array([0, 0, 4, 4, 7])
    error = refused(BLAME.within(lambda: rows), [False, False, True, True, True])
    assert isinstance(error, RowError)
    assert error.at.tolist() == [4, 7]
    assert [story.split("found ")[1] for story in error.stories] == ["value 2; expected none", "value 4; expected none"]


def test_rows_are_not_worked_out_before_something_is_wrong() -> None:
    BLAME.within(lambda: pytest.fail("not needed")).among(2)


def test_a_batch_that_is_to_blame_has_no_row_to_set_aside() -> None:
    error = refused(BLAME, [True, True], rejectable=False)
    assert not isinstance(error, RowError)
    assert error.facts == {"code": "ROW_NULL", "column": "feature", "row": 0, "rows": 2}
