"""How rejected rows look, on a terminal and to scripts. Words only: `connectors.output.reject` finds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow.compute as pc
from rich.console import Group
from rich.table import Table
from rich.text import Text

from connectors.output.reject import Rejected
from connectors.secret import redact
from jobs.errors import JobError, one_of
from jobs.words import counted
from runner.report.console import printable

_SHOWN = 20  # rows in the table where no limit is given
_LETTERS = 60  # of a kept value


def document(rejected: Rejected, code: str | None = None, limit: int | None = None) -> dict[str, Any]:
    """For scripts; every row with all that its reject file says. raises: JobError for a code that no row has."""
    _check(rejected, code)
    return {
        "output": rejected.output,
        "plan_id": rejected.plan.id,
        "rows_rejected": rejected.rows,
        "codes": dict(rejected.codes().most_common()),
        "files_skipped": rejected.skipped,
        "rows": [*rows(rejected, code, limit)],
    }


def rows(rejected: Rejected, code: str | None = None, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The rejected rows, in the order of the input."""
    left = rejected.rows if limit is None else limit
    for table in rejected.tables():
        if left <= 0:
            return
        chosen = table if code is None else table.filter(pc.equal(table["code"], code))
        some = chosen.slice(0, left).to_pylist()
        left -= len(some)
        yield from some


def render(rejected: Rejected, code: str | None = None, limit: int | None = None) -> Group:
    """Counts by code, and a table of the first rows. raises: JobError for a code that no row has."""
    _check(rejected, code)
    limit = _SHOWN if limit is None else limit
    codes = rejected.codes()
    head = Text(f"{rejected.rows:,} of {counted(rejected.plan.rows, 'row')} rejected in {rejected.output}")
    counts = [Text(f"  {count:>9,}  {name}") for name, count in codes.most_common()]
    skipped = [
        Text(printable(f"  skipped    {redact(url)}: {why}"), style="yellow") for url, why in rejected.skipped.items()
    ]
    shown = [*rows(rejected, code, limit)]
    if not shown:
        return Group(head, *counts, *skipped)
    many = codes[code] if code is not None else rejected.rows
    more = [Text(f"and {many - len(shown):,} more: --limit N, or --json")] if many > len(shown) else []
    return Group(head, *counts, *skipped, Text(), _table(shown), *more)


def _table(shown: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    kept = list(next((row["kept"] for row in shown if row.get("kept")), {}))
    for name in ("code", "file", "row group", "row", "column", *kept, "message"):
        table.add_column(name, justify="right" if name in ("row group", "row") else "left", no_wrap=name != "message")
    for row in shown:
        place = (PurePosixPath(redact(row["file"])).name, str(row["row_group"]), str(row["row"]), row["column"] or "")
        values = (_short((row.get("kept") or {}).get(name)) for name in kept)
        table.add_row(*(Text(printable(cell)) for cell in (row["code"], *place, *values, row["message"])))
    return table


def _short(value: Any) -> str:
    text = "" if value is None else str(value) if isinstance(value, str | int | float) else repr(value)
    return text if len(text) <= _LETTERS else text[: _LETTERS - 3] + "..."


def _check(rejected: Rejected, code: str | None) -> None:
    codes = rejected.codes()
    if code is not None and code not in codes:
        present = one_of([*codes], code)
        raise JobError(f"no row of '{redact(rejected.output)}' was rejected with code '{code}': there is {present}")


def plain(value: Any) -> str:
    """What JSON has no word for, as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
