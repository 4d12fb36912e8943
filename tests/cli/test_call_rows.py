"""`runner call --rows`: exactly the rows that were named, fed as a job would feed them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


def _called(command: Command, *flags: str) -> Any:
    done = command("call", *flags, "--json")
    assert done.returncode == 0, done.stderr
    return {name: output["values"] for name, output in json.loads(done.stdout).items()}


@pytest.fixture
def numbers(tmp_path: Path, write_numbers: Callable[..., Path]) -> str:
    """A file of 1,000 rows, x from 0, in row groups of 100."""
    write_numbers(tmp_path / "in", files=1, rows=1000, row_group=100)
    return "in/numbers-000.parquet"


@pytest.mark.parametrize(
    ("rows", "first", "last"), [("0-3", 0, 3), ("7", 7, 7), ("98-201", 98, 201), ("999", 999, 999)]
)
def test_the_rows_that_are_named_are_fed_by_names_and_the_last_one_is_among_them(
    rows: str, first: int, last: int, command: Command, numbers: str, half_plus_two: Path
) -> None:
    outputs = _called(command, str(half_plus_two), "--rows", f"{numbers}:{rows}")
    assert outputs == {"y": [row / 2 + 2 for row in range(first, last + 1)]}


def test_a_map_names_other_columns_and_the_outputs_go_into_files(
    command: Command, half_plus_two: Path, tmp_path: Path
) -> None:
    table = pa.table({"other": pa.array([1, 2, 3], pa.int64())})
    pyarrow.feather.write_feather(table, str(tmp_path / "a.arrow"), compression="uncompressed")
    done = command("call", str(half_plus_two), "--rows", "a.arrow:1-2", "--map", "x=other", "--outdir", "answers")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "answers" / "y.npy").tolist() == [3.0, 3.5]


def test_a_batch_of_one_size_is_filled_up_and_only_the_rows_are_shown(
    command: Command, numbers: str, half_plus_two: Path
) -> None:
    model = (str(half_plus_two), "--signature", "sixteen", "--rows")
    assert _called(command, *model, f"{numbers}:4-6") == {"y": [4.0, 4.5, 5.0]}
    refused = command("call", *model, f"{numbers}:0-16")
    assert refused.returncode == 2
    assert "17 rows; a call of this signature takes 16" in refused.stderr


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("in/numbers-000.parquet:998-1000", "the file has 1,000 rows; the last one is 999"),
        ("in/numbers-000.parquet:5-3", "the last one, 3, comes before the first one, 5"),
        ("in/numbers-000.parquet", "expected FILE:FIRST-LAST, counted from 0"),
        ("in/numbers-000.parquet:1-", "expected FILE:FIRST-LAST, counted from 0"),
        ("nowhere.parquet:0-1", "nowhere.parquet"),
    ],
)
def test_rows_that_are_not_there_are_told(
    rows: str, said: str, command: Command, numbers: str, half_plus_two: Path
) -> None:
    done = command("call", str(half_plus_two), "--rows", rows)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_rows_beside_other_values_columns_that_do_not_fit_and_bad_rows_are_told(
    command: Command, numbers: str, half_plus_two: Path, tmp_path: Path
) -> None:
    model = str(half_plus_two)
    beside = command("call", model, "--rows", f"{numbers}:0", "--exprs", "x=[1.0]")
    assert "cannot feed rows of a file and other values" in beside.stderr
    alone = command("call", model, "--exprs", "x=[1.0]", "--map", "x=id")
    assert "it names columns of --rows" in alone.stderr
    assert "COLUMN_MISSING: input 'x'" in command("call", model, "--rows", f"{numbers}:0", "--map", "x=no").stderr
    pq.write_table(pa.table({"x": pa.array([1.0, None], pa.float32())}), tmp_path / "null.parquet")
    bad = command("call", model, "--rows", "null.parquet:0-1")
    assert bad.returncode == 65
    assert "ROW_NULL" in bad.stderr
    assert "Traceback" not in bad.stderr
