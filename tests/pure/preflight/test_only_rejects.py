"""Which rows of today an earlier job rejected."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
import pytest

from connectors.output.reject import Rejected
from jobs import plan as plans
from jobs.errors import InputError
from jobs.plan import InputFile, RowGroup
from jobs.section.limits import Limits
from runner.preflight.input.only_rejects import only_rows

REJECTED = {"f": {0: [0, 4], 2: [0, 1]}}  # of groups of 5, 3 and 2 rows: rows 0, 4, 8 and 9


def file_of(rows: list[int], placed: bool) -> InputFile:
    return InputFile(
        "f", 1, "1", tuple(RowGroup(n, 8 * n, place=(at, at, 1) if placed else None) for at, n in enumerate(rows))
    )


def picks(rows: list[int], placed: bool) -> list[list[int]]:
    before = Rejected("out", plans.plan([file_of([5, 3, 2], placed)], Limits(), {}), (), cast(Any, None))
    [(found, _)] = only_rows([(file_of(rows, placed), pa.schema([]))], REJECTED, before)
    return [list(group.picks or ()) for group in found.row_groups]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([5, 3, 2], [[0, 4], [], [0, 1]]),
        ([10], [[0, 4, 8, 9]]),
        ([4, 4, 2], [[0], [0], [0, 1]]),
        ([1, 8, 1], [[0], [3, 7], [0]]),
    ],
)
def test_rows_of_text_are_found_by_their_number_once_a_repair_moved_the_cuts(
    rows: list[int], expected: list[list[int]]
) -> None:
    assert picks(rows, placed=True) == expected


@pytest.mark.parametrize(("rows", "placed"), [([5, 3, 1], True), ([5, 3, 2, 1], True), ([], True), ([4, 4, 2], False)])
def test_rows_that_cannot_be_told_any_more_are_refused(rows: list[int], placed: bool) -> None:
    with pytest.raises(InputError, match="other rows or row groups now") as refused:
        picks(rows, placed)
    assert ("10 rows then" in str(refused.value)) == placed
