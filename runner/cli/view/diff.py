"""How two columns that were compared look on a terminal. Words only: `runner.compare` says in what they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from connectors.secret import redact
from jobs.words import counted
from runner.compare.agreement import Agreement, number, short
from runner.report.console import printable


def render(agreement: Agreement) -> Group:
    """The figures, the most frequent disagreements, and the rows that differ most."""
    facts = Table.grid(padding=(0, 2))
    for name, words in agreement.facts().items():
        facts.add_row(name, Text(printable(words), style="yellow" if name in ("so far", "not measured") else ""))
    return Group(facts, *_pairs(agreement), *_most(agreement))


def _pairs(agreement: Agreement) -> list[Any]:
    if not agreement.pairs:
        return []
    table = _table([("rows", "right"), (agreement.left, "left"), (agreement.right, "left")])
    for one in agreement.pairs:
        table.add_row(f"{one.rows:,}", *(Text(printable(short(side))) for side in (one.left, one.right)))
    more = (agreement.different_pairs or 0) - len(agreement.pairs)
    return [Text(), table, *([Text(f"and {counted(more, 'other pair')}")] if more > 0 else [])]


def _most(agreement: Agreement) -> list[Any]:
    if not agreement.most:
        return []
    kept = list(agreement.most[0].kept)
    heads = [(name, "left") for name in (*kept, agreement.left, agreement.right)]
    heads += [("difference", "right"), ("file", "left"), ("row group", "right"), ("row", "right")]
    table = _table(heads)
    for one in agreement.most:
        file = PurePosixPath(redact(one.file)).name
        cells = [*(short(one.kept.get(name)) for name in kept), *one.cells]
        cells += [number(one.difference), file, str(one.row_group), str(one.row)]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return [Text("\nthe rows that differ most"), table]


def _table(heads: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in heads:
        table.add_column(Text(printable(name)), justify="right" if side == "right" else "left", overflow="fold")
    return table
