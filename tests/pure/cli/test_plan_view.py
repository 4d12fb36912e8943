"""How a plan looks: the table of its columns."""

from __future__ import annotations

from runner.cli.view.plan import in_view


def row(role: str, column: str, kind: str = "float", note: str = "") -> dict[str, str]:
    return {"role": role, "column": column, "type": kind, "note": note}


def test_thousands_of_kept_columns_of_one_type_are_one_row_of_a_plan() -> None:
    inputs = [row("input", f"x{at}") for at in range(150)]
    renamed = [row("kept", f"n{at}", note=f"the column 'o{at}'") for at in range(150)]
    wide = [row("kept", f"f{at}") for at in range(5_000)]
    few = [row("kept", f"t{at}", "string") for at in range(100)]
    assert [*in_view([*inputs, *renamed, *wide, *few])] == [
        *inputs,
        *renamed,
        row("kept", "f0 to f4999 (5,000 columns)"),
        *few,
    ]
