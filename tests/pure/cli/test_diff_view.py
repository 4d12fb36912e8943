"""How two columns that were compared look on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from runner.cli.view.diff import render
from runner.compare.agreement import Agreement, Differing, Measure, Taken, percent, short
from runner.compare.picture import picture

MEASURE = Measure(
    rows=9_996,
    mean=-1.25e-7,
    mean_absolute=3.1e-6,
    largest=0.43678892,
    quantiles={"p50": 1.2e-6, "p90": 5e-6, "p99": 0.001, "p99.9": 0.2},
    zeros=4_000,
    decades={-7: 5_000, -3: 900, -1: 96},
    correlation=0.999912,
)
AGREED = Agreement("s3://out/scores", "3f9c1a7e", "champion.score", "challenger.score", "number", 12, 12, 10_000, 4_000)
FAR = Differing("s3://in/a.parquet", 2, 17, 0.9, 0.4632, -0.4368, None, {"id": 71, "name": "x" * 100})


def lines(agreement: Agreement) -> list[str]:
    """What is shown, with single spaces."""
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        console.print(render(agreement), highlight=False, soft_wrap=True)
    return [" ".join(line.split()) for line in captured.get().splitlines() if line.strip()]


def test_numbers_are_told_with_their_quantiles_and_the_rows_that_differ_most() -> None:
    agreement = replace(AGREED, measure=MEASURE, nan_left=3, infinite=1, most=(FAR,))
    assert lines(agreement) == [
        "output s3://out/scores",
        "compared 'champion.score' with 'challenger.score' in 10,000 rows",
        "equal 4,000 (40%)",
        "difference mean -1.25e-07, mean absolute 3.1e-06, maximum 0.4368 ('challenger.score' minus 'champion.score')",
        "absolute p50 1.2e-06, p90 5e-06, p99 0.001, p99.9 0.2",
        "correlation 0.999912",
        "not measured 3 NaN in 'champion.score' only, 1 infinitely far apart",
        "the rows that differ most",
        "id name champion.score challenger.score difference file row group row",
        f"71 {'x' * 57}... 0.9 0.4632 -0.4368 a.parquet 2 17",
    ]


def test_lists_are_told_by_their_largest_element() -> None:
    agreement = replace(AGREED, kind="numbers", measure=replace(MEASURE, mean=None, correlation=None))
    (line,) = [line for line in lines(agreement) if line.startswith("difference")]
    assert line == "difference mean absolute 3.1e-06, maximum 0.4368 (largest of each row)"
    last = replace(FAR, left=[[0.5, 0.25], [1.0, 2.0]], right=[[0.5, 0.25], [1 / 3, 2.0]], at=2)
    assert " [2] 1 [2] 0.333333 " in lines(replace(agreement, most=(last,)))[-1]
    assert not any(line.startswith("correlation") for line in lines(agreement))


@pytest.mark.parametrize(
    ("found", "said"),
    [(1.0, "1.000000"), (0.99999999, "beyond 0.999999"), (-0.99999999, "beyond -0.999999"), (0.5, "0.500000")],
)
def test_a_correlation_is_one_only_where_it_is(found: float, said: str) -> None:
    agreement = replace(AGREED, measure=replace(MEASURE, correlation=found))
    assert f"correlation {said}" in lines(agreement)


def test_labels_are_told_by_what_is_taken_for_what() -> None:
    agreement = replace(
        AGREED, kind="label", pairs=(Taken("cat", "dog", 5_990), Taken(None, "\x1b[1m", 9)), different_pairs=3
    )
    assert lines(agreement)[3:] == [
        "rows champion.score challenger.score",
        "5,990 cat dog",
        "9 \\x1b[1m",
        "and 1 other pair",
    ]


def test_a_job_that_is_not_done_says_how_far_it_is() -> None:
    assert lines(replace(AGREED, shards_done=1))[1] == "so far 1 of 12 shards"


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 0, "100%"), (0, 9, "0%"), (9, 9, "100%"), (999_999, 10**6, "99.99%"), (1, 10**6, "0.01%"), (1, 3, "33.33%")],
)
def test_all_and_none_are_said_of_all_and_none_alone(part: int, whole: int, said: str) -> None:
    assert percent(part, whole) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ""),
        (math.nan, "nan"),
        (0.1 + 0.2, "0.3"),
        ([1, 2], "[1, 2]"),
        (True, "True"),
    ],
)
def test_a_cell_is_short(value: Any, said: str) -> None:
    assert short(value) == said


@pytest.mark.parametrize(
    ("zeros", "decades", "bars"),
    [
        (0, {}, []),
        (5, {}, ["no difference: 5 rows, 100.000%"]),
        (3, {-2: 1}, ["no difference: 3 rows, 75.000%", "from 0.01 to 0.1: 1 row, 25.000%"]),
        (0, {-1: 1, 1: 3}, ["from 0.1 to 1: 1 row", "from 1 to 10: 0 rows", "from 10 to 100: 3 rows"]),
    ],
)
def test_a_bar_stands_for_each_power_of_ten(zeros: int, decades: Mapping[int, int], bars: list[str]) -> None:
    drawn = picture(zeros, decades)
    assert all(bar in drawn for bar in bars)
    assert bool(drawn) == bool(bars)


def test_what_lies_far_below_is_in_the_first_bar() -> None:
    drawn = picture(1, {-300: 2, -40: 3, 0: 4})
    assert "less than 1e-14: 5 rows" in drawn
    assert drawn.count("<rect") == 17
