"""How rejected rows are grouped: a message that many share is told once, and none hides behind it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from runner.cli.view.rejects import _NARROW, _table, grouped


def row(number: int, message: str, code: str = "ROW_NULL", column: str | None = "x") -> dict[str, Any]:
    return {"code": code, "column": column, "message": message, "file": "a", "row_group": 0, "row": number}


def test_rows_of_one_message_are_one_group_the_most_frequent_first() -> None:
    found = grouped([row(1, "b"), *(row(n, "a") for n in range(2, 6)), row(6, "b", column="y")], 20)
    assert [(cause.count, [one["row"] for one in cause.first]) for cause in found] == [
        (4, [2, 3, 4, 5]),
        (1, [1]),
        (1, [6]),
    ]


def test_every_message_has_a_row_before_one_has_two() -> None:
    found = grouped([*(row(n, "a") for n in range(100)), row(100, "b"), row(101, "c")], 5)
    assert [(cause.count, [one["row"] for one in cause.first]) for cause in found] == [
        *((100, [0, 1, 2]), (1, [100]), (1, [101]))
    ]
    assert sum(len(cause.first) for cause in grouped([row(n, str(n)) for n in range(50)], 5)) == 5


def test_messages_without_end_are_held_by_their_code() -> None:
    found = grouped((row(n, str(n)) for n in range(3_000)), 2)
    assert (found[0].count, found[0].first[0]["message"]) == (2_000, "other messages: see --wide or --json")
    assert sum(len(cause.first) for cause in found) == 2


def test_where_a_row_stands_is_whole_however_many_columns_were_kept() -> None:
    kept = {f"column_{n}": "a long value of a column" for n in range(6)}
    console = Console(width=80, color_system=None)
    with console.capture() as printed:
        console.print(_table([row(1_234_567, "a") | {"file": "s3://lake/part-00017.parquet", "kept": kept}], _NARROW))
    lines = printed.get().splitlines()
    assert lines[0].startswith("file                row group      row  ")
    assert lines[1].startswith("part-00017.parquet          0  1234567  ")
    assert max(map(len, lines)) <= 80
