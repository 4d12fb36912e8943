from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.rows.runs import Runs

ROWS = st.sets(st.integers(0, 60))


@given(ROWS)
def test_runs_hold_the_rows_that_they_were_made_of(rows: set[int]) -> None:
    made = Runs.of(sorted(rows))
    assert [*made] == sorted(rows)
    assert len(made) == len(rows)
    assert all(first < stop for first, stop in made.runs)
    assert Runs.from_document(made.document()) == made


@given(ROWS, ROWS)
def test_rows_that_are_left_out_and_rows_that_are_there_are_all_rows(left_out: set[int], other: set[int]) -> None:
    made = Runs.but(left_out, 61)
    assert [*made] == [row for row in range(61) if row not in left_out]
    assert [*made.meet(Runs.of(sorted(other)))] == sorted(other - left_out)


@given(ROWS, st.integers(0, 70))
def test_the_first_of_some_rows(rows: set[int], count: int) -> None:
    assert [*Runs.of(sorted(rows)).upto(count)] == sorted(rows)[:count]
    assert [*Runs.first(count)] == list(range(count))
